"""Kill a training again and again until it is done, and compare it with one that was left alone.

    python benchmarks/kill_training.py --kills 20 --output /tmp/kills

A kill is SIGKILL, at a random step; every other one waits until the next checkpoint is being written. After each, all
checkpoints with a final name must open. At the end both runs must have every line of metrics once, and the same
numbers: to the last bit, where sums have one owner, as on a CPU. Exit status 1 if not.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path

import torch
from safetensors.torch import load_file

from msth_taichi.training import start
from msth_taichi.training.checkpoint import checkpoint_steps, read_state
from msth_taichi.training.record import read_metrics

SCENE = "synthetic:cameras=3,test_cameras=1,frames=4,width=24,height=18"
GRIDS = ("levels=2", "base_resolution=[4,4,4,2]", "max_resolution=[8,8,8,4]", "mask_resolution=4", "hidden=8")
SETTINGS = (
    *(f"{part}.{value}" for part in ("field", "proposals.0") for value in (*GRIDS, "log2_static=8", "log2_dynamic=8")),
    "field.hidden_color=8",
    "proposals.0.samples=8",
    "rays.samples=6",
    "sampler.kind=error_map",
    "sampler.map_resolution=6",
    "training.rays_per_step=64",
    "training.log_every=1",
    "training.threads=1",
)


def forked(run: Path, steps: int, every: int, resume: bool) -> int:
    """A training in a process of its own, which begins with all that this one has imported."""
    process = os.fork()
    if process == 0:
        status = 1
        try:
            log = os.open(run.parent / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            settings = None if resume else [*SETTINGS, f"training.checkpoint_every={every}"]
            preset = None if resume else "demo"
            start.start_training(
                SCENE,
                run,
                preset=preset,
                steps=steps,
                settings=settings,
                arch="cpu",
                resume=resume,
                overwrite=not resume,
            )
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return process


def ended(process: int) -> bool:
    """Whether a process came to its end; it must not have failed."""
    found, status = os.waitpid(process, os.WNOHANG)
    if found and status:
        raise SystemExit(f"a training ended with status {status}; the log says why")
    return bool(found)


def logged(run: Path) -> int:
    """The last step that has a whole line of metrics."""
    file = run / "metrics.jsonl"
    lines = file.read_bytes()[-4096:].split(b"\n")[:-1] if file.exists() else []
    return json.loads(lines[-1])["step"] if lines else 0


def wait_and_kill(process: int, run: Path, step: int, draw: random.Random, in_checkpoint: bool) -> bool:
    """Kill a training after it has logged a step, or at the next checkpoint; whether it came to its end before."""
    while logged(run) < step:
        if ended(process):
            return True
        time.sleep(0.001)
    while in_checkpoint and not any((run / "checkpoints").glob(".step-*")):
        if ended(process):
            return True
        time.sleep(0.0005)
    time.sleep(draw.uniform(0, 0.004))
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return False


def require_readable(run: Path) -> tuple[int, bool]:
    """Open all checkpoints; how many there are, and whether one was being written."""
    folder = run / "checkpoints"
    steps = checkpoint_steps(run)
    for step in steps:
        for name in ("model", "optimizer"):
            load_file(folder / f"step-{step:08d}" / f"{name}.safetensors")
        assert read_state(folder / f"step-{step:08d}").step == step
    return len(steps), any(folder.glob(".step-*"))


def differences(straight: Path, killed: Path, steps: int) -> list[str]:
    """What the two runs do not have in common."""
    found = []
    rows = [
        [{k: v for k, v in row.items() if k != "rays_per_second"} for row in read_metrics(run)]
        for run in (straight, killed)
    ]
    if [row["step"] for row in rows[1]] != list(range(1, steps + 1)):
        found.append("lines of metrics are lost or doubled")
    found += [f"step {a['step']}: {a} is now {b}" for a, b in zip(*rows, strict=False) if a != b][:1]
    last = f"checkpoints/step-{steps:08d}/model.safetensors"
    models = [load_file(run / last) for run in (straight, killed)]
    found += [f"{name} differs" for name, values in models[0].items() if not torch.equal(values, models[1][name])]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for both runs; replaced")
    parser.add_argument("--kills", type=int, default=20, help="the training is left alone afterwards")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--every", type=int, default=10, help="training.checkpoint_every")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)  # a forked process has no other threads
    shutil.rmtree(options.output, ignore_errors=True)
    options.output.mkdir(parents=True)
    straight, killed = options.output / "straight", options.output / "killed"
    process = forked(straight, options.steps, options.every, resume=False)
    while not ended(process):
        time.sleep(0.01)

    draw, kills, writing, lost = random.Random(options.seed), 0, 0, 0
    while True:
        done = max(checkpoint_steps(killed), default=0)
        process = forked(killed, options.steps, options.every, resume=done > 0)
        if kills == options.kills:
            while not ended(process):
                time.sleep(0.01)
            break
        # it forgets lines of steps that it does again: those that are there now must not count
        stretch = 2 * (options.steps - done) // (options.kills - kills + 1)
        step = max(logged(killed), done) + draw.randint(1, max(1, stretch))
        if wait_and_kill(process, killed, min(step, options.steps - 2 * options.every), draw, kills % 2 == 1):
            break
        kills += 1
        whole, torn = require_readable(killed)
        reached = logged(killed)
        writing += torn
        lost += reached - max(checkpoint_steps(killed), default=0)
        print(f"kill {kills}: step {reached}, {whole} checkpoints open{', one was being written' * torn}", flush=True)
    different = differences(straight, killed, options.steps)
    scores = [json.loads(next(run.glob("eval/step-*.json")).read_text()) for run in (straight, killed)]
    for name, score in zip(("undisturbed", "killed"), scores, strict=True):
        print(f"{name}: PSNR {score['psnr']:.4f} dB, SSIM {score['ssim']:.5f}")
    print(f"{kills} kills, {writing} of them while a checkpoint was written; {lost} steps trained again")
    print("\n".join(different) or f"all {options.steps} lines of metrics and all parameters are equal, bit for bit")
    return int(bool(different) or kills < options.kills)


if __name__ == "__main__":
    sys.exit(main())
