"""The main field and the proposal field: what they depend on, and their written-out products."""

import dataclasses

import pytest
import torch

from msth_taichi.model.field import MaskedField
from msth_taichi.model.rays import Rays
from msth_taichi.ops.spherical_harmonics import spherical_harmonics
from tests.comparison import assert_close, assert_gradients_close

F32 = torch.float32
RAYS, PER_RAY = 6, 4


@pytest.fixture
def bins(device) -> tuple[Rays, torch.Tensor]:
    """Rays near the origin, without harmonics, and the edges of their bins."""
    generator = torch.Generator().manual_seed(1)
    origins = torch.rand(RAYS, 3, generator=generator) * 0.8 - 0.4
    directions = torch.nn.functional.normalize(torch.randn(RAYS, 3, generator=generator), dim=1)
    edges = torch.rand(RAYS, PER_RAY + 1, generator=generator).sort(dim=1).values * 3
    times, bound = torch.rand(RAYS, generator=generator), torch.ones(RAYS)
    rays = [x.to(device) for x in (origins, directions, times, bound * 0, bound * 3)]
    return Rays(*rays), edges.to(device)


def point_rays(points: list[list[float]], device: torch.device) -> tuple[Rays, torch.Tensor]:
    """Rays along z with one bin, whose middle is the point."""
    origins = torch.tensor(points, device=device) - torch.tensor([0.0, 0.0, 1.0], device=device)
    along = torch.tensor([[0.0, 0.0, 1.0]], device=device).expand(len(points), 3).contiguous()
    half = torch.full((len(points),), 0.5, device=device)
    edges = torch.tensor([[0.5, 1.5]], device=device).expand(len(points), 2).contiguous()
    return Rays(origins, along, half, half, half * 3), edges


def features_of(field, rays: Rays, t_edges: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Features and mask at the bins' middles, one by one."""
    positions = field.space.on_rays(rays, t_edges)
    return field.encoding(positions, rays.times, F32)


def concatenated_color(field: MaskedField, rays: Rays, t_edges: torch.Tensor) -> torch.Tensor:
    """sigmoid(MLP(SH(d), 1, g)) with every input written out for every sample."""
    geometry = field.density_mlp(features_of(field, rays, t_edges)[0])[1:]
    harmonics = spherical_harmonics(rays.directions).repeat_interleave(PER_RAY, dim=1)
    inputs = torch.cat([harmonics, torch.ones_like(harmonics[:1]), geometry])
    return torch.sigmoid(field.color_mlp(inputs))


def test_color_is_the_concatenated_product(make_model, bins):
    field = make_model().field
    color = field(*bins, F32).color
    assert color.shape == (3, RAYS * PER_RAY)
    assert color.std() > 0.01, "not all the same"
    assert_close(color, concatenated_color(field, *bins), 1e-5)


def test_gradients_are_those_of_the_concatenated_product(make_model, bins):
    field = make_model().field
    parameters = [*field.color_mlp.weights, *field.density_mlp.weights, field.encoding.static_table]
    out = torch.randn(3, RAYS * PER_RAY, generator=torch.Generator().manual_seed(2)).to(bins[1].device)
    gradients = torch.autograd.grad((field(*bins, F32).color * out).sum(), parameters)
    expected = torch.autograd.grad((concatenated_color(field, *bins) * out).sum(), parameters)
    for value, target in zip(gradients, expected, strict=True):
        assert target.norm() > 0
        assert_gradients_close(value, target, 1e-4)


def test_density_is_exp_of_the_first_output_of_the_mlp(make_model, bins):
    model = make_model()
    for field in model.fields():
        features, mask = features_of(field, *bins)
        got = field(*bins, F32)
        assert_close(got.density, field.density_mlp(features)[0].exp(), 1e-5)
        assert_close(got.mask, mask, 1e-6)
    assert got.color_logits is None, "a proposal has no colour"


@pytest.mark.parametrize("contraction", ["inf", "none"])
def test_rays_that_want_gradients_get_them(make_model, bins, contraction):
    """Poses are not trained yet; where a caller does, the positions take part and nothing else changes."""
    model = make_model(f"rays.contraction={contraction}", box=4.0)
    rays, t_edges = bins
    wanting = dataclasses.replace(
        rays, origins=rays.origins.clone().requires_grad_(), directions=rays.directions.clone().requires_grad_()
    )
    for field in model.fields():
        plain, attached = field(rays, t_edges, F32), field(wanting, t_edges, F32)
        assert_close(attached.density_logits, plain.density_logits, 1e-5)
        of_origins, of_directions = torch.autograd.grad(
            attached.density_logits.sum(), (wanting.origins, wanting.directions)
        )
        assert of_origins.norm() > 0 and of_directions.norm() > 0


def test_color_depends_on_direction_and_density_does_not(make_model, device):
    field = make_model().field
    rays, t_edges = point_rays([[0.1, 0.2, 0.3], [-0.5, 0.4, 0.2]], device)
    # the same middles from the other side
    turned = dataclasses.replace(rays, origins=rays.origins + 2 * rays.directions, directions=-rays.directions)
    one, other = field(rays, t_edges, F32), field(turned, t_edges, F32)
    assert_close(one.density, other.density, 1e-4)
    assert (one.color - other.color).abs().max() > 1e-3


def test_harmonics_at_hand_are_taken(make_model, bins):
    field = make_model().field
    rays, t_edges = bins
    at_hand = dataclasses.replace(rays, harmonics=spherical_harmonics(rays.directions))
    assert_close(field(at_hand, t_edges, F32).color, field(rays, t_edges, F32).color, 1e-6)
    other = dataclasses.replace(rays, harmonics=spherical_harmonics(-rays.directions))
    assert (field(other, t_edges, F32).color - field(rays, t_edges, F32).color).abs().max() > 1e-3


def test_a_ray_owns_its_samples(make_model, bins):
    """Times and directions of ray n reach samples n S to (n + 1) S - 1 and no others."""
    field = make_model().field
    rays, t_edges = bins
    before = field(rays, t_edges, F32)
    times, directions = rays.times.clone(), rays.directions.clone()
    times[2], directions[2] = 1 - times[2], -directions[2]
    after = field(dataclasses.replace(rays, times=times, directions=directions), t_edges, F32)
    color = (after.color - before.color).abs().amax(0).view(RAYS, PER_RAY)
    density = (after.density - before.density).abs().view(RAYS, PER_RAY)
    assert (color[2] > 0).all() and (density[2] > 0).all()
    others = [0, 1, 3, 4, 5]
    assert not color[others].any() and not density[others].any()


@pytest.mark.parametrize("part", ["field", "proposal"])
def test_density_is_zero_outside_the_box(make_model, device, part):
    model = make_model("rays.contraction=none", box=1.5)
    inside = [[0.0, 0.0, 0.0], [1.49, -1.49, 1.49], [1.5, 0.0, 0.0], [-1.5, -1.5, -1.5]]
    outside = [[1.51, 0.0, 0.0], [0.0, -1.51, 0.0], [0.0, 0.0, 50.0], [-2.0, -2.0, -2.0]]
    field = model.field if part == "field" else model.proposals[0]
    rays, t_edges = point_rays(inside + outside, device)
    found = field(rays, t_edges, F32)
    assert (found.density[:4] > 0).all()
    assert (found.density[4:] == 0).all()
    assert not torch.autograd.grad(found.density_logits[4:].sum(), field.density_mlp.weights[0])[0].any()
    if part == "proposal":
        assert_close(field.density_logits(rays, t_edges, F32)[:, 0], found.density_logits, 1e-5)


def test_contracted_space_has_density_everywhere(make_model, device):
    model = make_model("rays.contraction=inf")
    bins = point_rays([[500.0, 0.0, 0.0], [0.0, -3.0, 900.0]], device)
    assert (model.proposals[0](*bins, F32).density > 0).all()


@pytest.mark.parametrize("compute", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("static_only", [False, True])
@pytest.mark.parametrize("contraction", ["inf", "none"])
def test_a_proposals_one_launch_is_its_parts(make_model, make_rays, compute, static_only, contraction):
    """`density_logits`, which no gradient reaches, and `forward`, which trains."""
    model = make_model(f"rays.contraction={contraction}", box=0.7)
    proposal, rays = model.proposals[0], make_rays(model, 23)
    steps = torch.linspace(0, 1, 10, device=rays.near.device)
    t_edges = (rays.near[:, None] + (2 - rays.near[:, None]) * steps).contiguous()
    slow = proposal(rays, t_edges, compute, static_only)
    fast = proposal.density_logits(rays, t_edges, compute, static_only)
    assert fast.shape == (23, 9) and fast.dtype == torch.float32
    assert not fast.requires_grad and slow.density_logits.requires_grad
    slow_logits = slow.density_logits.float().view(23, 9)
    empty = slow_logits < -9999
    assert torch.equal(empty, fast < -9999) and empty.any() == (contraction == "none")
    # in float16 the slow path rounds its layers, the fast one only what it reads
    assert_close(fast[~empty], slow_logits[~empty], 1e-5 if compute == torch.float32 else 3e-3)


def test_kept_gradients_change_nothing_but_where_they_go(make_model, bins):
    field = make_model().field
    before = field(*bins, F32)
    named = {name: parameter.detach().clone() for name, parameter in field.named_parameters()}
    field.keep_gradients(F32)
    after = field(*bins, F32)
    for name, parameter in field.named_parameters():
        assert torch.equal(parameter, named[name]), name
    assert_close(after.density_logits, before.density_logits, 1e-6)
    assert_close(after.color_logits, before.color_logits, 1e-6)
