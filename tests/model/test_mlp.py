"""The small networks against their written-out products, and the density activation."""

import torch

from msth_taichi.model.mlp import MLP, truncated_exp
from tests.comparison import assert_close, assert_gradients_close


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
