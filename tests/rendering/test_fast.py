"""Fast rendering: without shortcuts the plain renderer's pictures, with them nearly so, from fewer lookups."""

import pytest
import torch

from msth_taichi.model.renderer import MODES, RadianceField, render_image
from msth_taichi.ops.lookups import Counted
from msth_taichi.rendering import fast
from msth_taichi.rendering.fast import FastRenderer, Shortcuts, with_sure_masks
from msth_taichi.rendering.occupancy import Occupancy, side_lengths
from msth_taichi.thresholds import EMPTY_LOGIT
from tests.comparison import assert_close
from tests.model.test_renderer import TWO_PROPOSALS, fill_masks

NONE = Shortcuts(cells=0, least_mass=-1.0, least_light=0.0, least_weight=-1.0, sure=1.0)


def fill_half(model: RadianceField) -> None:
    """Opaque walls and objects where x > 0.3 or so, empty space elsewhere."""
    for part in model.fields():
        encoding = part.encoding
        for table, spec in (
            (encoding.static_table, encoding.static_spec),
            (encoding.dynamic_table, encoding.dynamic_spec),
        ):
            table.zero_()
            # the coarsest level is dense: x runs fastest
            row = spec.resolutions[0][0] + 1
            vertices = torch.arange(spec.entries[0], device=table.device) % row
            table[: spec.entries[0]] = torch.where(vertices > row / 2, 1.0, -1.0)[:, None]
        first, last = part.density_mlp.weights
        first.zero_()
        first[0, 0], first[1, 0] = 1, -1
        last[0].zero_()
        last[0, 0], last[0, 1] = 5, -25


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "settings",
    [
        (),
        ("rays.background=white", "rays.contraction=none"),
        TWO_PROPOSALS,
        ("cameras.appearance=3", "field.mask_times=3"),
    ],
    ids=["plain", "box", "two proposals", "appearance"],
)
def test_without_shortcuts_pictures_are_those_of_training(rough_model, tiny_scene, mode, settings):
    model = rough_model(*settings)
    found = FastRenderer(model, NONE).image(tiny_scene.cameras, 1, 0.4, mode=mode)
    plain = render_image(model, tiny_scene.cameras, 1, 0.4, mode=mode)
    assert found.keys() == plain.keys()
    for name, values in plain.items():
        assert found[name].shape == values.shape
        assert_close(found[name], values, 2e-3 if model.compute == torch.float16 else 1e-4)


@pytest.mark.parametrize("mode", ["full", "static"])
def test_shortcuts_change_next_to_nothing(rough_model, tiny_scene, mode):
    """Of a scene with walls and empty space; samples in the empty half are not looked up, nor those behind walls."""
    model = rough_model("rays.samples=32", "proposals.0.samples=48")
    fill_half(model)
    fill_masks(model, 0.5)
    whole, short = FastRenderer(model, NONE), FastRenderer(model, Shortcuts(cells=32))
    covered = []
    for camera in range(3):
        expected = whole.image(tiny_scene.cameras, camera, 0.4, mode=mode)
        found = short.image(tiny_scene.cameras, camera, 0.4, mode=mode)
        assert (found["rgb"] - expected["rgb"]).square().mean() < 1e-5
        assert (found["accumulation"] - expected["accumulation"]).abs().max() < 0.02
        covered.append(expected["accumulation"])
    assert torch.stack(covered).std() > 0.1
    assert short.looked_up < 0.7 * whole.looked_up


@pytest.mark.parametrize("mode", MODES)
def test_room_for_more_than_is_wanted_changes_nothing(rough_model, tiny_scene, monkeypatch, mode):
    """A GPU is asked to look up what rays want before the host knows how many samples that is."""
    model = rough_model("rays.samples=32", "proposals.0.samples=48")
    renderer = FastRenderer(model)
    monkeypatch.setattr(Counted, "room", lambda self, _: self.total)
    expected = renderer.image(tiny_scene.cameras, 1, 0.4, mode=mode)
    monkeypatch.setattr(Counted, "room", lambda self, most: most)
    found = renderer.image(tiny_scene.cameras, 1, 0.4, mode=mode)
    for name, values in expected.items():
        assert_close(found[name], values, 2e-3 if model.compute == torch.float16 else 1e-6)


def test_longer_turns_change_nothing_but_what_lies_in_the_dark(rough_model, tiny_scene, monkeypatch):
    model = rough_model("rays.samples=32", "proposals.0.samples=48")
    fill_half(model)
    fill_masks(model, 0.5)
    found = []
    for turns in ((2,) * 16, (4,) * 8, (8,) * 4):
        monkeypatch.setattr(fast, "_TURNS", turns)
        renderer = FastRenderer(model, Shortcuts(cells=0, least_mass=-1, least_light=0.2))
        found.append((renderer.image(tiny_scene.cameras, 0, 0.4)["rgb"], renderer.looked_up))
    assert found[0][1] < found[1][1] < found[2][1]
    for image, _ in found[1:]:
        assert (image - found[0][0]).abs().max() < 5e-3


def test_thin_smoke_keeps_its_colour(rough_model, tiny_scene):
    """No sample of it has weight, but all together do."""
    model = rough_model("rays.samples=64", "rays.background=white", "rays.contraction=none", "rays.spacing=uniform")
    for part in model.fields():
        part.density_mlp.weights[-1][0] = 0
        part.encoding.mask_logits.fill_(0)
    expected = FastRenderer(model, NONE).image(tiny_scene.cameras, 0, 0.4)
    assert 0.1 < expected["accumulation"].mean() < 0.95
    found = FastRenderer(model, Shortcuts(least_weight=0.1)).image(tiny_scene.cameras, 0, 0.4)
    assert (found["rgb"] - expected["rgb"]).abs().mean() < 0.02


def test_chunks_do_not_show(rough_model, tiny_scene, monkeypatch):
    renderer = FastRenderer(rough_model())
    whole = renderer.image(tiny_scene.cameras, 0, 0.4)["rgb"]
    monkeypatch.setattr(FastRenderer, "chunk", lambda self: 50)
    assert_close(renderer.image(tiny_scene.cameras, 0, 0.4)["rgb"], whole, 1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_nothing_is_read_before_it_is_written(rough_model, tiny_scene, mode):
    """Memory that nobody wrote is full of NaN here."""
    model = rough_model("proposals.0.samples=24", "rays.samples=20")
    fill_half(model)
    fill_masks(model, 0.3)
    expected = FastRenderer(model, Shortcuts(cells=16)).image(tiny_scene.cameras, 0, 0.4, mode=mode)
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        assert torch.utils.deterministic.fill_uninitialized_memory and torch.empty(9).isnan().all()
        found = FastRenderer(model, Shortcuts(cells=16)).image(tiny_scene.cameras, 0, 0.4, mode=mode)
    finally:
        torch.use_deterministic_algorithms(False)
    for name, values in expected.items():
        assert_close(found[name], values, 1e-5)


def test_occupied_cells_hold_all_that_the_proposal_finds(rough_model):
    """Points in empty cells have next to no density; and half of the space is empty."""
    model = rough_model()
    fill_half(model)
    proposal = model.proposals[-1]
    occupancy = Occupancy(proposal, model.compute, 32)
    for time in (0.0, 0.37, 1.0):
        cells = occupancy.occupied(min(int(time * occupancy.spans), occupancy.spans - 1))
        points = torch.rand(20000, 3, generator=torch.Generator().manual_seed(1)).to(cells.device)
        times = torch.full((1,), time, device=cells.device)
        logits = proposal.at(points, times, model.compute).density_logits.float()
        empty = ~cells[tuple((points * 32).long().clamp(max=31).T)]
        depth = logits.exp() * side_lengths(points.T, model.space) / 32
        assert 0.2 < empty.float().mean() < 0.8
        assert depth[empty].max() < 5e-3, "five times what a cell may hold, between its corners"


def test_each_moment_is_within_its_span(rough_model):
    occupancy = Occupancy(rough_model("proposals.0.max_resolution=[8,8,8,40]").proposals[-1], torch.float32, 8)
    assert occupancy.spans > 1
    for span in range(occupancy.spans):
        times = occupancy.times(span)
        assert times == sorted(times) and len(times) > 2
        assert occupancy.at(times[1]) is occupancy.at(times[-2])
    assert occupancy.at(1.0) is occupancy.at(times[1])


def test_sure_masks(rough_model):
    model = rough_model()
    before = model.field.encoding.mask_logits.clone()
    sure = with_sure_masks(model, 0.99)
    assert torch.equal(model.field.encoding.mask_logits, before) and with_sure_masks(model, 1.0) is model
    after = sure.field.encoding.mask_logits
    decided = before.sigmoid().sub(0.5).abs() > 0.49
    assert torch.equal(after[~decided], before[~decided])
    assert (after[decided] == 20 * before[decided].sign()).all() and decided.any()


def test_rays_that_see_nothing(rough_model, tiny_scene):
    model = rough_model("rays.background=white", "rays.contraction=none")
    for part in model.fields():
        part.density_mlp.weights[-1][0] = -1e3
    image = FastRenderer(model, Shortcuts(cells=8)).image(tiny_scene.cameras, 0, 0.5)
    empty = image["accumulation"] < 1e-3
    assert empty.any() and (image["rgb"][empty] > 0.999).all()
    assert EMPTY_LOGIT < -1e3
