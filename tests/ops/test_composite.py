"""Volume rendering: against its twin, Taichi's own adjoint, and optics. Letters: N rays, S samples."""

import math

import pytest
import torch

from msth_taichi.errors import TensorError
from msth_taichi.kernels.composite import composite_kernels
from msth_taichi.ops.composite import composite
from msth_taichi.reference import composite as reference
from tests.comparison import assert_close, assert_gradients_close, assert_matches, assert_safe_autograd

SIZES = [(0, 4), (1, 1), (5, 1), (1, 33), (37, 48)]
BACKGROUNDS = ["last_sample", "tensor", None]


def random_rays(device, rays, samples, seed=0, dtype=torch.float32):
    """Densities from empty to opaque, colours and edges from 0.05 outwards."""
    generator = torch.Generator().manual_seed(seed)
    densities = torch.randn(rays, samples, generator=generator, dtype=dtype).mul(2).exp()
    densities *= torch.rand(rays, samples, generator=generator, dtype=dtype) > 0.2
    colors = torch.rand(3, rays, samples, generator=generator, dtype=dtype)
    steps = torch.rand(rays, samples, generator=generator, dtype=dtype) * 3 / samples
    t_edges = torch.cat([torch.full((rays, 1), 0.05, dtype=dtype), 0.05 + steps.cumsum(-1)], -1)
    return tuple(x.to(device) for x in (densities, colors, t_edges))


def background_for(kind, colors):
    rays = colors.shape[1]
    if kind != "tensor":
        return kind
    generator = torch.Generator().manual_seed(5)
    return torch.rand(rays, 3, generator=generator, dtype=colors.dtype).to(colors.device)


def weights(densities, t_edges):
    return composite(densities, densities.new_zeros(3, *densities.shape), t_edges, None).weights


def fields(out):
    return out.color, out.depth, out.depth_median, out.accumulation, out.weights


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("size", SIZES)
def test_weights_match_reference(device, size, seed, dtype):
    densities, _, t_edges = random_rays(device, *size, seed, dtype)
    assert_matches(weights, reference.weights, [densities.requires_grad_(), t_edges])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", BACKGROUNDS)
@pytest.mark.parametrize("size", SIZES)
def test_composite_matches_reference(device, size, kind, dtype):
    densities, colors, t_edges = random_rays(device, *size, seed=2, dtype=dtype)
    background = background_for(kind, colors)
    assert_matches(
        lambda d, c, t: fields(composite(d, c, t, background)),
        lambda d, c, t: fields(reference.composite(d, c, t, background)),
        [densities.requires_grad_(), colors.requires_grad_(), t_edges],
    )


def test_background_tensor_takes_a_gradient(device):
    densities, colors, t_edges = random_rays(device, 6, 5)
    inputs = [densities.requires_grad_(), colors, t_edges, background_for("tensor", colors).requires_grad_()]
    assert_matches(lambda *x: composite(*x).color, lambda *x: reference.composite(*x).color, inputs)


@pytest.mark.gradcheck
@pytest.mark.parametrize("kind", BACKGROUNDS)
def test_gradcheck(device, kind):
    densities, colors, t_edges = random_rays(device, 3, 4, seed=3, dtype=torch.float64)
    background = background_for(kind, colors)

    def differentiable(d, c):
        out = composite(d, c, t_edges, background)
        return out.color, out.depth, out.accumulation, out.weights

    densities = densities + 0.1  # finite differences must not step below zero
    assert torch.autograd.gradcheck(differentiable, (densities.requires_grad_(), colors.requires_grad_()))
    assert torch.autograd.gradcheck(lambda d: weights(d, t_edges), (densities,))


@pytest.mark.parametrize("last_sample", [True, False])
def test_adjoint_equals_taichis_own(device, last_sample):
    densities, colors, t_edges = random_rays(device, 4, 11, seed=4, dtype=torch.float64)
    background = background_for("tensor", colors)[: 0 if last_sample else None].contiguous()
    kernels = composite_kernels(torch.float64, last_sample, taichi_adjoint=True)
    inputs = [x.clone().requires_grad_() for x in (densities, colors, t_edges, background)]
    outputs = [densities.new_zeros(s).requires_grad_() for s in [(4, 3), (4,), (4,), (4,), (4, 11)]]
    kernels.forward(*(x.detach() for x in (*inputs, *outputs)))
    generator = torch.Generator().manual_seed(6)
    incoming = [torch.randn(x.shape, generator=generator, dtype=x.dtype).to(device) for x in outputs]
    incoming[2].zero_()  # the median is a choice, not a function to differentiate
    for output, gradient in zip(outputs, incoming, strict=True):
        output.grad = gradient.clone()
    for x in inputs:
        x.grad = torch.zeros_like(x)
    kernels.forward.grad(*inputs, *outputs)

    _, depth, _, accumulation, w = (x.detach() for x in outputs)
    ours = [torch.empty_like(densities), torch.empty_like(colors)]
    saved = [densities, colors, t_edges, background, depth, accumulation, w]
    kernels.backward(*saved, incoming[0], incoming[1], incoming[3], incoming[4], *ours)
    assert_gradients_close(ours[0], inputs[0].grad, 1e-12)
    assert_gradients_close(ours[1], inputs[1].grad, 1e-12)


@pytest.mark.parametrize("name", ["color", "depth", "accumulation", "weights"])
def test_safe_autograd(device, name):
    densities, colors, t_edges = random_rays(device, 3, 4)
    assert_safe_autograd(
        lambda d, c: getattr(composite(d, c, t_edges, "last_sample"), name),
        [densities.requires_grad_(), colors.requires_grad_(name == "color")],
    )


def test_weights_are_safe_autograd(device):
    densities, _, t_edges = random_rays(device, 3, 4)
    assert_safe_autograd(lambda d: weights(d, t_edges), [densities.requires_grad_()])


def test_second_derivatives_are_refused(device):
    densities, _, t_edges = random_rays(device, 2, 3)
    (first,) = torch.autograd.grad(
        weights(densities.requires_grad_(), t_edges).square().sum(), densities, create_graph=True
    )
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_half_absorbed_by_each_bin(device):
    ln2 = math.log(2)
    out = composite(
        torch.tensor([[ln2, ln2, ln2]], device=device),
        torch.eye(3, device=device)[:, None, :].contiguous(),  # red, green, blue
        torch.tensor([[1.0, 2.0, 3.0, 4.0]], device=device),
        torch.ones(1, 3, device=device),
    )
    assert_close(out.weights, torch.tensor([[0.5, 0.25, 0.125]]), 1e-5)
    assert_close(out.color, torch.tensor([[0.625, 0.375, 0.25]]), 1e-5)
    assert_close(out.accumulation, torch.tensor([0.875]), 1e-5)
    assert_close(out.depth, torch.tensor([(0.5 * 1.5 + 0.25 * 2.5 + 0.125 * 3.5) / 0.875]), 1e-5)


def test_median_depth(device):
    densities = torch.tensor([[0.0, 0.4, 0.4, 9.0], [0.0, 0.1, 0.1, 0.1], [0.0, 9.0, 9.0, 9.0]], device=device)
    t_edges = torch.arange(5.0, device=device).expand(3, 5).contiguous()
    out = composite(densities, torch.zeros(3, 3, 4, device=device), t_edges, None)
    # reached in the third bin (0.8 > ln 2), never (the last bin), in the second
    assert out.depth_median.tolist() == [2.5, 3.5, 1.5]
    assert not out.depth_median.requires_grad


@pytest.mark.parametrize("samples", [1, 2, 31])
def test_weights_sum_to_the_opacity_of_the_ray(device, samples):
    densities, colors, t_edges = random_rays(device, 20, samples, seed=8)
    expected = -torch.expm1(-(densities * t_edges.diff(dim=-1)).sum(-1))
    assert_close(weights(densities, t_edges).sum(-1), expected, 1e-5)
    assert_close(composite(densities, colors, t_edges, None).accumulation, expected, 1e-5)


def test_one_colour_before_itself_shows_itself(device):
    densities, colors, t_edges = random_rays(device, 20, 9)
    colors = torch.full_like(colors, 0.3)
    for background in ("last_sample", torch.full((20, 3), 0.3, device=device)):
        assert_close(composite(densities, colors, t_edges, background).color, torch.full((20, 3), 0.3), 1e-5)


def test_white_background_shines_through(device):
    densities, colors, t_edges = random_rays(device, 20, 9)
    out = composite(densities, torch.zeros_like(colors), t_edges, torch.ones(20, 3, device=device))
    assert_close(out.color, (1 - out.accumulation)[:, None].expand(20, 3), 1e-5)


def test_splitting_a_bin_changes_nothing(device):
    densities, colors, t_edges = random_rays(device, 20, 9, dtype=torch.float64)
    middles = (t_edges[:, 1:] + t_edges[:, :-1]) / 2
    split_edges = torch.cat([torch.stack([t_edges[:, :-1], middles], -1).flatten(1), t_edges[:, -1:]], -1)
    out = composite(densities, colors, t_edges, "last_sample")
    split = composite(densities.repeat_interleave(2, -1), colors.repeat_interleave(2, -1), split_edges, "last_sample")
    assert_close(split.color, out.color, 1e-12)
    assert_close(split.accumulation, out.accumulation, 1e-12)
    assert_close(split.weights.reshape(20, 9, 2).sum(-1), out.weights, 1e-12)


def test_equivalent_routes(device):
    densities, colors, t_edges = random_rays(device, 20, 10, dtype=torch.float64)
    black = composite(densities, colors, t_edges, None)
    alphas = 1 - torch.exp(-densities * t_edges.diff(dim=-1))
    seen = torch.cumprod(torch.cat([torch.ones_like(alphas[:, :1]), 1 - alphas[:, :-1]], -1), -1)
    assert_close(black.weights, alphas * seen, 1e-12)

    last = composite(densities, colors, t_edges, "last_sample").color
    last_colors = colors[:, :, -1].T.contiguous()
    assert_close(last, composite(densities, colors, t_edges, last_colors).color, 1e-14)
    assert_close(last, black.color + (1 - black.accumulation)[:, None] * last_colors, 1e-12)

    back = composite(densities[:, 4:].contiguous(), colors[:, :, 4:].contiguous(), t_edges[:, 4:].contiguous(), None)
    front = composite(
        densities[:, :4].contiguous(), colors[:, :, :4].contiguous(), t_edges[:, :5].contiguous(), back.color
    )
    assert_close(front.color, black.color, 1e-12)

    one = composite(densities[7:8], colors[:, 7:8].contiguous(), t_edges[7:8], None)
    assert_close(one.color, black.color[7:8], 0)


def test_expected_depth_lies_among_the_samples(device):
    densities, colors, t_edges = random_rays(device, 50, 12)
    densities[0] = 0
    depth = composite(densities, colors, t_edges, None).depth
    assert depth[0] == 0
    assert (depth[1:] >= t_edges[1:, 0]).all() and (depth[1:] <= t_edges[1:, -1]).all()


def extreme_rays(device, dtype):
    """Every combination of nothing, something and far too much, in bins of no width and of hundreds."""
    values = torch.tensor([0.0, 1e-8, 1.0, 1e10, 3e38], dtype=dtype)
    densities = torch.cartesian_prod(*[values] * 4)
    rows = [
        [0.05, 0.05, 0.06, 1.0, 1000.0],
        [7.0] * 5,
        [0.0, 0.0, 0.0, 1000.0, 1000.0],
        [0.05, 300.0, 600.0, 900.0, 1000.0],
    ]
    t_edges = torch.tensor(rows, dtype=dtype).repeat_interleave(len(densities), 0)
    densities = densities.repeat(len(rows), 1)
    colors = torch.rand(3, *densities.shape, generator=torch.Generator().manual_seed(0), dtype=dtype)
    return densities.to(device), colors.to(device), t_edges.to(device)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", BACKGROUNDS)
def test_extremes_stay_finite_and_exact(device, kind, dtype):
    densities, colors, t_edges = extreme_rays(device, dtype)
    background = background_for(kind, colors)
    out = composite(densities.requires_grad_(), colors.requires_grad_(), t_edges, background)
    for value in fields(out):
        assert torch.isfinite(value).all()
    assert (out.weights >= 0).all() and (out.accumulation <= 1).all()
    assert_close(out.weights.sum(-1), out.accumulation, 1e-5)
    sum(x.sum() for x in fields(out)).backward()
    assert torch.isfinite(densities.grad).all() and torch.isfinite(colors.grad).all()

    exact = [x.detach().double().requires_grad_() for x in (densities, colors)]
    twin_background = background.double() if isinstance(background, torch.Tensor) else background
    twin = reference.composite(*exact, t_edges.double(), twin_background)
    (twin.color.sum() + twin.accumulation.sum() + twin.weights.sum()).backward()
    for x in (densities, colors):
        x.grad = None
    out = composite(densities, colors, t_edges, background)
    (out.color.sum() + out.accumulation.sum() + out.weights.sum()).backward()
    assert_close(out.color, twin.color, 1e-5)
    for x, target in zip((densities, colors), exact, strict=True):
        assert_gradients_close(x.grad, target.grad, 1e-5)


def test_thin_fog_keeps_its_digits(device):
    densities = torch.full((1, 8), 1e-6, device=device)
    t_edges = torch.linspace(0, 0.8, 9, device=device)[None]
    expected = reference.weights(densities.double(), t_edges.double())
    assert_close(weights(densities, t_edges), expected, 1e-5)


def test_gradients_before_a_wall_keep_their_digits(device):
    # behind the wall lies an optical depth of 1e13; the thin bins before it must not feel it
    densities = torch.tensor([[0.03, 0.02, 0.01, 1e10, 1e10]], device=device)
    t_edges = torch.tensor([[0.0, 1.0, 2.0, 3.0, 4.0, 1000.0]], device=device)
    incoming = torch.tensor([[1.0, -2.0, 3.0, 0.5, 4.0]], device=device)
    grads = []
    for operator, dtype in ((weights, torch.float32), (reference.weights, torch.float64)):
        x = densities.to(dtype).clone().requires_grad_()
        operator(x, t_edges.to(dtype)).backward(incoming.to(dtype))
        grads.append(x.grad)
    assert_close(grads[0], grads[1], 1e-5)


def test_near_equal_to_far_is_empty(device):
    t_edges = torch.full((2, 5), 3.0, device=device)
    densities = torch.full((2, 4), 1e10, device=device).requires_grad_()
    out = composite(densities, torch.rand(3, 2, 4).to(device), t_edges, torch.ones(2, 3, device=device))
    assert out.weights.sum() == 0 and out.accumulation.sum() == 0
    assert (out.color == 1).all()
    out.color.sum().backward()
    assert (densities.grad == 0).all()


@pytest.mark.parametrize(
    ("argument", "change", "message"),
    [
        ("densities", lambda x: x.half(), "densities: expected float32 or float64, got float16"),
        ("densities", lambda x: x[0], "densities: expected shape"),
        ("densities", lambda x: x[:, :0], "at least one sample"),
        ("densities", lambda x: x.T.contiguous().T, "densities: not contiguous"),
        ("colors", lambda x: x.permute(1, 2, 0).contiguous(), r"colors: expected shape \(3, 4, 5\)"),
        ("colors", lambda x: x.double(), "colors: expected float32, got float64"),
        ("t_edges", lambda x: x[:, :-1].contiguous(), r"t_edges: expected shape \(4, 6\)"),
        ("background", lambda x: x[:1], r"background: expected shape \(4, 3\)"),
        ("background", lambda x: "white", "background: expected 'last_sample'"),
    ],
)
def test_wrong_tensors_are_named(device, argument, change, message):
    densities, colors, t_edges = random_rays(device, 4, 5)
    arguments = {
        "densities": densities,
        "colors": colors,
        "t_edges": t_edges,
        "background": torch.ones(4, 3, device=device),
    }
    arguments[argument] = change(arguments[argument])
    with pytest.raises(TensorError, match=message):
        composite(**arguments)
