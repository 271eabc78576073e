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
import torch
from safetensors.torch import load_file, save_file

from msth_taichi.config import Config
from msth_taichi.errors import RunError
from msth_taichi.evaluation.evaluate import evaluate
from msth_taichi.training.batches import AHEAD
from msth_taichi.training.run import load_run
from msth_taichi.training.trainer import train
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


LEARNS = ("sampler.kind=error_map", "sampler.map_resolution=6", "sampler.time_bins=2", "sampler.map_decay=0.3")
EVERYTHING = (
    *LEARNS,
    "cameras.colors=affine",
    "cameras.poses=refine",
    "cameras.appearance=4",
    "mask.objective=uncertainty",
    "mask.information=neural",
    "loss.decay=0.5",
    "loss.opacity=0.001",
    "loss.time_smoothness=0.01",
    "loss.total_variation=0.1",
    "rays.background_render=white",
)
MORE_STEPS, STOP = 3 * AHEAD + 5, 2 * AHEAD + 3  # in the midst of a block; the map has been drawn from by then


@pytest.mark.parametrize("settings", [LEARNS, EVERYTHING], ids=["error map", "everything"])
def test_what_is_learnt_beside_the_field_goes_on(tiny_scene, config, tmp_path, settings):
    """Maps of a sampler, cameras, uncertainty: two halves are the whole, and the run can be used."""
    config = changed(config, *settings, "sampler.uniform=0.1", f"training.schedule_steps={MORE_STEPS}")
    whole, half = (changed(config, f"training.steps={steps}") for steps in (MORE_STEPS, STOP))
    straight = train(tiny_scene, whole, tmp_path / "straight", arch="cpu", progress=False)
    train(tiny_scene, half, tmp_path / "halves", arch="cpu", progress=False)
    train(tiny_scene, whole, tmp_path / "halves", arch="cpu", progress=False, resume=True)
    assert losses(tmp_path / "halves") == losses(tmp_path / "straight")
    last = f"checkpoints/step-{MORE_STEPS:08d}"
    for name in ("model.safetensors", "optimizer.safetensors", "state.json"):
        assert (tmp_path / "straight" / last / name).read_bytes() == (tmp_path / "halves" / last / name).read_bytes()

    state = load_file(tmp_path / "halves" / last / "optimizer.safetensors")
    errors = state["sampler/current"]
    assert (errors >= 0).any() and errors.std() > 0, "the map has learnt nothing"
    run = load_run(tmp_path / "halves", arch="cpu")
    for (name, loaded), trained in zip(run.model.named_parameters(), straight.model.parameters(), strict=True):
        assert torch.equal(loaded, trained), name
    if settings is EVERYTHING:
        for part in (run.model.colors, run.model.poses, run.model.field.appearances):
            assert len(part.values) == 3 and (part.values != 0).any(1).all(), "one of the training cameras is left out"
        for name in ("exp_avg/colors.values", "exp_avg/poses.values", "exp_avg/uncertainty.field.table"):
            assert state[name].any(), name
        logged = {name for terms in losses(run.path).values() for name in terms}
        assert {"loss_colors", "loss_uncertainty", "loss_information"} <= logged
    scores = [evaluate(each, tiny_scene, progress=False)["psnr"] for each in (run, straight)]
    assert scores[0] == scores[1] > 0


def test_a_map_that_is_lost_is_told(tiny_scene, config, tmp_path):
    config = changed(config, *LEARNS, "training.steps=4")
    run = train(tiny_scene, config, tmp_path / "run", arch="cpu", progress=False)
    file = run.path / "checkpoints" / "step-00000004" / "optimizer.safetensors"
    save_file({name: value for name, value in load_file(file).items() if not name.startswith("sampler/")}, file)
    with pytest.raises(RunError, match=r"optimizer.safetensors: does not belong to this run"):
        train(tiny_scene, changed(config, "training.steps=6"), run.path, arch="cpu", progress=False, resume=True)
