"""A viewer of a training: it changes nothing about it, pauses it, and takes its share of the time alone."""

import signal
import threading

import numpy as np
import pytest
import torch

pytest.importorskip("viser", reason="needs viser: pip install 'msth_taichi[viewer]'")

from msth_taichi.training.trainer import Trainer, stop_on_signal
from msth_taichi.viewer.live import Curve, LiveViewer
from tests.viewer.talk import Talk, until


@pytest.fixture
def trainer(tiny_scene, tiny_config, tmp_path):
    return Trainer(tiny_scene, tiny_config, tmp_path / "run", torch.device("cpu"), progress=False)


@pytest.fixture
def viewer(tmp_path):
    made = LiveViewer(tmp_path / "run", "127.0.0.1", 0)
    yield made
    made.close()


@pytest.fixture
def talk(viewer):
    made = Talk(int(viewer.address.rpartition(":")[2]))
    made.look()
    yield made
    made.close()


def parameters(trainer: Trainer) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in trainer.model.parameters()]


def test_a_training_is_the_same_with_a_viewer(tiny_scene, tiny_config, tmp_path, trainer, viewer, talk):
    viewer.after_step(trainer)
    until(lambda: talk.pictures(), lambda: viewer.after_step(trainer))
    for _ in range(6):
        trainer.step()
        seen = talk.pictures()
        talk.look(position=(0.0, -1.0, 0.1 * trainer.state.step))
        until(lambda seen=seen: talk.pictures() > seen, lambda: viewer.after_step(trainer))
    alone = Trainer(tiny_scene, tiny_config, tmp_path / "alone", torch.device("cpu"), progress=False)
    for _ in range(6):
        alone.step()
    for a, b in zip(parameters(trainer), parameters(alone), strict=True):
        assert torch.equal(a, b)


def test_a_viewer_that_nobody_looks_at_renders_nothing(trainer, viewer, monkeypatch):
    monkeypatch.setattr(viewer._server, "turn", lambda *_: pytest.fail("rendered"))
    for _ in range(3):
        trainer.step()
        viewer.after_step(trainer)


def test_pausing_renders_and_waits_until_somebody_resumes(trainer, viewer, talk):
    viewer.after_step(trainer)
    until(lambda: talk.pictures(), lambda: viewer.after_step(trainer))
    talk.set("Pause training", True)
    until(lambda: not viewer._going.is_set())
    seen = talk.pictures()

    def resume():
        try:
            talk.look(position=(0.1, -1.0, 0.0))
            # before it goes on: of messages that follow each other fast, only the last is sent
            until(lambda: talk.pictures() > seen and "Step 0, paused" in str(talk.messages))
        finally:
            talk.set("Pause training", True)

    thread = threading.Thread(target=resume)
    thread.start()
    viewer.after_step(trainer)  # comes back because of the thread alone
    thread.join()
    assert "Step 0, paused" in str(talk.messages)
    assert viewer._going.is_set() and talk.pictures() > seen


def test_a_signal_ends_a_pause(trainer, viewer):
    viewer.after_step(trainer)
    viewer._going.clear()
    with stop_on_signal() as stopping:
        threading.Timer(0.3, signal.raise_signal, [signal.SIGTERM]).start()
        threading.Timer(0.3, viewer._server.schedule.changed.set).start()
        viewer.after_step(trainer)
        assert stopping.is_set()


def test_plots_show_what_is_logged(trainer, viewer, talk):
    viewer.scalars(1, {"train/loss": 0.5, "train/psnr": 20.0, "other": 1.0})
    viewer.scalars(2, {"loss": 0.25, "psnr": float("nan")})
    viewer.after_step(trainer)
    steps, values = viewer._curves["loss"].arrays()
    np.testing.assert_array_equal([steps, values], [[1, 2], [0.5, 0.25]])
    until(lambda: any("Step 0" in str(message) and "loss 0.25" in str(message) for message in talk.messages))


def test_curves_keep_their_ends_and_never_grow_too_long():
    curve = Curve(most=100)
    for step in range(1, 10_001):
        curve.add(step, 2.0 * step)
    steps, values = curve.arrays()
    assert 50 <= len(steps) <= 100 and steps[0] == 1 and steps[-1] > 9000
    np.testing.assert_array_equal(values, 2 * steps)
    assert len(np.unique(np.diff(steps))) == 1
