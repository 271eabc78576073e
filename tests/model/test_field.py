"""The main field and the proposal field: what they depend on, and their written-out products."""

import pytest
import torch

from msth_taichi.model.field import MaskedField
from msth_taichi.ops.spherical_harmonics import spherical_harmonics
from tests.comparison import assert_close, assert_gradients_close

F32 = torch.float32
RAYS, PER_RAY = 6, 4


@pytest.fixture
def samples(device):
    generator = torch.Generator().manual_seed(1)
    positions = torch.rand(RAYS * PER_RAY, 3, generator=generator) * 1.6 - 0.8
    directions = torch.nn.functional.normalize(torch.randn(RAYS, 3, generator=generator), dim=1)
    return [x.to(device) for x in (positions, torch.rand(RAYS, generator=generator), directions)]


def concatenated_color(field: MaskedField, positions, times, directions) -> torch.Tensor:
    """sigmoid(MLP(SH(d), 1, g)) with every input written out for every sample."""
    features, _ = field.encoding(field.space.to_grid(positions), times, F32)
    geometry = field.density_mlp(features)[1:]
    harmonics = spherical_harmonics(directions).repeat_interleave(PER_RAY, dim=1)
    inputs = torch.cat([harmonics, torch.ones_like(harmonics[:1]), geometry])
    return torch.sigmoid(field.color_mlp(inputs))


def test_split_first_color_layer_equals_the_concatenated_product(make_model, samples):
    field = make_model().field
    color = field(*samples, F32).color
    assert color.shape == (3, RAYS * PER_RAY)
    assert color.std() > 0.01, "not all the same"
    assert_close(color, concatenated_color(field, *samples), 1e-5)


def test_gradients_of_the_split_are_those_of_the_concatenated_product(make_model, samples):
    field = make_model().field
    parameters = [*field.color_mlp.weights, *field.density_mlp.weights, field.encoding.static_table]
    out = torch.randn(3, RAYS * PER_RAY, generator=torch.Generator().manual_seed(2)).to(samples[0].device)
    gradients = torch.autograd.grad((field(*samples, F32).color * out).sum(), parameters)
    expected = torch.autograd.grad((concatenated_color(field, *samples) * out).sum(), parameters)
    for value, target in zip(gradients, expected, strict=True):
        assert target.norm() > 0
        assert_gradients_close(value, target, 1e-4)


def test_density_is_exp_of_the_first_output_of_the_mlp(make_model, samples):
    positions, times, directions = samples
    model = make_model()
    for field in (model.field, model.proposals[0]):
        features, mask = field.encoding(field.space.to_grid(positions), times, F32)
        expected = field.density_mlp(features)[0].exp()
        got = field(positions, times, directions, F32) if field is model.field else field(positions, times, F32)
        assert_close(got.density, expected, 1e-5)
        assert_close(got.mask, mask, 1e-6)
    assert got.color is None, "a proposal has no colour"


def test_color_depends_on_direction_and_density_does_not(make_model, samples):
    field = make_model().field
    positions, times, directions = samples
    one, other = field(positions, times, directions, F32), field(positions, times, -directions, F32)
    assert torch.equal(one.density, other.density)
    assert (one.color - other.color).abs().max() > 1e-3


def test_a_ray_owns_its_samples(make_model, samples):
    """Times and directions of ray n reach samples n S to (n + 1) S - 1 and no others."""
    field = make_model().field
    positions, times, directions = samples
    before = field(positions, times, directions, F32)
    times, directions = times.clone(), directions.clone()
    times[2], directions[2] = 1 - times[2], -directions[2]
    after = field(positions, times, directions, F32)
    color = (after.color - before.color).abs().amax(0).view(RAYS, PER_RAY)
    density = (after.density - before.density).abs().view(RAYS, PER_RAY)
    assert (color[2] > 0).all() and (density[2] > 0).all()
    others = [0, 1, 3, 4, 5]
    assert not color[others].any() and not density[others].any()


@pytest.mark.parametrize("part", ["field", "proposals"])
def test_density_is_zero_outside_the_box(make_model, device, part):
    model = make_model("rays.contraction=none", box=1.5)
    inside = [[0.0, 0.0, 0.0], [1.49, -1.49, 1.49], [1.5, 0.0, 0.0], [-1.5, -1.5, -1.5]]
    outside = [[1.51, 0.0, 0.0], [0.0, -1.51, 0.0], [0.0, 0.0, 50.0], [-2.0, -2.0, -2.0]]
    positions = torch.tensor(inside + outside, device=device)
    times = torch.full((1,), 0.5, device=device)
    field = model.field if part == "field" else model.proposals[0]
    extra = (torch.tensor([[0.0, 0.0, 1.0]], device=device),) if part == "field" else ()
    density = field(positions, times, *extra, F32).density
    assert (density[:4] > 0).all()
    assert (density[4:] == 0).all()


def test_contracted_space_has_density_everywhere(make_model, device):
    model = make_model("rays.contraction=inf")
    positions = torch.tensor([[500.0, 0.0, 0.0], [0.0, -3.0, 900.0]], device=device)
    assert (model.proposals[0](positions, torch.zeros(1, device=device), F32).density > 0).all()
