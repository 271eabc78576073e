"""Steps per second of a training beside a viewer that somebody looks at without moving, against one without a viewer.

    python benchmarks/bench_viewer.py            # the plenoptic preset; needs a GPU
    python benchmarks/bench_viewer.py --small    # the demo preset, on a CPU too

Pairs of trainings that go on, one after the other: some seconds without the viewer, as many with it. The one who looks
is a process that talks to the viewer as a browser does and throws its pictures away; what a browser needs to draw them
on the same machine is not counted. Needs the extra: msth_taichi[viewer].
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import common
import torch
from bench_training_step import FULL as STEP_FULL
from bench_training_step import SMALL as STEP_SMALL
from bench_training_step import frames_traced_in_place
from common import Result, wait
from options import arguments

from msth_taichi.config import load_preset
from msth_taichi.scene.scene import load_scene
from msth_taichi.training.trainer import Trainer
from msth_taichi.viewer.extra import require_viser
from msth_taichi.viewer.live import LiveViewer

NAME = "viewer"

_ONLOOKER = Path(__file__).parent / "onlooker.py"
_PATIENCE = 60.0  # seconds until the first picture


@dataclass(frozen=True)
class Sizes:
    """What is measured.

    Args:
        preset: of the training.
        scene: built-in scene.
        warmup: steps before timing.
        seconds: of each half of a pair; pictures of who only looks are some seconds apart.
        pairs: of which the median counts.
        settings: overrides of the preset.
    """

    preset: str
    scene: str
    warmup: int
    seconds: float
    pairs: int
    settings: tuple[str, ...] = ()


FULL = Sizes(STEP_FULL.preset, STEP_FULL.scene, STEP_FULL.warmup, seconds=15.0, pairs=5)
SMALL = Sizes(STEP_SMALL.preset, STEP_SMALL.scene, STEP_SMALL.warmup, seconds=15.0, pairs=3)


def measure_all(device: torch.device, sizes: Sizes) -> Result:
    """Train for a while, then time pairs."""
    require_viser()
    config = load_preset(sizes.preset, list(sizes.settings))
    with tempfile.TemporaryDirectory() as folder, frames_traced_in_place():
        trainer = Trainer(load_scene(sizes.scene, config.data), config, Path(folder), device, progress=False)
        viewer = LiveViewer(Path(folder), "127.0.0.1", 0)
        try:
            return {
                "preset": sizes.preset,
                "settings": list(sizes.settings),
                "scene": sizes.scene,
                "seconds": sizes.seconds,
                "pairs": _pairs(trainer, viewer, sizes),
            }
        finally:
            viewer.close()


def _pairs(trainer: Trainer, viewer: LiveViewer, sizes: Sizes) -> list[dict[str, float]]:
    for _ in range(sizes.warmup):
        trainer.step()
    port = viewer.address.rpartition(":")[2]
    command = [sys.executable, str(_ONLOOKER), port]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as onlooker:
        assert onlooker.stdin is not None and onlooker.stdout is not None

        def pictures() -> int:
            """So many it was sent since the last question."""
            onlooker.stdin.write("\n")  # type: ignore[union-attr]
            onlooker.stdin.flush()  # type: ignore[union-attr]
            return int(onlooker.stdout.readline())  # type: ignore[union-attr]

        end = time.perf_counter() + _PATIENCE
        while not pictures() and time.perf_counter() < end:
            trainer.step()
            viewer.after_step(trainer)
        pairs = []
        for _ in range(sizes.pairs):
            alone = _rate(trainer, sizes.seconds, lambda: None)
            pictures()
            beside = _rate(trainer, sizes.seconds, lambda: viewer.after_step(trainer))
            pairs.append({"alone": alone, "beside": beside, "share": beside / alone, "pictures": pictures()})
        onlooker.stdin.close()
    return pairs


def _rate(trainer: Trainer, seconds: float, after: Callable[[], None]) -> float:
    """Steps per second."""
    steps = 0
    wait(trainer.device)
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        trainer.step()
        after()
        steps += 1
    wait(trainer.device)
    return steps / (time.perf_counter() - start)


def page(result: Result) -> str:
    """A line for each pair, and their median."""
    pairs = result["pairs"]
    rows = [[k + 1, p["alone"], p["beside"], f"{p['share']:.1%}", p["pictures"]] for k, p in enumerate(pairs)]
    share = statistics.median(p["share"] for p in pairs)
    columns = ["pair", "steps/s without", "steps/s with", "share", "pictures sent"]
    lines = [
        "# A viewer that is still",
        "",
        *common.head(f"bench_{NAME}.py", result),
        f"Preset {' '.join([result['preset'], *result['settings']])}, {result['seconds']:g} seconds each; one client "
        f"that looks and does not move. Median share of the speed that the training keeps: **{share:.1%}**.",
        "",
        *common.markdown_table(columns, rows),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    def measured(device: torch.device, options: argparse.Namespace) -> Result:
        return measure_all(device, SMALL if options.small else FULL)

    common.main(NAME, measured, page, arguments(__doc__))


if __name__ == "__main__":
    main()
