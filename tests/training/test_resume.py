"""Stopped, killed and resumed trainings, each in a process of its own, against one that was left alone.

Equal means equal to the last bit: each sum has one owner, whatever the number of threads.
"""

import json
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tomli_w

from msth_taichi.config import Config
from tests.settings import changed

DATA = "synthetic:cameras=3,test_cameras=1,frames=4,width=24,height=18"
STEPS, HALF = 150, 75

# train STEPS steps at once, then again as two halves
STRAIGHT_AND_HALVES = """
import sys, tomllib
from pathlib import Path
from msth_taichi.config import parse_config
from msth_taichi.kernels import runtime
from msth_taichi.scene.scene import load_scene
from msth_taichi.training.trainer import train

folder, data, steps, half = Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:])
values = tomllib.loads((folder / "settings.toml").read_text())
whole, first = (parse_config(values, [f"training.steps={n}"], "test") for n in (steps, half))
runtime.init("cpu", threads=2)
scene = load_scene(data)
train(scene, whole, folder / "straight", progress=False)
train(scene, first, folder / "halves", progress=False)
train(scene, whole, folder / "halves", progress=False, resume=True)
"""


def losses(run: Path) -> dict[int, dict[str, float]]:
    """Loss terms by step; a step that is logged twice fails."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    by_step = {row["step"]: {k: v for k, v in row.items() if k != "rays_per_second"} for row in rows}
    assert len(by_step) == len(rows)
    return by_step


def checkpoints(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir() if not path.name.startswith("."))


@pytest.fixture(scope="module")
def config(tiny_config: Config) -> Config:
    return changed(
        tiny_config,
        "training.threads=2",
        "training.log_every=1",
        "training.checkpoint_every=20",
        f"training.schedule_steps={STEPS}",
        "sampler.kind=static_dynamic",
        "sampler.ratio=5",
        "rays.background=random",
        "rays.anneal_steps=100",
    )


@pytest.fixture(scope="module")
def folder(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds the runs "straight" and "halves"."""
    folder = tmp_path_factory.mktemp("resume")
    (folder / "settings.toml").write_text(tomli_w.dumps(config.model_dump(mode="json", exclude_none=True)))
    arguments = [str(folder), DATA, str(STEPS), str(HALF)]
    subprocess.run([sys.executable, "-c", STRAIGHT_AND_HALVES, *arguments], check=True)
    return folder


def start(run: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "msth_taichi", "train", DATA, "--output", str(run), "--arch=cpu", *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def send_after(process: subprocess.Popen[str], run: Path, step: int, number: signal.Signals) -> str:
    """Signal a training once it has logged `step`; what it printed until it ended."""
    metrics, deadline = run / "metrics.jsonl", time.monotonic() + 120
    while not (metrics.exists() and f'{{"step": {step},' in metrics.read_text()):
        assert process.poll() is None, "ended before the signal"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(number)
    return process.communicate(timeout=120)[0]


def test_two_halves_are_the_whole(folder):
    whole, halves = losses(folder / "straight"), losses(folder / "halves")
    assert list(whole) == list(range(1, STEPS + 1))
    assert halves == whole
    last = f"checkpoints/step-{STEPS:08d}"
    for name in ("model.safetensors", "optimizer.safetensors", "state.json"):
        assert (folder / "straight" / last / name).read_bytes() == (folder / "halves" / last / name).read_bytes(), name


def test_a_training_survives_sigterm_and_sigkill(folder, config, tmp_path):
    run = tmp_path / "run"
    values = config.model_dump(mode="json", exclude_none=True)
    (proposal,) = values.pop("proposals")
    settings = {f"{name}.{key}": value for name, section in values.items() for key, value in section.items()}
    settings |= {f"proposals.0.{key}": value for key, value in proposal.items()}
    options = [f"--set={key}={json.dumps(value)}" for key, value in settings.items()]

    process = start(run, "--preset=demo", *options, f"--steps={STEPS}")
    output = send_after(process, run, 27, signal.SIGTERM)
    assert process.returncode == 0
    stopped = re.search(r"stopped at step (\d+); continue with: .* --resume", output)
    assert stopped and 27 <= int(stopped[1]) < STEPS
    assert checkpoints(run)[-1] == f"step-{int(stopped[1]):08d}"

    process = start(run, "--resume")
    send_after(process, run, int(stopped[1]) + random.randint(1, 40), signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL

    process = start(run, "--resume")
    assert f"{STEPS} steps" in process.communicate(timeout=120)[0]
    assert process.returncode == 0
    assert losses(run) == losses(folder / "straight")
    assert len(list((run / "checkpoints").iterdir())) == 2, "nothing half-written is left"
