"""The small networks against their written-out products, both in one, and the density activation."""

import pytest
import torch

from msth_taichi.model.mlp import MLP, FlatWeights, radiance, truncated_exp
from tests.comparison import assert_close, assert_gradients_close

# widths of features, per ray, geometry features, and hidden layers
SMALL = (6, 4, 5, 8)
FULL = (32, 16, 15, 64)


def test_truncated_exp_is_exp_where_float32_can_tell(device):
    x = torch.tensor([-100.0, -20.0, -1.0, 0.0, 1.0, 15.0, 29.0], device=device)
    assert_close(truncated_exp(x), x.double().exp().float(), 1e-6)
    assert torch.isfinite(truncated_exp(torch.tensor([1e30, 88.0, 1000.0], device=device))).all()


def test_gradient_of_truncated_exp_is_bounded(device):
    x = torch.tensor([-100.0, -15.0, -2.0, 0.0, 3.0, 15.0, 16.0, 1000.0], device=device, requires_grad=True)
    truncated_exp(x).sum().backward()
    assert x.grad is not None
    assert_close(x.grad, x.detach().clamp(-15, 15).exp(), 1e-6)


def test_mlp_is_its_written_out_product(device, generator):
    mlp = MLP(5, 7, 6, 3).to(device)
    a, b, c = (weight.detach() for weight in mlp.weights)
    assert (a.shape, b.shape, c.shape) == ((7, 5), (6, 7), (3, 6))
    assert sum(p.numel() for p in mlp.parameters()) == 7 * 5 + 6 * 7 + 3 * 6, "no bias"
    x = torch.randn(5, 11, generator=generator).to(device)
    before = x.clone()
    expected = c @ (b @ (a @ x).clamp(min=0)).clamp(min=0)
    assert (expected < 0).any(), "the output is linear"
    assert_close(mlp(x), expected, 1e-6)
    assert torch.equal(x, before)


def test_values_are_written_where_they_are_wanted(device, generator):
    mlp = MLP(4, 8, 3).to(device)
    x = torch.rand(4, 16, generator=generator).to(device)
    rows = torch.full((3, 40), 7.0, device=device)
    mlp.values(x, rows[:, 8:24])
    assert_close(rows[:, 8:24], mlp(x).detach(), 1e-5)
    assert (rows[:, :8] == 7).all() and (rows[:, 24:] == 7).all()


def test_weights_that_change_are_cast_again(device):
    mlp = MLP(4, 8, 3).to(device)
    x = torch.ones(4, 2, dtype=torch.float16, device=device)
    first = mlp(x).detach().clone()
    with torch.no_grad():
        mlp.weights[1].mul_(2)
    assert torch.equal(mlp(x), 2 * first)


def test_flat_weights_that_a_kernel_moves_are_cast_again(device):
    mlp = MLP(4, 8, 3).to(device)
    flat = FlatWeights([mlp], torch.float16)
    x = torch.ones(4, 2, dtype=torch.float64, device=device)
    first, versions = mlp(x).detach().clone(), [weight._version for weight in mlp.weights]
    flat.values.mul_(2)
    assert versions == [weight._version for weight in mlp.weights], "as by a kernel, nobody is told"
    assert_close(mlp(x).detach(), 4 * first, 1e-6)


def test_gradients_of_the_mlp_are_those_of_the_product(device, generator):
    mlp = MLP(5, 7, 3).to(device)
    x = torch.randn(5, 11, generator=generator).to(device).requires_grad_()
    out = torch.randn(3, 11, generator=generator).to(device)
    (mlp(x) * out).sum().backward()
    a, b = (weight.detach().double() for weight in mlp.weights)
    hidden = a @ x.detach().double()
    hidden_gradient = (b.T @ out.double()) * (hidden > 0)
    assert_gradients_close(mlp.weights[1].grad, out.double() @ hidden.clamp(min=0).T, 1e-5)
    assert_gradients_close(mlp.weights[0].grad, hidden_gradient @ x.detach().double().T, 1e-5)
    assert x.grad is not None
    assert_gradients_close(x.grad, a.T @ hidden_gradient, 1e-5)


def test_mlp_computes_in_the_dtype_of_its_input(device):
    mlp = MLP(4, 8, 2).to(device)
    assert mlp(torch.ones(4, 3, device=device, dtype=torch.float16)).dtype == torch.float16
    assert all(weight.dtype == torch.float32 for weight in mlp.weights)


def test_weights_start_within_glorots_bounds():
    torch.manual_seed(0)
    (weight,) = MLP(40, 60).weights
    bound = (6 / 100) ** 0.5
    assert 0.9 * bound < weight.abs().max() <= bound


def random_networks(sizes: tuple[int, int, int, int], rays: int, samples: int, device: torch.device, dtype):
    """Features, inputs per ray, and both networks, wanting gradients."""
    generator = torch.Generator().manual_seed(1000 * rays + samples)
    features, per_ray, geometry, hidden = sizes
    mlps = MLP(features, hidden, 1 + geometry), MLP(per_ray + 1 + geometry, hidden, hidden, 3)
    with torch.no_grad():
        for weight in (*mlps[0].weights, *mlps[1].weights):
            weight.normal_(std=1.5 / weight.shape[1] ** 0.5, generator=generator)
    inputs = [torch.randn(rows, columns, generator=generator) for rows, columns in
              ((features, rays * samples), (per_ray, rays))]  # fmt: skip
    master = torch.float64 if dtype == torch.float64 else torch.float32
    return [x.to(device, dtype).requires_grad_() for x in inputs], [m.to(device, master) for m in mlps]


def composed(features: torch.Tensor, per_ray: torch.Tensor, density_mlp: MLP, color_mlp: MLP):
    """What `radiance` computes, as modules under autograd."""
    out = density_mlp(features)
    spread = per_ray.repeat_interleave(features.shape[1] // max(per_ray.shape[1], 1), dim=1)
    return out[0], color_mlp(torch.cat([spread, torch.ones_like(out[:1]), out[1:]]))


def results(function, inputs, mlps, factor: float = 1.0) -> list[torch.Tensor]:
    """Both outputs, then the gradients to inputs and weights of a random functional of them."""
    outputs = function(*inputs, *mlps)
    generator = torch.Generator().manual_seed(3)
    incoming = [torch.randn(x.shape, generator=generator).to(x.device, x.dtype) * factor for x in outputs]
    leaves = [*inputs, *mlps[0].weights, *mlps[1].weights]
    kept = [x.clone() for x in incoming]
    gradients = torch.autograd.grad(outputs, leaves, incoming)
    for value, before in zip(incoming, kept, strict=True):
        assert torch.equal(value, before), "a gradient that others share was changed"
    for gradient, leaf in zip(gradients, leaves, strict=True):
        assert gradient.dtype == leaf.dtype and gradient.shape == leaf.shape
    return [*outputs, *gradients]


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.float16, 5e-3)], ids=str
)
@pytest.mark.parametrize(
    ("sizes", "rays", "samples"), [(SMALL, 1, 1), (SMALL, 7, 3), (SMALL, 1, 50), (SMALL, 5, 1), (FULL, 13, 21)], ids=str
)
def test_radiance_is_its_modules(device, sizes, rays, samples, dtype, tolerance):
    inputs, mlps = random_networks(sizes, rays, samples, device, dtype)
    before = [x.detach().clone() for x in inputs]
    density, color, *_ = values = results(radiance, inputs, mlps)
    assert density.shape == (rays * samples,) and color.shape == (3, rays * samples)
    for value, expected in zip(values, results(composed, inputs, mlps), strict=True):
        assert_gradients_close(value, expected, tolerance)
    for x, kept in zip(inputs, before, strict=True):
        assert torch.equal(x, kept)


def test_float16_weight_gradients_are_those_of_float32(device):
    """Sums over many samples, returned in float32; off by the ReLUs that rounding flips."""
    inputs, mlps = random_networks(FULL, 64, 48, device, torch.float16)
    exact = [x.detach().float().requires_grad_() for x in inputs]
    for half, truth in zip(
        results(radiance, inputs, mlps, 1 / 64)[4:], results(radiance, exact, mlps, 1 / 64)[4:], strict=True
    ):
        assert half.dtype == torch.float32
        assert_gradients_close(half, truth, 4e-2)


@pytest.mark.parametrize("rays", [0, 3])
def test_radiance_of_no_samples(device, rays):
    inputs, mlps = random_networks(SMALL, rays, 0, device, torch.float32)
    density, color, *gradients = results(radiance, inputs, mlps)
    assert density.shape == (0,) and color.shape == (3, 0)
    assert all(g.count_nonzero() == 0 for g in gradients)


@pytest.mark.parametrize("output", [0, 1])
def test_radiance_with_one_output_used(device, output):
    """The other output's gradient then is zero, not missing."""
    inputs, mlps = random_networks(SMALL, 4, 5, device, torch.float32)
    leaves = [*inputs, *mlps[0].weights, *mlps[1].weights]
    values, expected = (
        torch.autograd.grad(f(*inputs, *mlps)[output].square().sum(), leaves, allow_unused=True)
        for f in (radiance, composed)
    )
    for value, target in zip(values, expected, strict=True):
        assert_gradients_close(value, torch.zeros_like(value) if target is None else target, 1e-5)


def test_radiance_may_be_asked_for_fewer_gradients(device):
    inputs, mlps = random_networks(SMALL, 4, 5, device, torch.float32)
    weights = [*mlps[0].weights, *mlps[1].weights]
    fixed = [x.detach() for x in inputs]
    gradients = torch.autograd.grad(sum(x.sum() for x in radiance(*fixed, *mlps)), weights)
    expected = torch.autograd.grad(sum(x.sum() for x in composed(*fixed, *mlps)), weights)
    for value, target in zip(gradients, expected, strict=True):
        assert_gradients_close(value, target, 1e-5)


@pytest.mark.gradcheck
@pytest.mark.parametrize(("rays", "samples"), [(2, 3), (3, 1)])
def test_finite_differences_of_radiance(rays, samples):
    """Along a random direction of each input and weight; its backward pass runs once, as gradcheck's does not."""
    inputs, mlps = random_networks(SMALL, rays, samples, torch.device("cpu"), torch.float64)
    generator = torch.Generator().manual_seed(3)
    out_weights = [torch.randn(x.shape, generator=generator, dtype=x.dtype) for x in radiance(*inputs, *mlps)]

    def value() -> torch.Tensor:
        return sum(((a * b).sum() for a, b in zip(radiance(*inputs, *mlps), out_weights, strict=True)), torch.zeros(()))

    leaves = [*inputs, *mlps[0].weights, *mlps[1].weights]
    for leaf, gradient in zip(leaves, torch.autograd.grad(value(), leaves), strict=True):
        direction = torch.randn(leaf.shape, generator=generator, dtype=leaf.dtype) * 1e-6
        with torch.no_grad():
            leaf += direction
            above = value()
            leaf -= 2 * direction
            change = (above - value()) / 2
            leaf += direction
        assert change.item() == pytest.approx((gradient * direction).sum().item(), rel=1e-5)


def test_radiance_under_autograd(device):
    """Inputs that are no leaves, no `.grad` by running forward, and one backward pass."""
    inputs, mlps = random_networks(SMALL, 4, 5, device, torch.float32)
    expected = torch.autograd.grad(sum(x.sum() for x in radiance(*inputs, *mlps)), inputs)
    density, color = radiance(*(x * 1.0 for x in inputs), *mlps)
    assert all(x.grad is None for x in (*inputs, *mlps[0].parameters(), *mlps[1].parameters()))
    (density.sum() + color.sum()).backward(retain_graph=True)
    for x, target in zip(inputs, expected, strict=True):
        assert_gradients_close(x.grad, target, 1e-6)
    with pytest.raises(RuntimeError, match="run forward again"):
        (density.sum() + color.sum()).backward()


def test_flat_weights_are_the_same_weights(device):
    inputs, mlps = random_networks(SMALL, 4, 5, device, torch.float32)
    before = [weight.detach().clone() for mlp in mlps for weight in mlp.weights]
    expected = [x.detach() for x in radiance(*inputs, *mlps)]
    flat = FlatWeights(mlps, torch.float32)
    after = [weight for mlp in mlps for weight in mlp.weights]
    assert flat.values.shape == (sum(weight.numel() for weight in before),)
    for a, b in zip(before, after, strict=True):
        assert torch.equal(a, b)
        assert b.data_ptr() >= flat.values.data_ptr() and b.requires_grad and b.is_leaf
    for value, target in zip(radiance(*inputs, *mlps), expected, strict=True):
        assert_close(value, target, 1e-6)  # alignment may choose another matrix kernel
    flat.values.zero_()
    assert all(weight.count_nonzero() == 0 for weight in after), "one memory"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_flat_gradients_are_those_that_autograd_would_get(device, dtype):
    """Of a chain and of both networks in one; each backward pass adds to what is there."""
    inputs, mlps = random_networks(SMALL, 6, 7, device, dtype)
    weights = [*mlps[0].weights, *mlps[1].weights]
    of_radiance = results(radiance, inputs, mlps)[4:]
    of_chain = torch.autograd.grad(mlps[0](inputs[0]).float().square().sum(), [inputs[0], *mlps[0].weights])
    flat = FlatWeights(mlps, dtype)
    for passes in (1, 2):
        outputs = radiance(*inputs, *mlps)
        generator = torch.Generator().manual_seed(3)
        incoming = [torch.randn(x.shape, generator=generator).to(device, dtype) for x in outputs]
        torch.autograd.backward(outputs, incoming)
        assert all(weight.grad is None for weight in weights)
        for value, target in zip(flat.gradients_of(weights), of_radiance, strict=True):
            assert value.dtype == dtype
            assert_gradients_close(value, passes * target, 1e-5 if dtype == torch.float32 else 1e-3)
    inputs[0].grad = None
    flat.gradients.zero_()
    mlps[0](inputs[0]).float().square().sum().backward()
    assert_gradients_close(inputs[0].grad, of_chain[0], 1e-5)
    for value, target in zip(flat.gradients_of(mlps[0].weights), of_chain[1:], strict=True):
        assert_gradients_close(value, target, 1e-5 if dtype == torch.float32 else 1e-3)


def test_copies_follow_what_torch_changes(device):
    """A checkpoint that is loaded, or an optimiser of torch's own."""
    inputs, mlps = random_networks(SMALL, 3, 2, device, torch.float16)
    flat = FlatWeights(mlps, torch.float16)
    radiance(*inputs, *mlps)
    with torch.no_grad():
        for weight in mlps[1].weights:
            weight.copy_(torch.full_like(weight, 0.125))
    color = radiance(*inputs, *mlps)[1]
    assert torch.equal(flat.copies, flat.values.half())
    assert_close(color[0], color[1], 1e-6)


def test_other_dtypes_than_the_copies_are_computed_too(device):
    """As where a run trained in float16 is rendered in float32."""
    inputs, mlps = random_networks(SMALL, 3, 2, device, torch.float32)
    expected = radiance(*inputs, *mlps)
    FlatWeights(mlps, torch.float16)
    for value, target in zip(radiance(*inputs, *mlps), expected, strict=True):
        assert_close(value, target, 1e-6)
