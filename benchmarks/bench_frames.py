"""Training with frames on the GPU, in RAM and on disk: steps per second, and memory of the process.

    python benchmarks/bench_frames.py           # 19 cameras x 300 frames of 1352x1014, 23 GB; on a CPU disk alone
    python benchmarks/bench_frames.py --small   # a small scene

Cameras are the built-in scene's, frames one picture of noise, shifted from frame to frame: what they show does not
matter here. The cache is written to --cache and removed afterwards; it needs 23 GB there.
"""

import argparse
import gc
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch
from common import Result, Row, wait
from options import arguments

from msth_taichi.config import load_preset
from msth_taichi.scene.frame_cache import clear
from msth_taichi.scene.frames import PLACES, Tier
from msth_taichi.scene.scene import Scene, load_scene
from msth_taichi.training.trainer import Trainer

NAME = "frames"

SETTINGS: dict[Tier, tuple[str, ...]] = {
    "gpu": ("data.gpu_memory=64",),
    "ram": ("data.gpu_memory=1e-9", "data.ram_memory=64"),
    "disk": ("data.gpu_memory=1e-9", "data.ram_memory=0"),
}
"""What sends frames to each tier."""


@dataclass(frozen=True)
class Sizes:
    """What is measured.

    Args:
        preset: of the training.
        scene: its data.
        steps: of warm-up, and timed.
        tiers: in order.
    """

    preset: str
    scene: str
    steps: tuple[int, int]
    tiers: tuple[Tier, ...]


BIG = "synthetic:cameras=19,test_cameras=1,frames=300,width=1352,height=1014"
FULL = Sizes("plenoptic", BIG, (160, 480), ("gpu", "ram", "disk"))
CPU = Sizes("demo", BIG, (32, 160), ("disk",))
SMALL = Sizes("demo", "synthetic:cameras=3,test_cameras=1,frames=4,width=64,height=48", (16, 32), ("ram", "disk"))


@dataclass(frozen=True)
class Noise:
    """Frames that cost nothing to make; the key of a frame is any number."""

    size: tuple[int, int]
    channels: int = 3
    masked: bool = False

    def read(self, keys: np.ndarray) -> Iterator[np.ndarray]:
        width, height = self.size
        picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
        for key in keys.tolist():
            yield np.roll(picture, key, axis=0)

    def parts(self, keys: np.ndarray) -> list[np.ndarray]:
        return np.array_split(np.arange(len(keys)), 16)

    def fingerprint(self) -> list[Any]:
        return ["noise", *self.size]


def noisy_scene(text: str) -> Scene:
    """The built-in scene with other pictures."""
    scene = load_scene(text)
    source = Noise(scene.cameras.size(0))
    return replace(scene, splits={name: replace(images, source=source) for name, images in scene.splits.items()})


def measure_all(device: torch.device, sizes: Sizes, cache: Path) -> Result:
    """One row a tier."""
    scene = noisy_scene(sizes.scene)
    rows = [measure_tier(device, sizes, scene, tier, cache) for tier in sizes.tiers]
    for row in rows:
        row["ratio"] = row["steps_per_second"] / rows[0]["steps_per_second"]
    return {"preset": sizes.preset, "scene": sizes.scene, "steps": sizes.steps, "rows": rows}


def measure_tier(device: torch.device, sizes: Sizes, scene: Scene, tier: Tier, cache: Path) -> Row:
    """Train for a while with frames in one place."""
    gc.collect()  # frames of the tier before
    config = load_preset(sizes.preset, [*SETTINGS[tier], f"data.cache={cache}", "sampler.kind=uniform"])
    warm, timed = sizes.steps
    with peak_memory() as peak:
        start = time.perf_counter()
        trainer = Trainer(scene, config, Path("unused"), device, progress=False)
        ready = time.perf_counter() - start
        assert trainer.store.tier == tier
        for _ in range(warm):
            trainer.step()
        wait(device)
        start = time.perf_counter()
        for _ in range(timed):
            trainer.step()
        wait(device)
        seconds = time.perf_counter() - start
    return {
        "tier": tier,
        "gigabytes": trainer.store.nbytes / 1e9,
        "ready_seconds": ready,
        "steps_per_second": timed / seconds,
        "peak_resident_gigabytes": peak[0] / 1e9,
    }


@contextmanager
def peak_memory() -> Iterator[list[float]]:
    """Bytes of RAM that the process holds at most within the block, looked at every few milliseconds."""
    peak, done = [0.0], threading.Event()

    def watch() -> None:
        page = os.sysconf("SC_PAGE_SIZE")
        while not done.wait(0.005):
            peak[0] = max(peak[0], int(Path("/proc/self/statm").read_text().split()[1]) * page)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def page(result: Result) -> str:
    """The result as Markdown."""
    columns = ["frames", "GB", "ready after, s", "steps per second", "of the first", "peak resident GB"]
    cells = [
        [
            PLACES[row["tier"]],
            row["gigabytes"],
            row["ready_seconds"],
            row["steps_per_second"],
            row["ratio"],
            row["peak_resident_gigabytes"],
        ]
        for row in result["rows"]
    ]
    warm, timed = result["steps"]
    lines = [
        "# Frames on the GPU, in RAM, on disk",
        "",
        *common.head("bench_frames.py", result),
        f"Preset {result['preset']}, pixels drawn uniformly from `{result['scene']}`; {timed} steps after {warm}. "
        "Until they are ready frames are made, and written for the disk. Resident memory is the process's, with "
        "what it has mapped.",
        "",
        *common.markdown_table(columns, cells),
    ]
    return "\n".join(lines) + "\n"


def measured(device: torch.device, options: argparse.Namespace) -> Result:
    """See `common.main`."""
    sizes = SMALL if options.small else FULL if device.type == "cuda" else CPU
    with tempfile.TemporaryDirectory(dir=options.cache) as folder:
        try:
            return measure_all(device, sizes, Path(folder))
        finally:
            clear(Path(folder))


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("--cache", type=Path, help="folder for the cache; default: the system's temporary one")
    common.main(NAME, measured, page, parser, cpu_sizes=True)
