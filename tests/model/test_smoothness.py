"""Features that should change little: which places are looked at, and what a change costs."""

import pytest
import torch

from msth_taichi.config import LossConfig, ProposalConfig
from msth_taichi.model.encoding import MaskedEncoding
from msth_taichi.model.losses import losses
from msth_taichi.model.smoothness import chosen_positions, time_smoothness, total_variation
from tests.comparison import assert_close

COUNT = 60
CELL = 1 / 50
DENSE = ProposalConfig(  # one level whose vertices all have an entry of their own
    levels=1,
    base_resolution=(2, 2, 2, 6),
    max_resolution=(2, 2, 2, 6),
    log2_static=8,
    log2_dynamic=8,
    mask_resolution=2,
)
STEP = 1 / 6


@pytest.fixture
def encoding(device) -> MaskedEncoding:
    """All of it moving, with rough tables."""
    encoding, generator = MaskedEncoding(DENSE), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for table in (encoding.static_table, encoding.dynamic_table):
            table.copy_(torch.rand(table.shape, generator=generator))
        encoding.mask_logits.fill_(-30)
    return encoding.to(device)


@pytest.fixture
def places(device) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions and times, both ends of the clip among them."""
    generator = torch.Generator().manual_seed(1)
    positions, times = torch.rand(COUNT, 3, generator=generator), torch.rand(COUNT, generator=generator)
    times[:2] = torch.tensor([0.0, 1.0])
    return positions.to(device), times.to(device)


def vertices_in_time(encoding: MaskedEncoding) -> torch.Tensor:
    """(E,) which vertex along time an entry of the dynamic table is of."""
    spec = encoding.dynamic_spec
    stride = spec.strides[0][3]
    assert stride > 0, "the level is hashed"
    return torch.arange(spec.num_entries, device=encoding.dynamic_table.device) // stride


def set_over_time(encoding: MaskedEncoding, function) -> None:
    with torch.no_grad():
        encoding.dynamic_table.copy_(function(vertices_in_time(encoding).float())[:, None].expand(-1, 2))


def test_one_sample_of_each_ray_is_chosen():
    rays, samples = 500, 6
    positions = torch.rand(rays * samples, 3)
    choice = torch.rand(rays, generator=torch.Generator().manual_seed(0))
    chosen = chosen_positions(positions, choice)
    same = (positions.view(rays, samples, 3) == chosen[:, None]).all(2)
    assert (same.sum(1) == 1).all() and chosen.is_contiguous()
    counts = torch.bincount(same.int().argmax(1), minlength=samples)
    assert (counts > rays / samples / 2).all(), "some samples are hardly ever looked at"
    assert torch.equal(chosen_positions(positions, choice), chosen)
    for edge in (torch.zeros(rays), torch.full((rays,), 1 - 2**-24)):
        assert chosen_positions(positions, edge).shape == (rays, 3)


def test_what_stays_costs_nothing(encoding, places):
    set_over_time(encoding, torch.zeros_like)
    assert time_smoothness(encoding, *places, torch.float32) == 0
    set_over_time(encoding, lambda vertex: vertex * 0 + 0.7)
    assert time_smoothness(encoding, *places, torch.float32).item() < 1e-12


def test_what_moves_evenly_costs_nothing(encoding, places):
    set_over_time(encoding, lambda vertex: 0.3 * vertex)
    assert encoding(*places, torch.float32)[0].std() > 0.1
    assert time_smoothness(encoding, *places, torch.float32).item() < 1e-11


def test_static_places_cost_nothing_whatever_their_dynamic_table_says(encoding, places):
    assert time_smoothness(encoding, *places, torch.float32).item() > 0.01
    with torch.no_grad():
        encoding.mask_logits.fill_(30)
    assert time_smoothness(encoding, *places, torch.float32) == 0


def test_time_smoothness_is_the_second_difference(encoding, places):
    positions, times = places
    within = times.clamp(STEP, 1 - STEP)
    before, now, after = (encoding(positions, within + h, torch.float32)[0] for h in (-STEP, 0, STEP))
    expected = (before - 2 * now + after).square().mean()
    assert_close(time_smoothness(encoding, positions, times, torch.float32), expected, 1e-5)
    # a jump by 1 in a vertex amid zeros: 2 at the vertex itself, -1 a vertex beside it
    set_over_time(encoding, lambda vertex: (vertex == 3).float())
    scale = encoding.dynamic_spec.scales[0][3]
    at_vertex = torch.full_like(times, (3 - 0.5) / scale)
    share = STEP * scale  # of a cell that a step is
    found = time_smoothness(encoding, positions, at_vertex, torch.float32)
    assert found.item() == pytest.approx((2 * share) ** 2, rel=1e-4)


def test_equal_features_have_no_variation(encoding, places):
    with torch.no_grad():
        encoding.dynamic_table.fill_(0.4)
    assert total_variation(encoding, *places, torch.float32, CELL).item() < 1e-12


def test_total_variation_is_the_difference_along_each_axis_in_turn(encoding, places):
    positions, times = places
    positions = positions * (1 - CELL)
    moved = positions.clone()
    for axis in range(3):
        moved[axis::3, axis] += CELL
    here, there = (encoding(x, times, torch.float32)[0] for x in (positions, moved))
    expected = (there - here).square().mean()
    assert expected.item() > 1e-6
    assert_close(total_variation(encoding, positions, times, torch.float32, CELL), expected, 1e-3)
    wider = total_variation(encoding, positions, times, torch.float32, CELL / 2)
    assert wider.item() == pytest.approx(expected.item() / 4, rel=0.1), "features are linear within a cell"


def test_at_the_border_nothing_is_looked_up_outside(encoding, places):
    corner = torch.ones_like(places[0])
    assert total_variation(encoding, corner, places[1], torch.float32, CELL).item() == 0


@pytest.mark.parametrize(("term", "weight"), [("time_smoothness", 0.5), ("total_variation", 3e4)])
def test_a_term_smooths_what_rays_look_at(make_model, make_rays, term, weight):
    """Its gradient alone makes it smaller, and reaches tables and mask, neither MLPs nor proposals."""
    model = make_model("field.mask_init=0")
    rays = make_rays(model, 64)
    target = torch.zeros(64, 3, device=rays.origins.device)
    only = LossConfig(interlevel=0, distortion=0, mask=0)
    plain = losses(model, rays, target, only)
    found = losses(model, rays, target, only.model_copy(update={term: weight}))
    assert found.terms.keys() == {"rgb", term} and found.terms[term] > 0
    twice = losses(model, rays, target, only.model_copy(update={term: 2 * weight}))
    assert twice.terms[term].item() == pytest.approx(2 * found.terms[term].item(), rel=1e-5)
    assert found.total.item() == pytest.approx((plain.total + found.terms[term]).item(), rel=1e-6)
    names, parameters = zip(*model.named_parameters(), strict=True)
    gradients = torch.autograd.grad(found.total - plain.total, parameters, allow_unused=True)
    reached = {name for name, g in zip(names, gradients, strict=True) if g is not None and g.abs().max() > 1e-5}
    tables = {f"field.encoding.{name}" for name in ("mask_logits", "dynamic_table", "static_table")}
    assert reached == (tables if term == "total_variation" else tables - {"field.encoding.static_table"})
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                parameter -= 0.1 * gradient / gradient.norm().clamp(min=1e-9)
    after = losses(model, rays, target, only.model_copy(update={term: weight}))
    assert after.terms[term] < found.terms[term]
