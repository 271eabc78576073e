"""Time of a training step: wall clock, by phase and by kernel on the device, and the host's share.

    python benchmarks/bench_training_step.py            # the plenoptic preset: 19 cameras x 300 frames; needs a GPU
    python benchmarks/bench_training_step.py --small    # the demo preset on the demo scene: seconds, on a CPU too

The content is the built-in scene, traced on the device. Steps are timed after a warm-up, when samples lie near
surfaces: once right then, where the proposals are still updated every other step, and once with the schedules set
forward to where they are updated every sixth, as in most of a training.
"""

import argparse
import itertools
import statistics
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import common
import torch
from common import Result, hold_gpu, wait
from options import arguments
from profiling import launches_seen, profiled
from spans import Spans, Target

import msth_taichi.model.field
import msth_taichi.training.trainer
from msth_taichi.config import DataConfig, load_preset
from msth_taichi.kernels.room import room
from msth_taichi.scene.cameras import Cameras
from msth_taichi.scene.frames import FrameStore
from msth_taichi.scene.scene import Images, load_scene
from msth_taichi.scene.synthetic import RoomSource
from msth_taichi.training.trainer import Trainer

NAME = "training_step"

LATE = 5000
"""Step from which on the proposals are updated every sixth step."""

SETTLING = 60  # steps between setting the schedules forward and timing
ROWS = 25  # of the table of kernels
KINDS = ("without update", "with update")
BATCHES = "pixels, colours, rays"


@dataclass(frozen=True)
class Sizes:
    """What is measured.

    Args:
        preset: of the training.
        scene: built-in scene.
        warmup: steps before timing.
        steps: timed in a row; like the next two a multiple of the 16 steps whose batches are drawn at once, and of
            the steps between updates of the proposals.
        alone: steps timed one by one, for the host's time and by phase.
        profiled: steps looked at kernel by kernel.
        settings: overrides of the preset.
    """

    preset: str
    scene: str
    warmup: int
    steps: int
    alone: int = 48
    profiled: int = 48
    settings: tuple[str, ...] = ()


FULL = Sizes("plenoptic", "synthetic:cameras=19,test_cameras=1,frames=300,width=1352,height=1014", 500, 336)
SMALL = Sizes("demo", "demo", 192, 128, alone=32, profiled=32)


def measure_all(device: torch.device, sizes: Sizes) -> Result:
    """Train for a while, then time steps."""
    config = load_preset(sizes.preset, list(sizes.settings))
    start = time.perf_counter()
    before = torch.cuda.memory_allocated() if device.type == "cuda" else 0
    with frames_traced_in_place():
        # steps write nothing into the run folder
        trainer = Trainer(load_scene(sizes.scene, config.data), config, Path("unused"), device, progress=False)
    wait(device)
    setup = time.perf_counter() - start
    first = seconds(trainer.step, device)
    for _ in range(sizes.warmup):
        trainer.step()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    steady = {"early": in_a_row(trainer, sizes.steps)}
    if config.training.steps > LATE:
        trainer.state.step = LATE
        for _ in range(SETTLING):
            trainer.step()
        steady["late"] = in_a_row(trainer, sizes.steps)
    memory = peak_memory(trainer, before)
    host = host_alone(trainer, sizes.alone)
    profile = profiled(trainer.step, sizes.profiled, device)
    return {
        "preset": sizes.preset,
        "settings": list(sizes.settings),
        "scene": sizes.scene,
        "rays": config.training.rays_per_step,
        "setup_seconds": setup,
        "first_step_seconds": first,
        "warmup": sizes.warmup,
        "steps": sizes.steps,
        "steady": steady,
        "host_alone_ms": host,
        "phases_ms": phases(trainer, sizes.alone, lead=2e-3 * max(host.values())),
        "launches": launches(trainer, sizes.alone),
        "synchronizations": synchronizations(trainer, sizes.profiled),
        "busy_ms": profile["busy_ms"],
        "synchronize_calls": profile["synchronizations"],
        "peak_gigabytes_without_frames": memory,
        "kernels": profile["rows"],
    }


@contextmanager
def frames_traced_in_place() -> Iterator[None]:
    """Within the block, frames of the built-in scene are traced where a trainer keeps them, on its device, instead
    of passing through the host one by one."""

    def traced(
        images: Images, cameras: Cameras, device: torch.device, config: DataConfig, progress: bool = True
    ) -> FrameStore:
        source = images.source
        assert isinstance(source, RoomSource)
        size = cameras.size(0)[::-1]
        frames = torch.empty(len(images), *size, 3, dtype=torch.uint8, device=device)
        depth, moving = torch.empty(size, device=device), torch.empty(size, dtype=torch.uint8, device=device)
        poses, lenses = source.cameras.camera_to_world.to(device), source.cameras.intrinsics.to(device)
        for frame, key in zip(frames.unbind(), images.keys.tolist(), strict=True):
            camera, number = divmod(key, source.num_frames)
            room().render(poses, lenses, camera, number / source.num_frames, frame, depth, moving)
        return FrameStore.of(frames, device)

    with patch.object(FrameStore, "from_images", traced):
        yield


def seconds(step: Callable[[], Any], device: torch.device) -> float:
    """Of one step, until the device has done it."""
    start = time.perf_counter()
    step()
    wait(device)
    return time.perf_counter() - start


def in_a_row(trainer: Trainer, steps: int) -> dict[str, float]:
    """Wall clock of steps that follow each other, and of their issue: the same where the host is the slower one."""
    updates = 0
    first = trainer.state.step
    wait(trainer.device)
    start = time.perf_counter()
    for _ in range(steps):
        trainer.step()
        updates += trainer.state.since_update == 1
    issued = time.perf_counter() - start
    wait(trainer.device)
    total = time.perf_counter() - start
    return {
        "first_step": first,
        "updates": updates / steps,
        "step_ms": 1e3 * total / steps,
        "issued_ms": 1e3 * issued / steps,
        "rays_per_second": trainer.config.training.rays_per_step * steps / total,
    }


def host_alone(trainer: Trainer, steps: int) -> dict[str, float]:
    """Time until a step returns to the host, whose queue is empty when it begins: median by kind of step, and mean
    of all, with the drawing of batches."""
    spent: dict[str, list[float]] = defaultdict(list)
    for _ in range(steps):
        wait(trainer.device)
        start = time.perf_counter()
        trainer.step()
        spent[kind_of(trainer)].append(1e3 * (time.perf_counter() - start))
    wait(trainer.device)
    medians = {kind: statistics.median(values) for kind, values in spent.items()}
    return {**medians, "mean": statistics.mean(itertools.chain(*spent.values()))}


def kind_of(trainer: Trainer) -> str:
    """Whether the step just done updated the proposals."""
    return KINDS[trainer.state.since_update == 1]


def phases(trainer: Trainer, steps: int, lead: float) -> dict[str, dict[str, float]]:
    """Median time of each phase by kind of step; the mean of all steps for the batches, which are drawn seldom.

    Args:
        trainer: warmed up.
        steps: to look at.
        lead: seconds for which a GPU is held before each step, so that the host's pace leaves no gaps.
    """
    spans = Spans(trainer.device)
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    with spans.watching(targets(trainer)):
        for _ in range(steps):
            if trainer.device.type == "cuda":
                hold_gpu(min(lead, 0.1))
            with spans.span("rest"):
                trainer.step()
            found[kind_of(trainer)].append(spans.take())
    batches = statistics.mean(row.pop(BATCHES) for rows in found.values() for row in rows)
    return {kind: {BATCHES: batches, **_medians(rows)} for kind, rows in found.items()}


def _medians(rows: list[dict[str, float]]) -> dict[str, float]:
    result = {phase: statistics.median(row.get(phase, 0.0) for row in rows) for phase in rows[0]}
    return {**result, "rest": result.pop("rest")}  # the outermost is named last


def targets(trainer: Trainer) -> list[Target]:
    """What each phase of `Trainer.step` calls."""
    return [
        (trainer.batches, "at", BATCHES),
        (trainer.model, "sample", "proposals"),
        (trainer.model.field.encoding, "along", "field: encoding"),
        (msth_taichi.model.field, "radiance", "field: MLPs"),
        (msth_taichi.training.trainer, "losses", "losses"),
        (torch.Tensor, "backward", "backward"),
        (trainer.optimizer, "step", "optimiser"),
    ]


def launches(trainer: Trainer, steps: int) -> dict[str, Any]:
    """Taichi launches: the mean number of each kernel and of all by kind of step, and the most in any step."""
    found: dict[str, list[Counter[str]]] = defaultdict(list)
    for _ in range(steps):
        counts: Counter[str] = Counter()
        with launches_seen(lambda name, counts=counts: counts.update([name])):
            trainer.step()
        found[kind_of(trainer)].append(counts)
    return {
        "mean": {kind: sum(counts.total() for counts in rows) / len(rows) for kind, rows in found.items()},
        "most": max(counts.total() for rows in found.values() for counts in rows),
        "kernels": {
            kind: {name: count / len(rows) for name, count in sum(rows, Counter()).most_common()}
            for kind, rows in found.items()
        },
    }


def synchronizations(trainer: Trainer, steps: int) -> str | None:
    """What torch says where a step makes the host wait for the GPU; "none", or None on a CPU."""
    if trainer.device.type != "cuda":
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls this check experimental
        torch.cuda.set_sync_debug_mode("error")
        try:
            for _ in range(steps):
                trainer.step()
        except RuntimeError as error:
            return str(error).partition("\n")[0]
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return "none"


def peak_memory(trainer: Trainer, before: int) -> float | None:
    """GB of GPU memory that torch held at most, without the frames and what was there before."""
    if trainer.device.type != "cuda":
        return None
    frames = trainer.store.pixels
    on_gpu = frames.nbytes if frames.device.type == "cuda" else 0
    return (torch.cuda.max_memory_allocated() - on_gpu - before) / 1e9


def page(result: Result) -> str:
    """The result as Markdown."""
    lines = [
        "# A training step",
        "",
        *common.head("bench_training_step.py", result),
        f"Preset {' '.join([result['preset'], *result['settings']])}, {result['rays']} rays a step, scene "
        f"`{result['scene']}`; {result['steps']} steps in a row after {result['warmup']} of warm-up.",
        "",
        *_steady_lines(result),
        *_host_lines(result),
        "",
        "## By phase, ms on the device",
        "",
        *_phase_table(result["phases_ms"]),
        "",
        "## By kernel or operator, per step",
        "",
        *common.markdown_table(
            ["what launched it", "ms", "times"],
            [[f"`{row['name']}`", row["ms"], row["count"]] for row in result["kernels"][:ROWS]],
        ),
        "",
        "A Taichi launch may run several kernels, numbered in brackets.",
    ]
    return "\n".join(lines) + "\n"


def _steady_lines(result: Result) -> list[str]:
    return [
        f"- {name}, from step {found['first_step']}, proposals updated in {found['updates']:.0%} of the steps: "
        f"**{found['step_ms']:.2f} ms** a step ({found['rays_per_second'] / 1e6:.3g} M rays/s), "
        f"issued by the host in {found['issued_ms']:.2f} ms"
        for name, found in result["steady"].items()
    ]


def _host_lines(result: Result) -> list[str]:
    host, launched = result["host_alone_ms"], result["launches"]
    lines = [
        f"- the host alone, with an empty queue: {_by_kind(host, '.2f')}, {host['mean']:.2f} ms in the mean",
        f"- Taichi launches: {_by_kind(launched['mean'], '.1f')}, at most {launched['most']}",
        f"- first step, kernels compiled or read from the cache: {result['first_step_seconds']:.1f} s, after "
        f"{result['setup_seconds']:.1f} s for the scene",
    ]
    if result["busy_ms"] is not None:
        lines += [
            f"- the device works {result['busy_ms']:.2f} ms a step",
            f"- synchronisations: {result['synchronizations']} (torch's check), "
            f"{result['synchronize_calls']:g} calls a step (trace)",
            f"- peak GPU memory without the frames: {result['peak_gigabytes_without_frames']:.2f} GB",
        ]
    return lines


def _by_kind(values: dict[str, Any], spec: str) -> str:
    return ", ".join(f"{values[kind]:{spec}} in a step {kind}" for kind in KINDS if kind in values)


def _phase_table(found: dict[str, dict[str, float]]) -> list[str]:
    kinds = [kind for kind in KINDS if kind in found]
    names = dict.fromkeys(phase for kind in kinds for phase in found[kind])
    rows = [[name, *(found[kind].get(name) for kind in kinds)] for name in names]
    rows.append(["all", *(sum(found[kind].values()) for kind in kinds)])
    return common.markdown_table(["phase", *(f"step {kind}" for kind in kinds)], rows)


def measured(device: torch.device, options: argparse.Namespace) -> Result:
    """See `common.main`."""
    sizes = SMALL if options.small else FULL
    given = {name: value for name in ("warmup", "steps") if (value := getattr(options, name)) is not None}
    return measure_all(device, Sizes(**{**vars(sizes), **given, "settings": tuple(options.settings)}))


def parser() -> argparse.ArgumentParser:
    """Options."""
    found = arguments(__doc__)
    found.add_argument("--warmup", type=int, help="steps before timing")
    found.add_argument("--steps", type=int, help="steps timed in a row")
    found.add_argument("--set", action="append", default=[], dest="settings", metavar="SECTION.KEY=VALUE")
    return found


if __name__ == "__main__":
    common.main(NAME, measured, page, parser())
