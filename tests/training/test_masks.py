"""What masks of a later segment know at their beginning."""

import torch

from msth_taichi.rendering.occupancy import Occupancy
from msth_taichi.training.masks import begin_masks
from msth_taichi.training.run import make_model
from tests.settings import changed

KNOWN, NEW = torch.tensor([[0.7, 0.2, 0.8]]), torch.tensor([[0.7, 0.8, 0.2], [0.2, 0.2, 0.8]])


def stage(_, span: int, cells: int) -> torch.Tensor:
    """The stage: what lies at large x and small y."""
    axis = (torch.arange(cells) + 0.5) / cells
    x, y, _ = torch.meshgrid(axis, axis, axis, indexing="ij")
    return (x > 0.5) & (y < 0.5)


def masks(model, time: float = 0.5):
    return [[field.encoding.mask(at, torch.full((1,), time)) for at in (KNOWN, NEW)] for field in model.fields()]


def test_masks_keep_what_they_know_of_the_stage_but_never_for_sure(tiny_config, tiny_scene, monkeypatch):
    monkeypatch.setattr(Occupancy, "occupied", lambda self, span: stage(self, span, self.cells))
    config = changed(tiny_config, "field.mask_resolution=32", "proposals.0.mask_resolution=32")
    model = make_model(config, tiny_scene)
    new = torch.sigmoid(torch.tensor(tiny_config.field.mask_init))
    for logit, known in ((9.0, torch.tensor(0.5)), (-0.5, torch.sigmoid(torch.tensor(-0.5))), (-9.0, new)):
        for field in model.fields():
            field.encoding.mask_logits.data.fill_(logit)
        begin_masks(model)
        for found, elsewhere in masks(model):
            torch.testing.assert_close(found, known.expand(1))
            torch.testing.assert_close(elsewhere, new.expand(2))


def test_masks_that_change_with_time_begin_anew(tiny_config, tiny_scene):
    model = make_model(changed(tiny_config, "field.mask_times=3"), tiny_scene)
    model.field.encoding.mask_logits.data.fill_(9.0)
    begin_masks(model)
    assert (model.field.encoding.mask_logits == tiny_config.field.mask_init).all()
