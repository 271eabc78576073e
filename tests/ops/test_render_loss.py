"""Losses and gradients of rays in one launch against the PyTorch twin, finite differences and the slow path."""

import math

import pytest
import torch

from msth_taichi.errors import TensorError
from msth_taichi.ops.composite import composite
from msth_taichi.ops.render_loss import render_loss
from msth_taichi.reference import render_loss as twin
from msth_taichi.reference.distortion import distortion_loss
from tests.comparison import assert_close, assert_gradients_close, assert_matches

BOTH = (0.3, 0.02)


def random_inputs(rays: int, samples: int, device: torch.device, dtype=torch.float32, background=True):
    """Both logits, wanting gradients, then edges, target and background."""
    generator = torch.Generator().manual_seed(100 * rays + samples)
    real = torch.float64 if dtype == torch.float64 else torch.float32

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=real)

    edges = torch.rand(rays, samples + 1, generator=generator, dtype=real).sort(dim=1).values
    logits = normal(rays * samples) * 2, normal(3, rays * samples)
    inputs = [*(x.to(dtype) for x in logits), edges, edges * 5 + 0.1, torch.sigmoid(normal(rays, 3))]
    inputs = [x.to(device) for x in inputs]
    for logit in inputs[:2]:
        logit.requires_grad_()
    return [*inputs, torch.sigmoid(normal(rays, 3)).to(device) if background else None]


def losses(function, inputs, weights=BOTH):
    """`function` of both logits alone."""
    return lambda density, color: function(density, color, *inputs[2:], *weights)


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("weights", [BOTH, (0.0, 0.0), (0.5, 0.0)])
@pytest.mark.parametrize(("rays", "samples"), [(0, 3), (1, 1), (13, 21), (70, 48)])
def test_matches_reference(device, background, weights, rays, samples):
    """Total, terms, weights; and the gradients of the total."""
    inputs = random_inputs(rays, samples, device, background=background)

    def fast(*logits):
        out = losses(render_loss, inputs, weights)(*logits)
        return out.total, out.terms, out.weights

    def slow(*logits):
        total, terms, shares = losses(twin.render_loss, inputs, weights)(*logits)
        return total, terms.detach(), shares.detach()

    assert_matches(fast, slow, inputs[:2])


@pytest.mark.parametrize("background", [True, False])
def test_matches_the_slow_path(device, background):
    """The same colour error and gradients as `composite` under autograd."""
    inputs = random_inputs(9, 17, device, background=background)
    density, color, _, t_edges, target, back = inputs
    fast = render_loss(*inputs)
    expected = composite(
        density.exp().view(9, 17), torch.sigmoid(color).view(3, 9, 17), t_edges, "last_sample" if back is None else back
    )
    error = (expected.color - target).square().mean()
    assert_close(fast.total, error, 1e-6)
    assert_close(fast.weights, expected.weights, 1e-6)
    values = torch.autograd.grad(fast.total, (density, color))
    for value, truth in zip(values, torch.autograd.grad(error, (density, color)), strict=True):
        assert_gradients_close(value, truth, 1e-5)


@pytest.mark.parametrize("background", [True, False])
def test_ignored_pixels_make_no_difference(device, background):
    """They take no part in the colour's term and its gradient; the others are as before."""
    inputs = random_inputs(13, 21, device, background=background)
    kept = (torch.arange(13, device=device) % 3 > 0).float()
    assert_matches(
        lambda *x: losses(lambda *y: render_loss(*y, kept), inputs)(*x).total,
        lambda *x: losses(lambda *y: twin.render_loss(*y, kept), inputs)(*x)[0],
        inputs[:2],
    )
    inputs[4] = torch.where(kept[:, None] > 0, inputs[4], 1 - inputs[4])
    assert torch.equal(
        render_loss(*inputs, *BOTH, kept).terms,
        render_loss(*[*inputs[:4], inputs[4] * kept[:, None], inputs[5]], *BOTH, kept).terms,
    )


@pytest.mark.parametrize("background", [True, False])
def test_gradients_grow_with_the_distance(device, background):
    """Up to the full distance; losses stay what they are."""
    inputs = random_inputs(13, 21, device, background=background)  # distances from 0.1 to 5.1

    def near(function):
        return lambda *x: losses(lambda *y: function(*y, full_distance=3.0), inputs)(*x)

    assert torch.equal(near(render_loss)(*inputs[:2]).terms, losses(render_loss, inputs)(*inputs[:2]).terms)
    assert_matches(lambda *x: near(render_loss)(*x).total, lambda *x: near(twin.render_loss)(*x)[0], inputs[:2])
    plain = torch.autograd.grad(losses(render_loss, inputs)(*inputs[:2]).total, inputs[:2])
    scaled = torch.autograd.grad(near(render_loss)(*inputs[:2]).total, inputs[:2])
    middles = (inputs[3][:, 1:] + inputs[3][:, :-1]).flatten() / 2
    for value, whole in zip(scaled, plain, strict=True):
        assert_close(value, whole * (middles / 3).clamp(max=1).square(), 1e-5)


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_samples_behind_change_nothing(device, background, dtype):
    """To the last bit; they are not even read, and their gradient is 0."""
    inputs = random_inputs(13, 7, device, dtype, background)
    wider = [torch.nn.functional.pad(x.detach(), (0, 10), value=torch.nan).requires_grad_() for x in inputs[:2]]
    results = []
    for logits, behind in ((inputs[:2], 0), (wider, 10)):
        out = render_loss(*logits, *inputs[2:], *BOTH, behind=behind)
        gradients = [x[..., : 13 * 7] for x in torch.autograd.grad(out.total, logits)]
        results.append([out.terms, out.weights, out.errors, *gradients])
    assert all(map(torch.equal, *results))
    for gradient in torch.autograd.grad(render_loss(*wider, *inputs[2:], *BOTH, behind=10).total, wider):
        assert not gradient[..., 13 * 7 :].any()
    with pytest.raises(TensorError, match="evenly"):
        render_loss(*wider, *inputs[2:], behind=9)


@pytest.mark.gradcheck
@pytest.mark.parametrize("background", [True, False])
def test_finite_differences(background):
    inputs = random_inputs(3, 5, torch.device("cpu"), torch.float64, background)
    assert torch.autograd.gradcheck(lambda *x: losses(render_loss, inputs)(*x).total, inputs[:2])


def test_float16_logits_keep_small_gradients(device):
    """Of 16,384 rays each has a share of 6e-5 in the mean: gradients survive because they are kept per ray."""
    inputs = random_inputs(2048, 8, device, torch.float16)
    (render_loss(*inputs, *BOTH).total * 2048).backward()
    halves = [x.grad for x in inputs[:2]]
    exact = [x.detach().float().requires_grad_() for x in inputs[:2]]
    (render_loss(*exact, *inputs[2:], *BOTH).total * 2048).backward()
    for half, truth in zip(halves, exact, strict=True):
        assert half.dtype == torch.float16
        assert_gradients_close(half, truth.grad, 1e-3)


def test_a_perfect_picture_has_no_loss(device):
    """An opaque sample of the target's colour."""
    density, color = torch.full((4,), 20.0, device=device), torch.full((3, 4), 0.3, device=device)
    edges = torch.tensor([[0.0, 0.5, 1.0]] * 2, device=device)
    target = torch.sigmoid(torch.full((2, 3), 0.3, device=device))
    out = render_loss(density.requires_grad_(), color.requires_grad_(), edges, edges, target, None)
    out.total.backward()
    assert out.total.item() < 1e-12 and density.grad is not None and density.grad.abs().max() < 1e-6
    assert_close(out.weights, torch.tensor([[1.0, 0.0]] * 2, device=device), 1e-6)


def test_without_gradients_none_are_made(device):
    inputs = random_inputs(5, 6, device)
    with torch.no_grad():
        assert not render_loss(*inputs).total.requires_grad


@pytest.mark.parametrize("logit", [-1e4, -40.0, 40.0, 1e4])
def test_extremes_stay_finite(device, logit):
    inputs = random_inputs(3, 7, device, torch.float16 if abs(logit) < 6e4 else torch.float32)
    density = torch.full_like(inputs[0], logit).requires_grad_()
    out = render_loss(density, *inputs[1:], *BOTH)
    out.total.backward()
    assert out.total.isfinite() and density.grad is not None and density.grad.isfinite().all()


def distortion(logits, s_edges, t_edges, weight: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Distortion term alone and weights; the colours are the target's."""
    grey = logits.new_zeros(3, len(logits))
    out = render_loss(logits, grey, s_edges, t_edges, s_edges.new_full((len(s_edges), 3), 0.5), None, weight)
    return out.terms[1], out.weights


def distortion_of(s_edges: torch.Tensor, weights: torch.Tensor) -> float:
    """Its definition, in nested loops."""
    total = 0.0
    for edges, row in zip(s_edges.tolist(), weights.tolist(), strict=True):
        for i, a in enumerate(row):
            total += a * a * (edges[i + 1] - edges[i]) / 3
            for j, b in enumerate(row):
                total += a * b * abs(edges[i] + edges[i + 1] - edges[j] - edges[j + 1]) / 2
    return total / len(weights)


@pytest.mark.parametrize("samples", [1, 2, 13])
def test_distortion_is_its_nested_loops(device, samples):
    density, _, s_edges, t_edges, *_ = random_inputs(4, samples, device, torch.float64)
    term, weights = distortion(density.detach(), s_edges, t_edges)
    expected = distortion_of(s_edges, weights)
    assert term.item() == pytest.approx(expected, rel=1e-12)
    assert distortion_loss(s_edges, weights).item() == pytest.approx(expected, rel=1e-12)


def test_distortion_of_one_bin(device):
    """weight^2 width / 3, where the weight is 1 - exp(-density length)."""
    edges = torch.tensor([[0.2, 0.5]], device=device)
    term, _ = distortion(torch.zeros(1, device=device), edges, edges * 10)
    assert term.item() == pytest.approx((1 - math.exp(-3.0)) ** 2 * 0.3 / 3, rel=1e-5)


def test_distortion_of_two_thin_bins_is_twice_their_distance(device):
    """Half of the light in each, 0.6 apart."""
    s_edges = torch.tensor([[0.1, 0.1, 0.7, 0.7]], device=device)
    t_edges = torch.tensor([[1.0, 2.0, 3.0, 4.0]], device=device)
    half = math.log(math.log(2.0))  # optical depth log 2
    logits = torch.tensor([half, -1e4, 20.0], device=device)
    term, weights = distortion(logits, s_edges, t_edges, 0.5)
    assert_close(weights, torch.tensor([[0.5, 0.0, 0.5]], device=device), 1e-6)
    assert term.item() == pytest.approx(0.5 * 2 * 0.25 * 0.6, rel=1e-5)


def test_distortion_is_the_mean_distance_of_two_random_points():
    """Weights that sum to 1 are a probability: two points drawn from it lie E|x - y| apart."""
    generator = torch.Generator().manual_seed(0)
    edges = torch.rand(7, generator=generator, dtype=torch.float64).sort().values
    weights = torch.rand(6, generator=generator, dtype=torch.float64).softmax(0)
    count = 400_000
    bins = torch.multinomial(weights, 2 * count, replacement=True, generator=generator)
    within = torch.rand(2 * count, generator=generator, dtype=torch.float64)
    x, y = (edges[bins] + within * edges.diff()[bins]).reshape(2, count)
    expected = (x - y).abs().mean().item()
    assert distortion_loss(edges[None], weights[None]).item() == pytest.approx(expected, rel=5e-3)


def test_distortion_does_not_see_how_bins_are_cut():
    density, _, s_edges, t_edges, *_ = random_inputs(5, 7, torch.device("cpu"), torch.float64)
    weights = distortion(density.detach(), s_edges, t_edges)[1]
    middles = (s_edges[:, 1:] + s_edges[:, :-1]) / 2
    cut = torch.cat([torch.stack([s_edges[:, :-1], middles], -1).flatten(1), s_edges[:, -1:]], -1)
    expected = distortion_loss(s_edges, weights)
    assert_close(distortion_loss(cut, weights.repeat_interleave(2, -1) / 2), expected, 1e-12)
    assert_close(distortion_loss((1 - s_edges).flip(-1), weights.flip(-1)), expected, 1e-12)


def test_distortion_under_shift_and_scale(device):
    density, _, s_edges, t_edges, *_ = random_inputs(5, 7, device, torch.float64)
    term, _ = distortion(density.detach(), s_edges, t_edges)
    assert_close(distortion(density.detach(), s_edges * 0.25 + 0.5, t_edges)[0], term * 0.25, 1e-12)
    assert_close(distortion(density.detach(), s_edges, t_edges, 3.0)[0], term * 3, 1e-12)


def test_distortion_of_a_thin_surface_far_out_keeps_its_digits(device):
    """Bins of width 1e-5 near s = 1, where m_i sum w - sum w m would lose all but two digits."""
    s_edges = (0.99 + torch.arange(17) * 1e-5)[None]
    t_edges = torch.arange(17.0)[None]
    logits = torch.full((16,), -2.5)
    grey, target = torch.zeros(3, 16), torch.full((1, 3), 0.5)
    exact = logits.double().requires_grad_()
    truth = twin.render_loss(exact, grey.double(), s_edges.double(), t_edges.double(), target.double(), None, 1e4)[0]
    truth.backward()
    ours = logits.to(device).requires_grad_()
    out = render_loss(ours, *(x.to(device) for x in (grey, s_edges, t_edges, target)), None, 1e4)
    out.total.backward()
    assert_close(out.total, truth, 1e-5)
    assert_gradients_close(ours.grad, exact.grad, 1e-5)


def test_the_sparse_term_is_a_mean_of_logarithms(device):
    """Of log(1 + 2 density^2), here with densities 1, 3, 0.5 and none."""
    logits = torch.tensor([1.0, 3.0, 0.5, 0.0], device=device).log().clamp(min=-100)
    edges = torch.tensor([[0.0, 0.5, 1.0]] * 2, device=device)
    grey = torch.zeros(3, 4, device=device)
    out = render_loss(logits, grey, edges, edges, torch.zeros(2, 3, device=device), None, 0.0, 0.5)
    assert out.terms[2].item() == pytest.approx(0.5 * (math.log(3) + math.log(19) + math.log(1.5)) / 4, rel=1e-5)


@pytest.mark.parametrize("background", [True, False])
def test_saturated_colors_come_back(device, background):
    """Values do not know of it; gradients lead back to where the sigmoid has one, and are the twin's."""
    inputs = random_inputs(13, 21, device, background=background)
    inputs[1].data *= 40
    assert_matches(
        lambda *x: losses(render_loss, inputs)(*x).total, lambda *x: losses(twin.render_loss, inputs)(*x)[0], inputs[:2]
    )
    out = render_loss(*inputs)
    out.total.backward()
    logits, pull = inputs[1].detach(), inputs[1].grad
    seen = (out.weights.flatten() > 1e-4) & (logits.abs() > 20)
    assert seen.any() and pull is not None and (pull * logits > 0)[seen].all()


def test_wrong_tensors_are_named(device):
    inputs = random_inputs(4, 3, device)
    with pytest.raises(TensorError, match="evenly"):
        render_loss(inputs[0][:-1], *inputs[1:])
    with pytest.raises(TensorError, match="color_logits"):
        render_loss(inputs[0], inputs[1][:2], *inputs[2:])
    with pytest.raises(TensorError, match="t_edges"):
        render_loss(*inputs[:3], inputs[3][:, :-1], *inputs[4:])
    with pytest.raises(TensorError, match="background"):
        render_loss(*inputs[:5], inputs[5][:2])


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("rays", [1, 13])
def test_tinted_colors_match_reference(device, background, rays):
    """What a camera does to colours: values, and the gradients of logits and tint."""
    inputs = random_inputs(rays, 21, device, background=background)
    tint = torch.randn(rays, 6, generator=torch.Generator().manual_seed(rays)).to(device)
    tint[:, :3] += 1
    kept = (torch.arange(rays, device=device) % 3 < 2).float()
    assert_matches(
        lambda d, c, t: render_loss(d, c, *inputs[2:], *BOTH, kept, t).total,
        lambda d, c, t: twin.render_loss(d, c, *inputs[2:], *BOTH, kept, t)[0],
        [*inputs[:2], tint.requires_grad_()],
    )


def test_a_tint_that_explains_the_difference_leaves_no_loss(device):
    inputs = random_inputs(7, 5, device)
    tint = torch.tensor([[1.2, 0.9, 1.1, 0.03, -0.02, 0.01]] * 7, device=device)
    plain = composite(
        inputs[0].exp().view(7, 5), torch.sigmoid(inputs[1]).view(3, 7, 5), inputs[3], inputs[5]
    )  # fmt: skip
    inputs[4] = (plain.color * tint[:, :3] + tint[:, 3:]).detach()
    assert render_loss(*inputs, tint=tint).total.item() < 1e-10 < render_loss(*inputs).total.item()


@pytest.mark.parametrize("background", [True, False])
def test_opacity_matches_reference(device, background):
    inputs = random_inputs(33, 9, device, background=background)
    inputs[0].data -= 2  # neither clear nor opaque
    assert_matches(
        lambda *x: render_loss(*x, *inputs[2:], opacity=0.3).total,
        lambda *x: twin.render_loss(*x, *inputs[2:], opacity=0.3)[0],
        inputs[:2],
    )


def test_opacity_is_least_undecided_at_nothing_and_everything(device):
    edges = torch.tensor([[0.0, 1.0]] * 3, device=device)
    logits = torch.tensor([-1e4, math.log(math.log(2.0)), 20.0], device=device)
    out = [
        render_loss(logits[i : i + 1], torch.zeros(3, 1, device=device), edges[:1], edges[:1],
                    torch.zeros(1, 3, device=device), None, opacity=1.0).terms[3].item()
        for i in range(3)
    ]  # fmt: skip
    assert out[0] < 0.002 and out[2] < 0.002 and out[1] == pytest.approx(math.log(2.0), rel=1e-5)


def random_depth(rays: int, device: torch.device, dtype=torch.float32) -> torch.Tensor:
    """Positions on the rays, some beyond all samples; every third is unknown."""
    depth = torch.rand(rays, generator=torch.Generator().manual_seed(rays), dtype=dtype)
    depth[::3] = -1
    return depth.to(device)


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize(("rays", "samples"), [(0, 3), (2, 1), (13, 21), (70, 48)])
def test_depth_matches_reference(device, background, masked, rays, samples):
    """Total, terms and gradients, beside all other terms."""
    inputs = random_inputs(rays, samples, device, background=background)
    kept = (torch.arange(rays, device=device) % 4 > 0).float() if masked else None
    more = (*BOTH, kept, None, 0.1, random_depth(rays, device), 0.7)

    def fast(*logits):
        out = render_loss(*logits, *inputs[2:], *more)
        return out.total, out.terms

    def slow(*logits):
        total, terms, _ = twin.render_loss(*logits, *inputs[2:], *more)
        return total, terms.detach()

    assert_matches(fast, slow, inputs[:2])


@pytest.mark.gradcheck
def test_finite_differences_of_depth():
    inputs = random_inputs(4, 5, torch.device("cpu"), torch.float64)
    depth = random_depth(4, torch.device("cpu"), torch.float64)
    assert torch.autograd.gradcheck(
        lambda *x: render_loss(*x, *inputs[2:], depth=depth, depth_weight=0.9).total, inputs[:2]
    )


def test_depth_with_float16_logits(device):
    inputs, depth = random_inputs(2048, 8, device, torch.float16), random_depth(2048, device)
    exact = [x.detach().float().requires_grad_() for x in inputs[:2]]
    for logits in (inputs[:2], exact):
        out = render_loss(*logits, *inputs[2:], depth=depth, depth_weight=0.5)
        (out.total * 2048).backward()
    for half, truth in zip(inputs[:2], exact, strict=True):
        assert_gradients_close(half.grad, truth.grad, 1e-3)


@pytest.mark.parametrize(("depth", "weight"), [(True, 0.0), (None, 0.5), (False, 0.5)])
def test_without_depth_nothing_changes(device, depth, weight):
    """To the last bit: of weight zero, not given, and given but unknown everywhere."""
    inputs = random_inputs(33, 9, device)
    known = {True: random_depth(33, device), False: torch.full((33,), -1.0, device=device), None: None}[depth]
    results = []
    for options in ({}, {"depth": known, "depth_weight": weight}):
        out = render_loss(*inputs, *BOTH, opacity=0.1, **options)
        results.append([out.terms, out.weights, out.errors, *torch.autograd.grad(out.total, inputs[:2])])
    assert all(map(torch.equal, *results))


def depth_term(density: list[float], s_edges: list[float], depth: float, device: torch.device) -> float:
    """Of one ray with these densities, its bins as wide in t as in s."""
    edges, grey = torch.tensor([s_edges], device=device), torch.zeros(3, len(density), device=device)
    logits = torch.tensor(density, device=device).log().clamp(min=-100)
    known, target = torch.tensor([depth], device=device), torch.full((1, 3), 0.5, device=device)
    return render_loss(logits, grey, edges, edges, target, None, depth=known, depth_weight=1.0).terms[4].item()


def test_depth_is_the_mean_square_to_where_light_ends(device):
    """All of it in one bin; none of it, which goes on to s = 1; and half of it in each of two."""
    assert depth_term([0.0, 1e6, 0.0], [0.0, 0.4, 0.5, 1.0], 0.45, device) == pytest.approx(0.1**2 / 12, rel=1e-5)
    assert depth_term([0.0, 1e6, 0.0], [0.0, 0.4, 0.5, 1.0], 0.2, device) == pytest.approx(0.25**2 + 0.1**2 / 12)
    assert depth_term([0.0, 0.0], [0.0, 0.4, 0.5], 0.2, device) == pytest.approx(0.8**2)
    half = math.log(2.0) / 1e-3
    two = depth_term([half, 0.0, 1e6], [0.2, 0.201, 0.6, 0.601], 0.4, device)
    assert two == pytest.approx(0.2**2, rel=1e-2), "their mean is at 0.4, but no light ends there"


@pytest.mark.parametrize("start", [-6.0, 1.0])
def test_depth_alone_makes_a_surface_of_fog_and_of_nothing(device, start):
    """Descent from an empty ray, and from one that is opaque from the start, ends at the measured position."""
    edges = torch.linspace(0, 1, 33, device=device)[None]
    logits = torch.full((32,), start, device=device, requires_grad=True)
    grey, target = torch.zeros(3, 32, device=device), torch.full((1, 3), 0.5, device=device)
    depth = torch.tensor([0.61], device=device)
    optimizer = torch.optim.Adam([logits], lr=0.1)
    for _ in range(400):
        optimizer.zero_grad()
        out = render_loss(logits, grey, edges, edges * 10, target, None, depth=depth, depth_weight=1.0)
        out.total.backward()
        optimizer.step()
    assert out.weights[0].argmax().item() == 19 and out.weights[0, 18:21].sum() > 0.95


def test_a_depth_of_another_shape_is_named(device):
    with pytest.raises(TensorError, match="depth"):
        render_loss(*random_inputs(4, 3, device), depth=torch.zeros(3, device=device), depth_weight=1.0)
