"""Processes that train together, on CPUs: what one would do alone, the same in all of them."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from msth_taichi.config import Config, dump_config
from msth_taichi.errors import ConfigError
from msth_taichi.scene.scene import load_scene
from msth_taichi.training import trainer
from msth_taichi.training.checkpoint import checkpoint_steps
from msth_taichi.training.long import train_segments
from msth_taichi.training.run import load_run
from msth_taichi.training.segments import cut_frames, frame_times, segment_path
from msth_taichi.training.team import Team
from tests.settings import changed
from tests.training import teamwork

ROOT = Path(__file__).parents[2]


def free_port() -> str:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return str(taken.getsockname()[1])


def environment(**values: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **values}


def run_two(folder: Path, *options: str) -> list[str]:
    """Let two processes do what `teamwork` says in a folder; what each of them told."""
    port = free_port()
    command = [sys.executable, "-m", "tests.training.teamwork", str(folder), *options]
    processes = [
        subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment(RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=port),
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    told = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], told
    return told


@pytest.mark.parametrize(
    ("kind", "settings"),
    [("floats", ()), ("integers", ()), ("floats", ("sampler.kind=error_map", "rays.background=random"))],
    ids=["floats", "integers", "error map"],
)
def test_two_processes_do_what_one_does(tiny_config, tmp_path, kind, settings, monkeypatch):
    """Gradients of halves of a batch are those of the whole; and both end with the same parameters, bit for bit."""
    (tmp_path / "config.toml").write_text(dump_config(changed(tiny_config, *settings), "test"))
    run_two(tmp_path, kind)
    monkeypatch.setattr(trainer, "_sums_integers", trainer._sums_integers)  # teamwork sets it
    teamwork.work(kind, tmp_path, Team())
    alone, *both = (load_file(tmp_path / f"gradients-{name}.safetensors") for name in ("0-1", "0-2", "1-2"))
    for found in both:
        assert found.keys() == alone.keys()
        for name, gradient in found.items():
            assert (gradient - alone[name]).norm() <= 1e-5 * alone[name].norm(), name
    first, second = (load_file(tmp_path / f"parameters-{name}.safetensors") for name in ("0-2", "1-2"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert len(first) > len(alone) if settings else True, "the error map is the same too"


def losses_of(path: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (path / "metrics.jsonl").read_text().splitlines()]


def test_all_take_the_parts_that_the_one_with_the_least_memory_needs(tiny_config, tmp_path):
    """Found out before the first step, and by that step's numbers nothing else changes."""
    config = changed(tiny_config, "training.rays_per_step=1200", "training.steps=3", "training.log_every=1")
    (tmp_path / "config.toml").write_text(dump_config(config, "test"))
    told = run_two(tmp_path, "300")
    assert "warning" not in told[0] and "batches are trained on in 2 parts" in told[1]
    first, second = (load_file(tmp_path / f"parameters-{rank}-2.safetensors") for rank in range(2))
    assert first.pop("sizes").tolist() == [600] + 3 * [300, 300]
    assert second.pop("sizes").tolist() == [600] + 4 * [300, 300]
    assert all(torch.equal(first[name], second[name]) for name in first)

    found = losses_of(tmp_path / "run")
    (tmp_path / "run" / "metrics.jsonl").unlink()
    teamwork.work_with_memory_for(600, tmp_path, Team())
    assert found == pytest.approx(losses_of(tmp_path / "run"), rel=1e-4) and len(found) == 3


def test_rays_are_shared_evenly_or_not_at_all():
    Team(1, 4).require_divisible(1024)
    with pytest.raises(ConfigError, match=r"rays_per_step=1022: does not divide by 4"):
        Team(1, 4).require_divisible(1022)
    shares = [Team(rank, 3).share_of(torch.arange(12)) for rank in range(3)]
    assert torch.equal(torch.stack(shares, 1).flatten(), torch.arange(12))


def command_line(config: Config, output: Path, *options: str) -> list[str]:
    """`python -m torch.distributed.run ...` of a training by two processes with the settings of a configuration."""
    values = config.model_dump(exclude_defaults=True)
    sections = ("field", "rays", "training")
    settings = [f"{section}.{k}={json.dumps(v)}" for section in sections for k, v in values[section].items()]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--max-restarts=3"]
    torchrun += [f"--master-port={free_port()}", "-m", "msth_taichi", "train", teamwork.SCENE, "--preset=demo"]
    return [*torchrun, f"--output={output}", "--arch=cpu", *options, *(f"--set={setting}" for setting in settings)]


@pytest.mark.parametrize("shared", ["rays", "segments"])
def test_two_processes_train_a_long_video(tiny_config, tmp_path, shared):
    """Sharing the rays of one segment after the other they do what one does, but for rounding; or a segment each."""
    config = changed(tiny_config, "training.steps=4", "training.log_every=1", "training.checkpoint_every=4")
    options = ["--segment-frames=2"] + ["--parallel-segments"] * (shared == "segments")
    run = tmp_path / "run"
    subprocess.run(command_line(config, run, *options), cwd=ROOT, env=environment(), check=True)
    chain = load_run(run)
    assert chain.step == 4 and chain.render("test00", time=1.0)["rgb"].isfinite().all()
    found = [losses_of(segment_path(run, number)) for number in range(2)]
    assert list(map(len, found)) == [6, 4], "the first segment takes longer"
    if shared == "rays":
        scene = load_scene(teamwork.SCENE)
        alone = partial(trainer.train, overwrite=True, progress=False)
        train_segments(scene, chain.config, tmp_path / "alone", cut_frames(frame_times(scene), 2), alone)
        for number, losses in enumerate(found):
            assert losses == pytest.approx(losses_of(segment_path(tmp_path / "alone", number)), rel=1e-2)


def test_a_killed_process_is_started_again_and_nothing_is_lost(tiny_config, tmp_path):
    """torchrun starts all of them again, and they go on from the last checkpoint."""
    run, settings = tmp_path / "run", ["training.steps=4000", "training.checkpoint_every=20", "training.log_every=10"]
    command = command_line(changed(tiny_config, *settings), run)
    log = (tmp_path / "log").open("w")
    process = subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 120
        while not checkpoint_steps(run) and time.monotonic() < deadline:
            time.sleep(0.05)
        children = (Path("/proc") / str(process.pid) / "task" / str(process.pid) / "children").read_text().split()
        os.kill(int(children[-1]), signal.SIGKILL)
        reached = checkpoint_steps(run)[-1]
        while checkpoint_steps(run)[-1] < reached + 100 and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    assert checkpoint_steps(run)[-1] >= reached + 100, (tmp_path / "log").read_text()[-2000:]
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == [10 * (k + 1) for k in range(len(steps))], "no line lost, and none twice"
