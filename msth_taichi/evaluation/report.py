"""Scenes, runs and results as lines of text for a terminal."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from msth_taichi.exporting.model_file import SUFFIX
from msth_taichi.scene.cameras import Cameras
from msth_taichi.scene.scene import Images, Scene, load_scene
from msth_taichi.training.record import read_metrics
from msth_taichi.training.run import Run, load_run
from msth_taichi.training.segments import is_chain, read_cut


def evaluation_lines(result: dict[str, Any]) -> list[str]:
    """The result of `evaluate`: a table of the views as rendered and their mean, then what else was measured."""
    views = result["views"]
    rows = [("view", "images", "PSNR", "SSIM")]
    rows += [(name, str(len(view["frames"])), *_quality(view)) for name, view in views.items()]
    rows.append(("mean", str(result["protocol"]["images"]), *_quality(result)))
    lines = _table(rows)
    lines.append(f"step {result['step']}, split {result['protocol']['split']}, every {result['protocol']['every']}")
    ssim = "-" if result["ssim_affine"] is None else f"{result['ssim_affine']:.4f}"
    lines.append(f"after an affine colour fit per view: PSNR {result['psnr_affine']:.2f}, SSIM {ssim}")
    motion = [
        f"{name} {result[key]:.2f}"
        for name, key in (("of frame differences", "psnr_temporal"), ("of dynamic pixels", "psnr_dynamic"))
        if result[key] is not None
    ]
    if motion:
        lines.append("PSNR " + ", ".join(motion))
    if result["lpips_alex"] is not None:
        lines.append(f"LPIPS {result['lpips_alex']:.4f} (AlexNet), {result['lpips_vgg']:.4f} (VGG)")
    if result["mask"]:
        values = {key: "none" if v is None else f"{v:.2f}" for key, v in result["mask"].items()}
        lines.append(
            f"mask (1 = static): {values['static']} on static surfaces, {values['moving']} on moving ones, "
            f"difference {values['difference']}; IoU of mask < 0.5 with what moves: {values['iou']}"
        )
        lines.append(f"depth: {100 * result['depth_error_relative']:.1f} % off on average")
    return lines


def info_lines(target: str) -> list[str]:
    """What there is to know about a data set or a run without training.

    Raises:
        MsthError: neither a data set nor a run.
    """
    if Path(target).suffix.lower() == SUFFIX or (Path(target) / "config.toml").is_file():
        return run_lines(load_run(Path(target)))
    return scene_lines(load_scene(target))


def scene_lines(scene: Scene) -> list[str]:
    """Cameras, times, splits, size in memory and extent of a scene."""
    cameras = scene.cameras
    positions = cameras.camera_to_world[:, :, 3]
    low, high = positions.amin(0).tolist(), positions.amax(0).tolist()
    movement = "static" if scene.static_cameras else "moving"
    return [
        f"scene    {scene.name} ({scene.format})",
        f"cameras  {len(cameras)} {movement}, {_sizes(cameras)} pixels",
        f"times    {scene.num_frames}, {scene.fps:g} per second",
        *(f"{name:<9}{_split_text(scene, images)}" for name, images in scene.splits.items()),
        f"scale    {scene.transform.scale:.4g} scene units per unit of the data set",
        f"extent   cameras from ({_numbers(low)}) to ({_numbers(high)}) scene units",
        f"box      half edge {scene.box:g} scene units, used where rays.contraction is none",
    ]


def run_lines(run: Run) -> list[str]:
    """Scene, settings, size and last numbers of a run."""
    config, field = run.config, run.config.field
    samples = " + ".join(str(count) for count in [*(p.samples for p in config.proposals), config.rays.samples])
    parts = [(name, sum(p.numel() for p in part.parameters())) for name, part in run.model.named_children()]
    total = sum(p.numel() for p in run.model.parameters())
    rows = [(name, f"{count:,}", f"{4 * count / 1e6:.1f} MB") for name, count in [*parts, ("all", total)] if count]
    segments = f", each of {len(read_cut(run.path).segments)} segments" if is_chain(run.path) else ""
    times = f" x {field.mask_times} times" if field.mask_times > 1 else ""
    lines = [
        f"run      {run.path}",
        f"step     {run.step} of {config.training.steps}{segments}",
        *scene_lines(run.scene),
        f"rays     {config.training.rays_per_step} per step, {samples} samples, near {config.rays.near:g}, "
        f"background {config.rays.behind}",
        f"grids    {field.levels} levels, static 2^{field.log2_static}, dynamic 2^{field.log2_dynamic}, "
        f"mask {field.mask_resolution}{times}, blend {field.blend}",
        "parameters",
        *("  " + line for line in _table(rows)),
    ]
    if metrics := read_metrics(run.path):
        lines.append(
            "training " + ", ".join(f"{k} {v:.5g}" for k, v in metrics[-1].items() if isinstance(v, int | float))
        )
    evaluations = sorted((run.results / "eval").glob("step-*.json"))
    if evaluations:
        result = json.loads(evaluations[-1].read_text())
        lines.append("eval     step {}: PSNR {}, SSIM {}".format(result["step"], *_quality(result)))
    return lines


def _quality(values: dict[str, Any]) -> tuple[str, str]:
    return f"{values['psnr']:.2f}", "-" if values["ssim"] is None else f"{values['ssim']:.4f}"


def _split_text(scene: Scene, images: Images) -> str:
    text = f"{len(images)} images, {len(torch.unique(images.camera))} cameras"
    if images.source is None:
        return text
    size = int(scene.cameras.sizes.prod(1)[images.camera].sum()) * images.channels
    return f"{text}, {size / 1e6:,.0f} MB of frames in memory"


def _sizes(cameras: Cameras) -> str:
    sizes = cameras.sizes.unique(dim=0).tolist()
    texts = [f"{width} x {height}" for width, height in sizes]
    return texts[0] if len(texts) == 1 else f"{texts[0]} to {texts[-1]}"


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    """Rows with their first column to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def _numbers(values: Iterable[float]) -> str:
    return ", ".join(f"{value:.3g}" for value in values)
