"""Rays per second of a training shared by several GPUs, at the same rays per GPU.

    python benchmarks/bench_team.py                                     # one GPU, the plenoptic preset
    torchrun --nproc-per-node 2 benchmarks/bench_team.py                # two: another row of the same table
    torchrun --nproc-per-node 2 benchmarks/bench_team.py --small        # the demo preset, on CPUs

Rows of other numbers of processes stay as they are.
"""

import os

from msth_taichi.rendering.shards import torchrun_shard

torchrun_shard()  # chooses the GPU, so before torch is imported

import json
import time
from pathlib import Path

import common
import torch
from bench_training_step import FULL as STEP_FULL
from bench_training_step import LATE, SETTLING, frames_traced_in_place
from bench_training_step import SMALL as STEP_SMALL
from options import arguments

from msth_taichi.config import load_preset
from msth_taichi.files import write_text
from msth_taichi.kernels import runtime
from msth_taichi.scene.scene import load_scene
from msth_taichi.training.team import Team, join, leave
from msth_taichi.training.trainer import Trainer

NAME = "team"


def measured(device: torch.device, team: Team, small: bool) -> common.Row:
    """Time steps as `bench_training_step` does, late in a training."""
    sizes = STEP_SMALL if small else STEP_FULL
    alone = load_preset(sizes.preset, list(sizes.settings))
    rays = alone.training.rays_per_step
    config = load_preset(sizes.preset, [*sizes.settings, f"training.rays_per_step={rays * team.size}"])
    with frames_traced_in_place():
        trainer = Trainer(load_scene(sizes.scene, config.data), config, Path("unused"), device, False, team=team)
    for _ in range(sizes.warmup):
        trainer.step()
    trainer.state.step = LATE
    for _ in range(SETTLING):
        trainer.step()
    common.wait(device)
    team.wait()
    start = time.perf_counter()
    for _ in range(sizes.steps):
        trainer.step()
    common.wait(device)
    team.wait()
    step = (time.perf_counter() - start) / sizes.steps
    total = torch.stack([p.double().sum() for p in trainer.model.parameters()]).sum()[None]
    least, most = team.least(total), -team.least(-total)
    return {
        "processes": team.size,
        "preset": sizes.preset,
        "rays_per_process": rays,
        "step_ms": 1e3 * step,
        "rays_per_second": rays * team.size / step,
        "same_parameters": bool((least == most).item()),
    }


def page(rows: list[common.Row]) -> str:
    """A line for each number of processes."""
    one = next((row["rays_per_second"] for row in rows if row["processes"] == 1), None)
    cells = [
        [
            row["processes"],
            row["rays_per_process"],
            row["step_ms"],
            row["rays_per_second"] / 1e6,
            None if one is None else f"{row['rays_per_second'] / one:.2f}",
            "yes" if row["same_parameters"] else "NO",
            row["stamp"]["device"],
            row["stamp"]["date"],
            row["stamp"]["commit"],
        ]
        for row in rows
    ]
    columns = (
        "processes",
        "rays each",
        "ms a step",
        "M rays/s",
        "of one",
        "same parameters",
        "device",
        "date",
        "commit",
    )
    head = ["# Several GPUs", "", "Written by `torchrun benchmarks/bench_team.py`; see [README](../README.md).", ""]
    return "\n".join([*head, *common.markdown_table(columns, cells)]) + "\n"


def main() -> None:
    options = arguments(__doc__).parse_args()
    device = runtime.init(options.arch, threads=1 if "RANK" in os.environ and options.small else 0)
    team = join(device)
    row = {"stamp": common.stamp(device, options.commit), **measured(device, team, options.small)}
    if team.leads:
        path = options.results / f"{NAME}{'_small' if options.small else ''}.json"
        known = json.loads(path.read_text()) if path.is_file() else {}
        known[str(team.size)] = row
        rows = sorted(known.values(), key=lambda r: r["processes"])
        path.parent.mkdir(parents=True, exist_ok=True)
        common.write_json(path, known)
        write_text(path.with_suffix(".md"), page(rows))
        print(page(rows))
    leave()


if __name__ == "__main__":
    main()
