"""Frames per second of a trained scene, shortcut by shortcut, and what each costs in quality.

    python benchmarks/bench_rendering.py                # the plenoptic preset: 19 cameras x 300 frames; needs a GPU
    python benchmarks/bench_rendering.py --small        # the demo preset on the demo scene, on a CPU too

The content is the built-in scene, traced on the device. Each row renders neighbouring frames of a held-out camera, the
first one before the clock starts; all rows are measured in turn, several times, from scratch. PSNR is to the plain
renderer's frames and to the truth.
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import common
import torch
from bench_training_step import frames_traced_in_place
from common import Result, Row, wait
from options import arguments
from profiling import profiled

from msth_taichi.config import load_preset
from msth_taichi.model.renderer import render_image
from msth_taichi.rendering.fast import FastRenderer, Shortcuts
from msth_taichi.rendering.still import StillView
from msth_taichi.scene.scene import load_scene
from msth_taichi.training.trainer import Trainer

NAME = "rendering"

NONE = Shortcuts(cells=0, least_mass=-1.0, least_light=0.0, least_weight=-1.0, sure=1.0)
ROWS = 20  # of the table of kernels
THRESHOLDS = (0.9, 0.7, 0.5)  # of the still camera

Image = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Sizes:
    """What is measured.

    Args:
        preset: of the training.
        scene: built-in scene.
        steps: of the training, with the schedules of a training that long.
        frames: rendered in a row.
        plain: of them, rendered by the plain renderer.
        rounds: times that all rows are measured.
        cells: of the occupancy grid; None for what the renderer chooses.
        settings: overrides of the preset.
    """

    preset: str
    scene: str
    steps: int
    frames: int
    plain: int
    rounds: int
    cells: int | None = None
    settings: tuple[str, ...] = ()


FULL = Sizes(
    "plenoptic",
    "synthetic:cameras=19,test_cameras=1,frames=300,width=1352,height=1014",
    3000,
    frames=32,
    plain=4,
    rounds=3,
)
SMALL = Sizes("demo", "demo", 200, frames=4, plain=2, rounds=1, cells=32)


def shortcuts(cells: int | None) -> dict[str, Shortcuts]:
    """Rows of the table, each with all that the rows above leave out."""
    best = Shortcuts(cells=cells)
    return {
        "nothing": NONE,
        "empty cells": replace(NONE, cells=cells),
        "samples without weight": replace(NONE, cells=cells, least_mass=best.least_mass),
        "what lies in the dark": replace(best, least_weight=NONE.least_weight, sure=NONE.sure),
        "colours that do not show": replace(best, sure=NONE.sure),
        "tables without a share": best,
    }


def measure_all(device: torch.device, sizes: Sizes) -> Result:
    """Train, then render."""
    config = load_preset(sizes.preset, [*sizes.settings, f"training.steps={sizes.steps}"])
    scene = load_scene(sizes.scene, config.data)
    with frames_traced_in_place():
        trainer = Trainer(scene, config, Path("unused"), device, progress=False)
    start = time.perf_counter()
    for _ in range(sizes.steps):
        trainer.step()
    wait(device)
    trained = time.perf_counter() - start
    model = trainer.as_run().model
    del trainer
    if device.type == "cuda":
        torch.cuda.empty_cache()
    held_out = scene.images("test")
    first = len(held_out) // 3
    images = held_out.select(list(range(first, min(first + sizes.frames, len(held_out)))))
    index, times = int(images.camera[0]), images.time.tolist()
    truth = [torch.from_numpy(frame).float() / 255 for frame in images.read()]
    found: dict[str, list[Image]] = {}
    seconds: dict[str, list[list[float]]] = {}
    samples: dict[str, float] = {}

    def measure(name: str, frame: Callable[[float], Image], times: list[float]) -> None:
        images, taken = render(frame, times, device)
        found.setdefault(name, images)
        seconds.setdefault(name, []).append(taken)

    best = FastRenderer(model, Shortcuts(cells=sizes.cells))
    for _ in range(sizes.rounds):
        measure("plain", lambda t: render_image(model, scene.cameras, index, t), times[: sizes.plain])
        for name, given in shortcuts(sizes.cells).items():
            renderer = FastRenderer(model, given)  # that knows of no cells yet
            measure(name, lambda t, r=renderer: r.image(scene.cameras, index, t), times)
            samples[name] = renderer.looked_up / (len(times) + 1) / math.prod(scene.cameras.size(index))
        for threshold in THRESHOLDS:
            view = StillView(best, scene.cameras, index, threshold)
            again = sum(view.changing(t).float().mean().item() for t in times) / len(times)
            measure(f"still camera, threshold {threshold}, {again:.0%} of the rays again", view.image, times)
    rows = [
        {
            "name": name,
            **speed(seconds[name]),
            **quality(images, found["plain"], truth),
            "samples": samples.get(name),
        }
        for name, images in found.items()
    ]
    profile = profiled(lambda: best.image(scene.cameras, index, times[1]), 3, device)
    masks = torch.sigmoid(model.field.encoding.mask_logits)
    return {
        "preset": sizes.preset,
        "settings": list(sizes.settings),
        "scene": sizes.scene,
        "steps": sizes.steps,
        "training_seconds": trained,
        "frames": len(times),
        "rounds": sizes.rounds,
        "size": scene.cameras.size(index),
        "sure_masks": (masks > best.shortcuts.sure).float().mean().item(),
        "rows": rows,
        "busy_ms": profile["busy_ms"],
        "kernels": profile["rows"],
    }


def render(
    frame: Callable[[float], Image], times: list[float], device: torch.device
) -> tuple[list[Image], list[float]]:
    """Frames, and the seconds that each took, after one that warms up."""
    frame(times[0])
    found, seconds = [], []
    for t in times:
        wait(device)
        start = time.perf_counter()
        image = frame(t)
        wait(device)
        seconds.append(time.perf_counter() - start)
        found.append({name: values.cpu() for name, values in image.items()})
    return found, seconds


def speed(rounds: list[list[float]]) -> Row:
    """Frames a second of each round, and the median frame, which the first frames of new spans of time do not touch."""
    return {
        "fps": [len(seconds) / sum(seconds) for seconds in rounds],
        "median_ms": 1e3 * statistics.median(s for seconds in rounds for s in seconds),
    }


def quality(found: list[Image], plain: list[Image], truth: list[torch.Tensor]) -> Row:
    """PSNR to the plain renderer's frames, and to the truth, over the frames that both have."""
    same = [(found[k]["rgb"], plain[k]["rgb"], truth[k]) for k in range(len(plain))]
    return {
        "psnr_plain": psnr([(a, b) for a, b, _ in same]),
        "psnr": psnr([(a, c) for a, _, c in same]),
        "psnr_all": psnr([(a["rgb"], c) for a, c in zip(found, truth, strict=False)]),
    }


def psnr(pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> float:
    """dB, over all pixels of all pairs."""
    error = torch.stack([(a - b).square().mean() for a, b in pairs]).mean()
    return -10 * torch.log10(error.clamp(min=1e-10)).item()


def page(result: Result) -> str:
    """The result as Markdown."""
    plain = result["rows"][0]
    cells = [
        [
            row["name"],
            f"{statistics.mean(row['fps']):.1f} ({min(row['fps']):.1f} to {max(row['fps']):.1f})",
            row["median_ms"],
            None if row is plain else f"{row['psnr_plain']:.1f}",
            f"{row['psnr'] - plain['psnr']:+.3f}",
            f"{row['psnr_all']:.2f}",
            row.get("samples"),
        ]
        for row in result["rows"]
    ]
    columns = [
        "what is left out",
        "frames/s",
        "median ms",
        "dB to plain",
        "dB gained on the truth",
        "dB",
        "lookups a ray",
    ]
    width, height = result["size"]
    lines = [
        "# Rendering",
        "",
        *common.head("bench_rendering.py", result),
        f"Preset {' '.join([result['preset'], *result['settings']])}, scene `{result['scene']}`, trained for "
        f"{result['steps']} steps in {result['training_seconds']:.0f} s; {result['frames']} neighbouring frames of "
        f"{width} x {height} through a held-out camera. Each row leaves out what the rows above do as well. Mean of "
        f"{result['rounds']} rounds, with the least and the most of them. Of the field's masks "
        f"{result['sure_masks']:.0%} are sure.",
        "",
        *common.markdown_table(columns, cells),
        "",
        "## By kernel or operator, per frame with all shortcuts",
        "",
        *common.markdown_table(
            ["what launched it", "ms", "times"],
            [[f"`{row['name']}`", row["ms"], row["count"]] for row in result["kernels"][:ROWS]],
        ),
    ]
    return "\n".join(lines) + "\n"


def measured(device: torch.device, options: argparse.Namespace) -> Result:
    """See `common.main`."""
    return measure_all(device, SMALL if options.small else FULL)


if __name__ == "__main__":
    common.main(NAME, measured, page, arguments(__doc__))
