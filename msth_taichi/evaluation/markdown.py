"""The result of an evaluation as a page of Markdown: means, views, protocol, definitions, pictures."""

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from msth_taichi.evaluation.protocol import DEFINITIONS

_RAW = {
    "PSNR": "psnr",
    "SSIM": "ssim",
    "SSIM2": "ssim2",
    "MS-SSIM": "ms_ssim",
    "D-SSIM": "d_ssim",
    "D-SSIM2": "d_ssim2",
    "D-MS-SSIM": "d_ms_ssim",
    "LPIPS (AlexNet)": "lpips_alex",
    "LPIPS (VGG)": "lpips_vgg",
}
_AFFINE = {"PSNR": "psnr_affine", "SSIM": "ssim_affine"}
_MOTION = {"temporal PSNR": "psnr_temporal", "PSNR of dynamic pixels": "psnr_dynamic"}
_DECIBELS = {"psnr", "psnr_pooled", "psnr_affine", "psnr_temporal", "psnr_dynamic"}
_FACTS = ("data", "split", "cameras", "every", "images", "resolution", "near", "background", "color", "ignored")


def evaluation_page(result: Mapping[str, Any]) -> str:
    """The page of the result of `evaluate`, which says everything that the json does but the scores of each image.

    Example:
        >>> evaluation_page(result).splitlines()[0]
        '# demo: step 1100, split test'
    """
    protocol = result["protocol"]
    sections = [
        f"# {protocol['data']}: step {result['step']}, split {protocol['split']}",
        "## As rendered (raw)\n\nNo colour is corrected. "
        f"PSNR of the pooled error, all images together: {_text(result, 'psnr_pooled')}.",
        _scores(result, _RAW),
        "## After an affine colour fit\n\nOne 3 x 4 matrix per view, fitted to the very frames it is compared with: "
        "not comparable with the numbers above.",
        _scores(result, _AFFINE),
    ]
    if protocol["cameras"] == "static":
        sections += ["## Over time (raw)", _scores(result, _MOTION, dynamic=True)]
    if result["mask"]:
        sections += ["## Against the exact scene", _truth(result)]
    sections += ["## Frame by frame (raw)", _picture("PSNR over the frames of each view", result["pictures"]["curves"])]
    sections += ["Worst frame of each view: ground truth, render, error x 4, mask, depth."]
    for worst in result["pictures"]["worst"]:
        title = f"{worst['name']}, frame {worst['frame']}, PSNR {worst['psnr']:.2f}"
        sections.append(f"{_cell(title)}\n\n{_picture(title, worst['file'])}")
    firsts = (f"[{_cell(name)}]({quote(file)})" for name, file in result["pictures"]["first"].items())
    sections.append(f"First frames, the same way: {', '.join(firsts)}.")
    sections += ["## Protocol", _table([("what", "value"), *_facts(protocol)])]
    sections += ["## Definitions", "\n".join(f"- **{name}**: {protocol[name]}" for name in DEFINITIONS)]
    return "\n\n".join(sections) + "\n"


def _scores(result: Mapping[str, Any], columns: Mapping[str, str], dynamic: bool = False) -> str:
    """A row per view and their mean over images; columns without any value are left out."""
    shown = {title: key for title, key in columns.items() if any(v[key] is not None for v in result["views"].values())}
    rows = [("view", "images", *shown, *(["dynamic pixels"] if dynamic else []))]
    for name, view in result["views"].items():
        share = [f"{100 * view['dynamic_pixels']:.2f} %"] if dynamic else []
        rows.append((name, str(len(view["frames"])), *(_text(view, key) for key in shown.values()), *share))
    mean = [_text(result, key) for key in shown.values()]
    rows.append(("**mean**", str(result["protocol"]["images"]), *mean, *([""] if dynamic else [])))
    return _table(rows)


def _truth(result: Mapping[str, Any]) -> str:
    mask = result["mask"]
    rows = [
        ("what", "value"),
        ("mean absolute error of the median depth, scene units", f"{result['depth_error']:.4f}"),
        ("mean relative error of the median depth", f"{100 * result['depth_error_relative']:.2f} %"),
        ("mask on static surfaces, mean (1 = static)", _plain(mask["static"])),
        ("mask on moving surfaces, mean", _plain(mask["moving"])),
        ("IoU of mask < 0.5 with what moves, at exact surface points", _plain(mask["iou"])),
        ("IoU of mask < 0.5 with what moves, rendered mask", _plain(mask["iou_rendered"])),
    ]
    return _table(rows)


def _facts(protocol: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    for key in _FACTS:
        yield key, _resolution(protocol[key]) if key == "resolution" else str(protocol[key])
    yield "views", ", ".join(protocol["views"])
    frames = protocol["frames"]
    yield "frames", f"{frames['count']} from {frames['first']} to {frames['last']}, of {frames['scene']} in the scene"
    yield "device", protocol["device"]
    yield "versions", ", ".join(f"{name} {number}" for name, number in protocol["versions"].items())


def _resolution(value: Any) -> str:
    sizes = value if isinstance(value[0], list) else [value]
    return ", ".join(f"{width} x {height}" for width, height in sizes)


def _text(scores: Mapping[str, Any], key: str) -> str:
    value = scores[key]
    return "-" if value is None else f"{value:.2f}" if key in _DECIBELS else f"{value:.4f}"


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _table(rows: list[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def _cell(text: str) -> str:
    """Text that ends no cell, and neither opens nor closes a link."""
    for sign in "|[]":
        text = text.replace(sign, f"\\{sign}")
    return text


def _picture(title: str, file: str) -> str:
    return f"![{_cell(title)}]({quote(file)})"
