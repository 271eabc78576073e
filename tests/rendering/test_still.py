"""Frames through a camera that stands still: what moves is seen, what does not is rendered once."""

import torch

from msth_taichi.rendering import still
from msth_taichi.rendering.fast import FastRenderer, Shortcuts
from msth_taichi.rendering.occupancy import Occupancy
from msth_taichi.rendering.still import StillView
from tests.model.test_renderer import change_dynamic_tables, fill_masks

CELLS = Shortcuts(cells=8)


def test_nothing_new_in_a_still_scene(rough_model, tiny_scene):
    model = rough_model()
    fill_masks(model, 12.0)
    view = StillView(FastRenderer(model, CELLS), tiny_scene.cameras, 0)
    first = view.image(0.1)["rgb"]
    assert not view.changing(0.1).any() and first.std() > 0
    assert torch.equal(view.image(0.9)["rgb"], first)


def test_what_moves_is_seen(rough_model, tiny_scene):
    """Where everything moves, frames are those of the renderer."""
    model = rough_model()
    fill_masks(model, -1.0)
    change_dynamic_tables(model)
    renderer = FastRenderer(model, CELLS)
    view = StillView(renderer, tiny_scene.cameras, 0)
    assert view.changing(0.9).float().mean() > 0.9
    expected = renderer.image(tiny_scene.cameras, 0, 0.9)["rgb"]
    assert (view.image(0.9)["rgb"] - expected).abs().mean() < 1e-3


def test_where_something_passed_the_rest_is_rendered_once(rough_model, tiny_scene, monkeypatch):
    """Where all that moves is there in the first span alone, later frames are that of the middle of the second."""
    model = rough_model("proposals.0.max_resolution=[8,8,8,40]")
    fill_masks(model, -1.0)
    change_dynamic_tables(model)
    renderer = FastRenderer(model, Shortcuts(cells=0))  # so that it looks everywhere itself
    inner = Occupancy.at
    monkeypatch.setattr(Occupancy, "at", lambda self, time: inner(self, time) * (self.span(time) == 0))
    monkeypatch.setattr(still, "_CELLS_CPU", 8)
    spans = Occupancy(model.proposals[-1], model.compute, 8).spans
    assert spans > 2
    view = StillView(renderer, tiny_scene.cameras, 0)
    assert view.changing(0.0).float().mean() > 0.9 and not view.changing(1.0).any()
    expected, other = (renderer.image(tiny_scene.cameras, 0, time)["rgb"] for time in (1.5 / spans, 1.0))
    assert (view.image(1.0)["rgb"] - expected).abs().mean() < 1e-3 < (other - expected).abs().mean()
    assert (view.image(0.0)["rgb"] - renderer.image(tiny_scene.cameras, 0, 0.0)["rgb"]).abs().mean() < 1e-3


def test_frames_do_not_depend_on_those_before(rough_model, tiny_scene):
    model = rough_model()
    change_dynamic_tables(model)
    views = [StillView(FastRenderer(model, CELLS), tiny_scene.cameras, 0) for _ in range(2)]
    times = (0.0, 0.01, 0.3, 0.9)
    forward = [views[0].image(time)["rgb"] for time in times]
    backward = [views[1].image(time)["rgb"] for time in reversed(times)]
    assert all(torch.equal(a, b) for a, b in zip(forward, reversed(backward), strict=True))


def test_frames_do_not_depend_on_how_many_rays_are_kept(rough_model, tiny_scene, monkeypatch):
    model = rough_model()
    change_dynamic_tables(model)
    kept, made_anew = (StillView(FastRenderer(model, CELLS), tiny_scene.cameras, 0) for _ in range(2))
    expected = kept.image(0.3)["rgb"]
    monkeypatch.setattr(FastRenderer, "chunk", lambda self: 7)
    assert kept.changing(0.3).sum() > 7
    assert (made_anew.image(0.3)["rgb"] - expected).abs().max() < 1e-5


def test_the_empty_stage_stands_still(rough_model, tiny_scene):
    renderer = FastRenderer(rough_model(), CELLS)
    view = StillView(renderer, tiny_scene.cameras, 0, mode="static")
    assert not view.changing(0.5).any()
    assert torch.equal(view.image(0.2)["rgb"], view.image(0.7)["rgb"])


def test_what_moves_behind_a_wall_is_seen_where_the_wall_is_left_out(rough_model, tiny_scene):
    model = rough_model()
    with torch.no_grad():
        for part in (model.field, *model.proposals):
            masks = part.encoding.mask_logits[:125].view(5, 5, 5)  # along z, y and x
            masks.fill_(12.0)
            masks[:, :, 3:] = -12.0  # the camera looks along x from below zero
            part.encoding.dynamic_table.add_(0.7)
            part.encoding.static_table.abs_()  # features and weights above zero: a wall
            first, last = part.density_mlp.weights
            first.abs_()
            last.abs_().mul_(3.0)
    renderer = FastRenderer(model, CELLS)
    full, moving = (StillView(renderer, tiny_scene.cameras, 0, mode=mode) for mode in ("full", "dynamic"))
    expected, other = (renderer.image(tiny_scene.cameras, 0, time, mode="dynamic")["rgb"] for time in (0.9, 0.1))
    assert full.changing(0.9).float().mean() < 0.1 and moving.changing(0.9).float().mean() > 0.9
    assert (moving.image(0.9)["rgb"] - expected).abs().mean() < 1e-3 < (other - expected).abs().mean()
