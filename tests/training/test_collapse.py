"""A training that shows one colour is told from one that has learned something, however little there is to see."""

import pytest
import torch

from msth_taichi.training.collapse import APART, LEAST, PATIENCE, CollapseWatch, explained
from msth_taichi.training.trainer import Trainer
from tests.settings import changed


def batch(share: float) -> torch.Tensor:
    """(4096, 3) black, but for `share` of random colours."""
    generator = torch.Generator().manual_seed(0)
    seen = torch.rand(4096, 1, generator=generator) < share
    return torch.rand(4096, 3, generator=generator) * seen


def errors(target: torch.Tensor, color: torch.Tensor) -> torch.Tensor:
    return (target - color).square().mean(1)


@pytest.mark.parametrize("share", [0.02, 0.2, 0.9])
@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_one_color_explains_nothing(share, value):
    target = batch(share)
    assert explained(errors(target, torch.full_like(target, value)), target, None, None) < LEAST


def test_content_that_is_found_is_seen():
    target = batch(0.02)
    assert explained(errors(target, 0.5 * target), target, None, None) == pytest.approx(0.75, abs=0.03)


def test_a_known_background_is_no_content():
    """Images with transparency before random colours: a field that is empty explains all but the object."""
    background = torch.rand(4096, 3, generator=torch.Generator().manual_seed(1))
    content = batch(0.1)
    target = torch.where(content > 0, content, background)
    assert explained(errors(target, background), target, background, None) == pytest.approx(0, abs=1e-6)
    assert explained(errors(target, background), target, None, None) > 0.5


def test_pictures_of_nothing_are_no_collapse():
    target = torch.full((64, 3), 0.5)
    assert explained(errors(target, 0.501 * torch.ones_like(target)), target, None, None) == 1.0
    assert explained(target[:, 0], target, None, torch.zeros(64)) == 1.0


def test_it_is_said_once_and_not_at_the_first_look():
    watch = CollapseWatch()
    steps = range(10, 20 * APART, 10)
    said = [step for step in steps if watch.says(step, 0.0)]
    assert said == [APART * PATIENCE]
    assert not watch.says(20 * APART, 0.5)
    assert [watch.says(step, 0.0) for step in range(21 * APART, (21 + PATIENCE) * APART, APART)][-1]


def test_training_says_so(tiny_scene, tiny_config, tmp_path, device, capsys, monkeypatch):
    """A field whose colours are all black, and that is not moved."""
    config = changed(
        tiny_config, f"training.steps={APART * PATIENCE}", f"training.log_every={APART}", "training.rays_per_step=16"
    )
    trainer = Trainer(tiny_scene, config, tmp_path, device, progress=False)
    monkeypatch.setattr(trainer.optimizer, "step", lambda: None)
    with torch.no_grad():
        for part in trainer.model.field.color_mlp.weights:
            part.zero_()
    trainer.run()
    assert capsys.readouterr().err.count("all rays show one colour") == 1
