"""Visualizers: chosen by name, told about a training, and never in its way."""

import sys
from pathlib import Path

import numpy as np
import pytest

from msth_taichi.errors import ConfigError, RunError
from msth_taichi.tracking.visualizer import Visualizer, Visualizers, parse_names
from msth_taichi.training.trainer import train
from tests.settings import changed


class Notes(Visualizer):
    """Keeps what it is shown."""

    def __init__(self):
        self.texts, self.numbers, self.pictures, self.spread, self.closed = {}, {}, {}, {}, 0

    def text(self, name, text):
        self.texts[name] = text

    def scalars(self, step, values):
        self.numbers.setdefault(step, {}).update(values)

    def images(self, step, images):
        self.pictures.setdefault(step, {}).update(images)

    def histogram(self, step, name, values):
        self.spread[step, name] = values

    def close(self):
        self.closed += 1


class Steps(Notes):
    """Wants to be called after each step."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def after_step(self, trainer):
        self.seen.append(trainer.state.step)


class Breaks(Steps):
    """Works until step 4."""

    def after_step(self, trainer):
        super().after_step(trainer)
        if trainer.state.step == 4:
            raise OSError("no space\nleft")


class Beside(Visualizers):
    """Visualizers that are made by a test."""

    def __init__(self, **given: Visualizer):
        super().__init__()
        self._given = given

    def open(self, run: Path) -> None:
        for name, visualizer in self._given.items():
            self.add(name, visualizer)


@pytest.mark.parametrize(
    ("text", "names"),
    [("none", []), ("wandb", ["wandb"]), ("viewer, tensorboard,viewer", ["viewer", "tensorboard"])],
)
def test_names_are_joined_by_commas(text, names):
    assert parse_names(text) == names


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("tensorbord", "did you mean 'tensorboard'"),
        ("none,wandb", "none goes with no other"),
        ("", "known: none, tensorboard, wandb, viewer"),
    ],
)
def test_wrong_names_are_told(text, says):
    with pytest.raises(ConfigError, match=says):
        parse_names(text)


@pytest.mark.parametrize(("name", "package"), [("tensorboard", "tensorboard"), ("wandb", "wandb"), ("viewer", "viser")])
def test_a_missing_package_says_what_to_install(name, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(RunError, match=rf"{package} is not installed.*pip install 'msth_taichi\[{name}\]'"):
        Visualizers([name])


def test_a_training_is_shown_and_one_that_fails_is_left_out(tiny_scene, tiny_config, tmp_path, capsys):
    config = changed(tiny_config, "training.steps=6", "training.log_every=2", "training.checkpoint_every=3")
    alone = train(tiny_scene, config, tmp_path / "alone", progress=False)
    quiet, steps, breaks = Notes(), Steps(), Breaks()
    visualizers = Beside(breaks=breaks, quiet=quiet, steps=steps)
    shown = train(tiny_scene, config, tmp_path / "shown", progress=False, visualizers=visualizers)
    visualizers.close()

    assert "log_every = 2" in quiet.texts["config"]
    assert list(quiet.numbers) == list(steps.numbers) == [2, 4, 6]
    assert {"train/loss", "train/psnr", "train/rays_per_second"} <= set(quiet.numbers[6])
    assert list(quiet.spread) == [(3, "mask"), (6, "mask")]
    values = quiet.spread[6, "mask"]
    assert values.shape == (5**3,) and 0 <= values.min() <= values.max() <= 1
    assert steps.seen == [1, 2, 3, 4, 5, 6]
    assert (quiet.closed, steps.closed) == (1, 1)

    assert breaks.seen == [1, 2, 3, 4] and list(breaks.numbers) == [2] and breaks.closed == 1
    warnings = capsys.readouterr().err.splitlines()
    assert warnings == [
        "warning: --vis breaks failed and is left out from here on (OSError: no space left); training goes on"
    ]
    file = "checkpoints/step-00000006/model.safetensors"
    assert (alone.path / file).read_bytes() == (shown.path / file).read_bytes()


def test_what_one_is_given_reaches_it(tmp_path):
    pytest.importorskip("viser", reason="needs viser: pip install 'msth_taichi[viewer]'")
    visualizers = Visualizers(["viewer"], {"viewer": {"host": "127.0.0.1", "port": 0}})
    visualizers.open(tmp_path)
    (viewer,) = visualizers._open.values()
    assert not viewer.address.endswith(":8080")  # type: ignore[attr-defined]
    visualizers.close()


def test_one_that_cannot_begin_is_left_out(tmp_path, monkeypatch, capsys):
    pytest.importorskip("tensorboard", reason="needs the extra tensorboard")
    (tmp_path / "tensorboard").write_text("a file where the folder should be")
    visualizers = Visualizers(["tensorboard"])
    visualizers.open(tmp_path)
    assert not visualizers
    assert capsys.readouterr().err.startswith("warning: --vis tensorboard failed")


def show(visualizers: Visualizers, step: int) -> None:
    visualizers.scalars(step, {"train/loss": 1.0 / step})
    visualizers.images(step, {"eval/cam00": np.full((6, 8, 3), step, np.uint8)})
    visualizers.histogram(step, "mask", np.linspace(0, 1, 50))


def test_tensorboard_reads_what_was_shown_and_a_resumed_run_replaces_its_steps(tiny_run_copy):
    pytest.importorskip("tensorboard", reason="needs the extra tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for steps in ((5, 10, 15), (15,)):  # killed at step 15, resumed from the checkpoint of step 10
        visualizers = Visualizers(["tensorboard"])
        visualizers.open(tiny_run_copy)
        visualizers.text("config", "a = 1\nb = '<x>'")
        for step in steps:
            show(visualizers, step)
        visualizers.close()
    found = EventAccumulator(str(tiny_run_copy / "tensorboard")).Reload()
    assert [event.step for event in found.Scalars("train/loss")] == [5, 10, 15]
    assert found.Scalars("train/loss")[1].value == pytest.approx(0.1)
    assert (found.Images("eval/cam00")[-1].width, found.Images("eval/cam00")[-1].height) == (8, 6)
    assert found.Histograms("mask")[-1].histogram_value.num == 50
    assert "config/text_summary" in found.Tags()["tensors"]
    assert "tensorflow" not in sys.modules


def test_wandb_stays_offline_without_a_login(tmp_path, monkeypatch, capsys):
    pytest.importorskip("wandb", reason="needs the extra wandb")
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_MODE", "online")
    for name in ("HOME", "NETRC", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    run = tmp_path / "run"
    run.mkdir()
    visualizers = Visualizers(["wandb"])
    visualizers.open(run)
    visualizers.text("config", "b = '<x>'")
    show(visualizers, 5)
    show(visualizers, 10)
    assert visualizers, capsys.readouterr().err
    visualizers.close()
    (folder,) = (run / "wandb").glob("offline-run-*")
    assert len(list(folder.glob("files/media/images/eval/*.png"))) == 2
    assert "&lt;x&gt;" in next(folder.glob("files/media/html/*.html")).read_text()
    assert next(folder.glob("*.wandb")).stat().st_size > 0
