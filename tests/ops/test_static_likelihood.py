"""Likelihood of static renders in one launch against its PyTorch twin, finite differences and the slow path."""

import math

import pytest
import torch

from msth_taichi.errors import TensorError
from msth_taichi.model.uncertainty import rendered_uncertainty
from msth_taichi.ops.composite import composite
from msth_taichi.ops.static_likelihood import static_likelihood
from msth_taichi.reference import static_likelihood as twin
from tests.comparison import assert_close, assert_gradients_close, assert_matches, assert_safe_autograd

U_MIN = 0.03


def random_inputs(
    rays: int, samples: int, device: torch.device, dtype=torch.float32, background=True, before: int = 0, interval=1
):
    """The three logits, wanting gradients, then edges, target, background and weights."""
    generator = torch.Generator().manual_seed(100 * rays + samples)
    real = torch.float64 if dtype == torch.float64 else torch.float32

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=real)

    count = -(-rays // interval) * samples
    logits = [(normal(before + count) * 2).to(dtype), normal(3, before + count).to(dtype), normal(count)]
    edges = torch.rand(rays, samples + 1, generator=generator, dtype=real).sort(dim=1).values * 5 + 0.1
    weights = torch.rand(rays, samples, generator=generator, dtype=real)
    weights = weights / weights.sum(1, keepdim=True) * torch.rand(rays, 1, generator=generator, dtype=real)
    back = torch.sigmoid(normal(rays, 3)) if background else None
    inputs = [*logits, edges, torch.sigmoid(normal(rays, 3)), back, weights]
    inputs = [None if x is None else x.to(device) for x in inputs]
    for logit in inputs[:3]:
        logit.requires_grad_()
    return inputs


def random_tint(rays: int, device: torch.device, dtype=torch.float32) -> torch.Tensor:
    tint = 0.3 * torch.randn(rays, 6, generator=torch.Generator().manual_seed(rays), dtype=dtype)
    tint[:, :3] += 1
    return tint.to(device)


def some_kept(rays: int, device: torch.device, dtype=torch.float32) -> torch.Tensor:
    return (torch.arange(rays, device=device) % 3 > 0).to(dtype)


def of_logits(function, inputs, *more, **options):
    """`function` of the three logits alone."""
    return lambda *logits: function(*logits, *inputs[3:], U_MIN, *more, **options)


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("tinted", [True, False])
@pytest.mark.parametrize(("rays", "samples"), [(0, 3), (1, 1), (1, 7), (13, 21), (70, 48)])
def test_matches_reference(device, background, masked, tinted, rays, samples):
    """Value, level, and the gradients of the three logits."""
    inputs = random_inputs(rays, samples, device, background=background)
    more = some_kept(rays, device) if masked else None, random_tint(rays, device) if tinted else None
    assert_matches(of_logits(static_likelihood, inputs, *more), of_logits(twin.static_likelihood, inputs, *more),
                   inputs[:3])  # fmt: skip


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize(("rays", "interval", "before"), [(13, 4, 0), (13, 4, 39), (12, 4, 7), (3, 16, 5), (0, 4, 5)])
def test_every_kth_ray_behind_samples_of_others(device, background, rays, interval, before):
    inputs = random_inputs(rays, 5, device, background=background, before=before, interval=interval)
    options = {
        "kept": some_kept(rays, device), "tint": random_tint(rays, device), "before": before, "interval": interval
    }  # fmt: skip
    fast, slow = (of_logits(f, inputs, **options) for f in (static_likelihood, twin.static_likelihood))
    assert_matches(fast, slow, inputs[:3])
    gradients = torch.autograd.grad(fast(*inputs[:3])[0], inputs[:3])
    assert not gradients[0][:before].any() and not gradients[1][:, :before].any()
    alone = [x[..., -len(inputs[2]) :].contiguous() if len(inputs[2]) else x[..., :0] for x in inputs[:2]]
    chosen = [None if x is None else x[::interval].contiguous() for x in inputs[3:]]
    more = options["kept"][::interval].contiguous(), options["tint"][::interval].contiguous()
    for value, truth in zip(
        fast(*inputs[:3]), static_likelihood(*alone, inputs[2], *chosen, U_MIN, *more), strict=True
    ):
        assert torch.equal(value, truth)


@pytest.mark.parametrize("background", [True, False])
def test_matches_the_slow_path(device, background):
    """The same as `composite` and `rendered_uncertainty` under autograd."""
    inputs = random_inputs(9, 17, device, background=background)
    density, color, g, t_edges, target, back, weights = inputs
    seen = composite(
        density.exp().view(9, 17), torch.sigmoid(color).view(3, 9, 17), t_edges, "last_sample" if back is None else back
    ).color
    u = U_MIN + torch.nn.functional.softplus(g)
    rendered = rendered_uncertainty(weights, u, U_MIN)
    expected = ((seen - target).square().sum(1) / (2 * rendered.square()) + rendered.log()).mean()
    value, level = static_likelihood(*inputs, U_MIN)
    assert_close(value, expected, 1e-5)
    assert_close(level, ((u / U_MIN).log() / -math.log(U_MIN)).clamp(0, 1), 1e-5)
    found, truth = (torch.autograd.grad(x, inputs[:3]) for x in (value, expected))
    for a, b in zip(found, truth, strict=True):
        assert_gradients_close(a, b, 1e-5)


@pytest.mark.gradcheck
@pytest.mark.parametrize("background", [True, False])
def test_finite_differences(background):
    cpu, double = torch.device("cpu"), torch.float64
    inputs = random_inputs(3, 5, cpu, double, background)
    value = of_logits(static_likelihood, inputs, some_kept(3, cpu, double), random_tint(3, cpu, double))
    assert torch.autograd.gradcheck(lambda *x: value(*x)[0], inputs[:3])


def test_float64_matches_reference(device):
    inputs = random_inputs(13, 21, device, torch.float64)
    fast, slow = (of_logits(f, inputs) for f in (static_likelihood, twin.static_likelihood))
    assert_matches(fast, slow, inputs[:3], 1e-12, 1e-12)


@pytest.mark.parametrize("background", [True, False])
def test_float16_logits_keep_small_gradients(device, background):
    """Of a thousand rays each has a share of 1e-3 in the mean: gradients survive because they are kept per ray."""
    inputs = random_inputs(2048, 8, device, torch.float16, background, before=24)
    exact = [x.detach().float().requires_grad_() for x in inputs[:3]]
    for logits in (inputs, exact):
        (static_likelihood(*logits[:3], *inputs[3:], U_MIN, before=24)[0] * 20).backward()
    for half, truth, dtype in zip(inputs, exact, (torch.float16, torch.float16, torch.float32), strict=False):
        assert half.dtype == half.grad.dtype == dtype
        assert_gradients_close(half.grad, truth.grad, 1e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_a_tiny_floor_leaves_gradients_finite(device, dtype):
    """1 / U^2 is 1e8 here."""
    inputs = random_inputs(7, 5, device, dtype)
    inputs[2] = torch.full_like(inputs[2], -40.0).requires_grad_()
    (4 * 7 * static_likelihood(*inputs, 1e-4)[0]).backward()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in inputs[:3])
    assert inputs[0].grad.abs().max() > 1e4


@pytest.mark.parametrize("logit", [-1e4, -80.0, 80.0, 1e4])
@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_extremes_stay_finite(device, which, logit, dtype):
    inputs = random_inputs(3, 7, device, dtype)
    inputs[which].data[..., ::2] = logit
    value, level = static_likelihood(*inputs, U_MIN)
    value.backward()
    assert value.isfinite() and level.isfinite().all() and level.min() >= 0 and level.max() <= 1
    assert all(x.grad is not None and x.grad.isfinite().all() for x in inputs[:3])
    if which == 2:
        assert (level[::2] == (logit > 0)).all()
    exact = [x.detach().double().requires_grad_() for x in inputs[:3]]
    others = [x.double() for x in inputs[3:]]
    twin.static_likelihood(*exact, *others, U_MIN)[0].backward()
    for x, truth in zip(inputs[:3], exact, strict=True):
        assert_gradients_close(x.grad, truth.grad.to(x.dtype), 1e-4 if dtype == torch.float32 else 1e-2)


@pytest.mark.parametrize("background", [True, False])
def test_rays_that_see_nothing_are_as_sure_as_can_be(device, background):
    """Weights that are all zero: U is u_min, and u takes no gradient."""
    inputs = random_inputs(6, 4, device, background=background)
    inputs[6] = torch.zeros_like(inputs[6])
    assert_matches(
        of_logits(static_likelihood, inputs), of_logits(twin.static_likelihood, inputs), inputs[:3]
    )  # fmt: skip
    static_likelihood(*inputs, U_MIN)[0].backward()
    assert inputs[2].grad is not None and not inputs[2].grad.any()


def alone(color: list[list[float]], target: list[list[float]], u: list[float], device: torch.device, kept=None):
    """Value where each ray has one opaque sample of a colour, seen in full, with uncertainty u."""
    color_logits = torch.tensor(color, device=device).logit().T.contiguous()
    excess = torch.tensor(u, device=device) - U_MIN
    u_logits = (excess.exp() - 1).log()
    edges, weights = torch.tensor([[0.0, 1.0]] * len(u), device=device), torch.ones(len(u), 1, device=device)
    density = torch.full((len(u),), 20.0, device=device)
    goal, back = torch.tensor(target, device=device), torch.zeros(len(u), 3, device=device)
    return static_likelihood(density, color_logits, u_logits, edges, goal, back, weights, U_MIN, kept)[0].item()


def test_likelihood_by_hand(device):
    static, target = [[0.5, 0.5, 0.5], [0.0, 0.0, 0.0]], [[0.7, 0.4, 0.5], [0.0, 0.3, 0.4]]
    u = [0.2, 0.5]
    first, second = 0.05 / 0.08 + math.log(0.2), 0.25 / 0.5 + math.log(0.5)
    assert math.isclose(alone(static, target, u, device), (first + second) / 2, abs_tol=1e-6)
    kept = torch.tensor([1.0, 0.0], device=device)
    assert math.isclose(alone(static, target, u, device, kept), first / 2, abs_tol=1e-6)


def test_likelihood_is_best_where_its_square_is_the_mean_squared_error():
    generator = torch.Generator().manual_seed(4)
    static, target = torch.rand(2, 100, 3, generator=generator, dtype=torch.float64)
    best = (target - static).square().sum(1).mean().sqrt()
    logits, opaque = static.logit().T.contiguous(), torch.full((100,), 20.0, dtype=torch.float64)
    edges, weights = torch.tensor([[0.0, 1.0]] * 100, dtype=torch.float64), torch.ones(100, 1, dtype=torch.float64)

    def value(u: torch.Tensor) -> torch.Tensor:
        g = (u - U_MIN).expm1().log().expand(100).contiguous()
        return static_likelihood(opaque, logits, g, edges, target, torch.zeros_like(target), weights, U_MIN)[0]

    at = best.clone().requires_grad_()
    least = value(at)
    least.backward()
    assert at.grad is not None and abs(at.grad.item()) < 1e-12
    for other in (0.9, 1.1):
        assert value(other * best) > least


def test_pixels_that_do_not_count_make_no_difference(device):
    inputs = random_inputs(13, 6, device)
    kept = some_kept(13, device)
    value = static_likelihood(*inputs, U_MIN, kept)[0]
    inputs[4] = torch.where(kept[:, None] > 0, inputs[4], 1 - inputs[4])
    assert torch.equal(value, static_likelihood(*inputs, U_MIN, kept)[0])
    assert not torch.equal(value, static_likelihood(*inputs, U_MIN)[0])


def test_safe_under_autograd(device):
    inputs = random_inputs(4, 5, device)
    assert_safe_autograd(lambda *x: of_logits(static_likelihood, inputs)(*x)[0][None], inputs[:3])


def test_without_gradients_none_are_made(device):
    inputs = random_inputs(5, 6, device)
    value, level = static_likelihood(*inputs, U_MIN)
    assert value.requires_grad and not level.requires_grad
    with torch.no_grad():
        again = static_likelihood(*inputs, U_MIN)
    assert not again[0].requires_grad and torch.equal(again[0], value) and torch.equal(again[1], level)


def test_wrong_tensors_are_named(device):
    inputs = random_inputs(4, 3, device)
    for i, name in enumerate(("density_logits", "color_logits", "u_logits", "t_edges", "target", "background")):
        wrong = [*inputs[:i], inputs[i][..., :-1].contiguous(), *inputs[i + 1 :]]
        with pytest.raises(TensorError, match=name):
            static_likelihood(*wrong, U_MIN)
    with pytest.raises(TensorError, match="density_logits"):
        static_likelihood(*inputs, U_MIN, before=1)
    with pytest.raises(TensorError, match="density_logits"):
        static_likelihood(*inputs, U_MIN, interval=2)
    with pytest.raises(TensorError, match="at least one sample"):
        static_likelihood(*inputs[:6], inputs[6][:, :0].contiguous(), U_MIN)
    with pytest.raises(TensorError, match="u_min"):
        static_likelihood(*inputs, 0.0)
    for name in ("kept", "tint"):
        with pytest.raises(TensorError, match=name):
            static_likelihood(*inputs, U_MIN, **{name: torch.ones(3, device=device)})
