"""Time of a training step in steady state: wall clock, the host's share, and the device's time by kernel.

    python benchmarks/bench_training_step.py                # the n3v preset on 19 cameras x 300 frames of 1352x1014
    python benchmarks/bench_training_step.py --small        # the demo preset on the demo scene: seconds, on a CPU too

The content is the built-in scene, traced on the device. Steps are timed after a warm-up, when samples lie near
surfaces and the proposals are updated as in the middle of a training.
"""

import argparse
import datetime
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import taichi
import torch
from bench_captures import RESULTS, commit
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from msth_taichi.config import load_preset
from msth_taichi.errors import MsthError
from msth_taichi.kernels import runtime
from msth_taichi.scene.scene import load_scene
from msth_taichi.training.trainer import Trainer

FULL = "synthetic:cameras=19,test_cameras=1,frames=300,width=1352,height=1014"
PROFILED = 20  # steps looked at kernel by kernel, after those that are timed
ROWS = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="the demo preset on the demo scene")
    parser.add_argument("--warmup", type=int, default=500, help="steps before timing")
    parser.add_argument("--steps", type=int, default=200, help="steps timed")
    parser.add_argument("--arch", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="SECTION.KEY=VALUE")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of training_step.md and .json")
    parser.add_argument("--commit", default=commit(), help="default: what git says")
    options = parser.parse_args()
    try:
        result = measure(options)
    except MsthError as error:
        print("error:", error, file=sys.stderr)
        sys.exit(2)
    options.results.mkdir(parents=True, exist_ok=True)
    name = "training_step_small" if options.small else "training_step"
    (options.results / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    (options.results / f"{name}.md").write_text(table(result))
    print(table(result))


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Train for a while, then time steps."""
    preset, data = ("demo", "demo") if options.small else ("n3v", FULL)
    config = load_preset(preset, ["data.gpu_memory=64", *options.settings])
    device = runtime.init(options.arch, threads=config.training.threads)
    scene = load_scene(data, config.data)
    trainer = Trainer(scene, config, Path("unused"), device)  # steps write nothing
    start = time.perf_counter()
    trainer.step()
    wait(device)
    first = time.perf_counter() - start
    for _ in range(options.warmup):
        trainer.step()
    frames = trainer.store.frames.nbytes if trainer.store.frames.device.type == device.type else 0
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    wait(device)
    start = time.perf_counter()
    for _ in range(options.steps):
        trainer.step()
    issued = time.perf_counter() - start
    wait(device)
    total = time.perf_counter() - start
    rays = config.training.rays_per_step
    return {
        "preset": preset,
        "settings": options.settings,
        "scene": data,
        "rays": rays,
        "first_step_seconds": first,
        "step_ms": 1e3 * total / options.steps,
        "host_ms": 1e3 * issued / options.steps,
        "rays_per_second": rays * options.steps / total,
        "peak_gigabytes_without_frames": (torch.cuda.max_memory_allocated() - frames) / 1e9
        if device.type == "cuda"
        else None,
        "kernels_ms": kernels(trainer, device),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "CPU",
        "versions": {"torch": torch.__version__, "taichi": ".".join(map(str, taichi.__version__))},
        "date": datetime.date.today().isoformat(),
        "commit": options.commit,
    }


def kernels(trainer: Trainer, device: torch.device) -> dict[str, float]:
    """Milliseconds per step of each kernel on the device, longest first; on a CPU of each operator."""
    kinds = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device.type == "cuda" else [])
    with profile(activities=kinds) as record:
        for _ in range(PROFILED):
            trainer.step()
        wait(device)
    totals: Counter[str] = Counter()
    for event in record.key_averages():
        # operators and annotations, whose kernels are listed on their own
        if device.type == "cuda" and (
            event.device_type != DeviceType.CUDA or getattr(event, "is_user_annotation", False)
        ):
            continue
        spent = event.self_device_time_total if device.type == "cuda" else event.self_cpu_time_total
        totals[event.key.split("(")[0][:70]] += spent / 1e3 / PROFILED
    return dict(totals.most_common(ROWS))


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def table(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    memory = result["peak_gigabytes_without_frames"]
    lines = [
        "# A training step",
        "",
        "Written by `python benchmarks/bench_training_step.py`.",
        "",
        f"{result['device']}, torch {result['versions']['torch']}, taichi {result['versions']['taichi']}, "
        f"{result['date']}, commit {result['commit']}. Preset {' '.join([result['preset'], *result['settings']])}, "
        f"{result['rays']} rays a step, scene `{result['scene']}`.",
        "",
        f"- step: {result['step_ms']:.1f} ms, {result['rays_per_second'] / 1e6:.2f} M rays/s",
        f"- the host issues one in: {result['host_ms']:.1f} ms",
        f"- first step, kernels compiled or read from the cache: {result['first_step_seconds']:.1f} s",
        *([] if memory is None else [f"- peak GPU memory without the frames: {memory:.2f} GB"]),
        "",
        "| kernel or operator | ms a step |",
        "|---|---|",
        *(f"| `{name}` | {spent:.2f} |" for name, spent in result["kernels_ms"].items()),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
