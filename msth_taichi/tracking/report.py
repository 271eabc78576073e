"""report.html: a run on one page, made from its folder alone.

What it shows was written before, by the training (metrics.jsonl, training.json) and by evaluations (eval/), so that it
takes seconds, and says so where something is missing.
"""

import html
import json
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import msth_taichi
from msth_taichi.checking.layout import draw_layout
from msth_taichi.config import Config, dump_config, load_preset, preset_names
from msth_taichi.evaluation.curves import Point, curves_svg
from msth_taichi.evaluation.evaluate import page_path
from msth_taichi.evaluation.report import run_lines
from msth_taichi.evaluation.surfaces import MASK_BINS, MOVES, mask_histogram
from msth_taichi.files import write_text
from msth_taichi.pages import page, picture, table
from msth_taichi.tracking.mask import mask_values
from msth_taichi.training.record import read_metrics, read_record
from msth_taichi.training.run import Run
from msth_taichi.training.segments import is_chain, read_cut, segment_path

_POINTS = 300  # of a curve; what is logged in between is averaged
_TERM = "loss_"  # how metrics.jsonl names the parts of the loss

_STYLE = """
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(9em, 1fr)); gap: .6em; margin: 1.2em 0; }
.facts div { border: 1px solid var(--line); border-radius: 6px; padding: .5em .8em; }
.facts b { display: block; font-size: 1.25em; } .facts span, p { color: var(--pale); } pre { white-space: pre-wrap; }
"""


def report_path(run: Run) -> Path:
    """Where `write_report` writes; of a model file, in the folder of its evaluations.

    Example:
        >>> report_path(load_run("runs/demo"))
        PosixPath('runs/demo/report.html')
    """
    return run.results / "report.html"


def write_report(run: Run) -> Path:
    """Write the report of a run, as it is loaded: curves, held-out frames as they were last evaluated, cameras, mask,
    settings, timings and versions.

    Args:
        run: its step decides which evaluation is shown; the curves are those of the whole training.
    Returns:
        `report_path(run)`.

    Example:
        >>> write_report(load_run("runs/demo"))
        PosixPath('runs/demo/report.html')
    """
    metrics = read_metrics(run.path)
    record = read_record(run.path)
    result = _read_json(page_path(run).with_suffix(".json"))
    body = [
        *_facts(run, metrics, record, result),
        *_curves(run, metrics),
        *_held_out(run, result),
        *_cameras(run),
        *_mask(run, result),
        *_settings(run.config, record.get("preset")),
        *_machine(run, record, metrics),
    ]
    path = report_path(run)
    write_text(path, page(f"{run.path.resolve().name}: {run.scene.name}, step {run.step}", body, _STYLE))
    return path


def try_report(run: Run) -> Path | None:
    """`write_report` where all else is done: a failure is told in one line, and there is no report then."""
    try:
        return write_report(run)
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        print(f"warning: {report_path(run)} was not written ({reason}); the run itself is complete", file=sys.stderr)
        return None


def _facts(
    run: Run, metrics: Sequence[Mapping[str, Any]], record: Mapping[str, Any], result: Mapping[str, Any] | None
) -> Iterator[str]:
    planned = run.config.training.steps
    facts = {"steps": f"{run.step:,}" + (f" of {planned:,}" if run.step < planned else "")}
    if result:
        facts["PSNR, held-out"] = f"{result['psnr']:.2f} dB"
        if result["ssim"] is not None:
            facts["SSIM, held-out"] = f"{result['ssim']:.4f}"
    if metrics:
        facts["PSNR, training rays"] = f"{metrics[-1]['psnr']:.2f} dB"
    if record:
        facts["training"] = _duration(record["seconds"]["training"])
        facts["device"] = record["device"]
        if damaged := sum(record.get("damaged_frames", {}).values()):
            facts["damaged frames, left out"] = str(damaged)
    facts["parameters"] = f"{sum(p.numel() for p in run.model.parameters()) / 1e6:.1f} M"
    boxes = (f"<div><span>{html.escape(k)}</span><b>{html.escape(v)}</b></div>" for k, v in facts.items())
    yield f'<div class="facts">{"".join(boxes)}</div>'


def _curves(run: Run, metrics: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield "<h2>Curves</h2>"
    if is_chain(run.path):
        folders = (segment_path(Path(), k).as_posix() for k in range(len(read_cut(run.path).segments)))
        links = ", ".join(f'<a href="{folder}/report.html">{folder}</a>' for folder in folders)
        yield f"<p>Each segment has a report of its own: {links}.</p>"
        return
    if not metrics:
        yield "<p>No step was logged.</p>"
        return
    psnr = {"training rays": _curve(metrics, "psnr")}
    if held_out := _evaluations(run):
        psnr[f"held-out ({run.config.evaluation.split})"] = held_out
    yield curves_svg("PSNR", "step", "PSNR (dB)", psnr)
    terms = dict.fromkeys(key for row in metrics for key in row if key.startswith(_TERM))
    terms = {key.removeprefix(_TERM): _curve(metrics, key) for key in terms}
    losses = {"all": _curve(metrics, "loss"), **terms}
    # the axis is logarithmic: a term that was turned off, or is negative, has no place on it
    shown = {name: [(x, y) for x, y in curve if y > 0] for name, curve in losses.items()}
    if shown := {name: curve for name, curve in shown.items() if curve}:
        yield curves_svg("Loss and its terms, weighted", "step", "loss", shown, logarithmic=True)
    rate = [(step, rays / 1e3) for step, rays in _curve(metrics, "rays_per_second")]
    yield curves_svg("Speed", "step", "thousand rays per second", {"training": rate})


def _held_out(run: Run, result: Mapping[str, Any] | None) -> Iterator[str]:
    yield "<h2>Held-out frames</h2>"
    split = run.config.evaluation.split
    if split not in run.scene.splits:
        yield f"<p>The data set has no held-out views (split {html.escape(split)}), so that nothing was compared.</p>"
        return
    if result is None:
        yield f"<p>Step {run.step} has not been evaluated: run <code>msth eval</code>.</p>"
        return
    protocol = result["protocol"]
    share = f"one in {protocol['every']}" if protocol["every"] > 1 else "all"
    yield (
        f"<p>{protocol['images']} images of split {html.escape(split)}, {share} of each view, rendered as they are. "
        "Panels: ground truth, render, error x 4, mask (bright is static), depth (red is near). "
        f"Definitions and all numbers: eval/{page_path(run).name}.</p>"
    )
    rows = [[name, str(len(view["frames"])), *_scores(view)] for name, view in result["views"].items()]
    head = ["view", "images", "PSNR", "SSIM", "PSNR after a colour fit", "PSNR of dynamic pixels"]
    yield table([*rows, ["all", str(protocol["images"]), *_scores(result)]], head)
    pictures = result["pictures"]
    for name, file in pictures["first"].items():
        yield from _figure(run, file, f"{name}, first frame")
    yield "<h2>Worst frames</h2>"
    for worst in pictures["worst"]:
        yield from _figure(run, worst["file"], f"{worst['name']}, frame {worst['frame']}: PSNR {worst['psnr']:.2f}")


def _cameras(run: Run) -> Iterator[str]:
    scene = run.scene
    train = set(scene.images("train").camera.tolist())
    held_out = {i for i in range(len(scene.cameras)) if i not in train}
    yield "<h2>Cameras</h2>"
    yield picture("cameras from above and from the side", draw_layout(scene.cameras, scene.box, held_out), drawing=True)


def _mask(run: Run, result: Mapping[str, Any] | None) -> Iterator[str]:
    counts = {"places of the field": mask_histogram(mask_values(run.model))}
    if result and "mask_histogram" in result:
        counts["held-out pixels"] = np.array(result["mask_histogram"])
    edges = np.linspace(0, 1, MASK_BINS + 1)
    rows, curves = [], {}
    for name, count in counts.items():
        share = 100 * count / max(count.sum(), 1)
        moving = share[edges[:-1] < MOVES].sum()
        rows.append([name, f"{100 - moving:.1f} %", f"{moving:.1f} %"])
        curves[name] = [(x, y) for y, ends in zip(share, pairwise(edges), strict=True) for x in ends]
    yield "<h2>Mask</h2>"
    yield table(rows, ["of", f"static (mask {MOVES:g} and more)", "moving (below)"])
    yield (
        "<p>Places are the vertices of the mask's grid, most of them in empty space; pixels are those of the renders "
        "above, which see surfaces.</p>"
    )
    yield curves_svg(f"Masks in {MASK_BINS} bins", "mask (1 is static)", "share (%)", curves)


def _settings(config: Config, preset: str | None) -> Iterator[str]:
    yield "<h2>Settings</h2>"
    known = preset in preset_names()
    base, name = (load_preset(preset), f"preset {preset}") if preset and known else (Config(), "default")
    ours, theirs = _flat(config), _flat(base)
    rows = [[k, ours.get(k, ""), theirs.get(k, "")] for k in {**theirs, **ours} if ours.get(k) != theirs.get(k)]
    if rows:
        yield table(rows, ["setting", "this run", name])
    else:
        yield f"<p>All are those of the {html.escape(name)}.</p>"
    text = html.escape(dump_config(config, msth_taichi.__version__))
    yield f"<details><summary>All settings (config.toml)</summary><pre>{text}</pre></details>"


def _machine(run: Run, record: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield "<h2>Timings, hardware and versions</h2>"
    if record:
        seconds = record["seconds"]
        rate = (metrics[-1]["step"] if metrics else 0) / max(seconds["training"], 1e-9)
        rows = [
            ["start-up: data, model, sampler", _duration(seconds["start"])],
            ["training", f"{_duration(seconds['training'])}, {rate:.1f} steps per second"],
            ["evaluation while and after training", _duration(seconds["evaluation"])],
            ["device", f"{record['device']}, {record['cores']} CPU cores"],
        ]
        if peak := record.get("peak_gpu_bytes"):
            rows.append(["GPU memory of PyTorch at its peak", _size(peak)])
        rows.append(["versions", ", ".join(f"{k} {v}" for k, v in record["versions"].items() if v)])
    else:
        rows = [["timings", "not recorded: the run has no training.json"]]
    for file in sorted((run.path / "checkpoints" / f"step-{run.step:08d}").glob("*.safetensors")):
        rows.append([f"checkpoint, {file.stem}", _size(file.stat().st_size)])
    yield table(rows)
    yield f"<h2>Scene and model</h2>\n<pre>{html.escape(chr(10).join(run_lines(run)))}</pre>"


def _curve(metrics: Sequence[Mapping[str, Any]], key: str) -> list[Point]:
    """(step, value) of a number, means of neighbours where there are many."""
    values = np.array([(row["step"], row[key]) for row in metrics if key in row], np.float64)
    parts = np.array_split(values, min(_POINTS, len(values)))
    return [(float(step), float(value)) for step, value in (part.mean(0) for part in parts)]


def _evaluations(run: Run) -> list[Point]:
    """(step, PSNR) of the evaluations of the run's split."""
    stem = page_path(run).stem.replace(f"{run.step:08d}", "[0-9]" * 8)
    found = (_read_json(file) for file in sorted(page_path(run).parent.glob(f"{stem}.json")))
    return [(float(result["step"]), float(result["psnr"])) for result in found if result]


def _scores(scores: Mapping[str, Any]) -> list[str]:
    digits = {"psnr": 2, "ssim": 4, "psnr_affine": 2, "psnr_dynamic": 2}
    return ["-" if scores[key] is None else f"{scores[key]:.{count}f}" for key, count in digits.items()]


def _figure(run: Run, file: str, caption: str) -> Iterator[str]:
    path = page_path(run).parent / file
    if path.is_file():  # who needs space may have removed pictures
        with Image.open(path) as image:
            shown = picture(caption, image.convert("RGB"))
        yield f"<figure>{shown}<figcaption>{html.escape(caption)}</figcaption></figure>"


def _flat(config: Config) -> dict[str, str]:
    """Settings by their dotted names, as TOML would write them."""

    def walk(prefix: str, value: Any) -> Iterator[tuple[str, str]]:
        items = value.items() if isinstance(value, dict) else enumerate(value) if _is_tables(value) else None
        if items is None:
            yield prefix, json.dumps(value)
            return
        for key, part in items:
            yield from walk(f"{prefix}.{key}" if prefix else str(key), part)

    values = tomllib.loads(dump_config(config, msth_taichi.__version__))
    return {name: text for name, text in walk("", values) if name != "version"}


def _is_tables(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(part, dict) for part in value)


def _read_json(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text()) if path.is_file() else None


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
