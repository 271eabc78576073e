"""Distortion loss: against nested loops, the integral that it stands for, and Taichi's own adjoint."""

import pytest
import torch

from msth_taichi.errors import TensorError
from msth_taichi.kernels.distortion import distortion_kernels
from msth_taichi.ops.distortion import distortion_loss
from msth_taichi.reference import distortion as reference
from tests.comparison import assert_close, assert_gradients_close, assert_matches, assert_safe_autograd


def random_rays(device, rays, samples, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    s_edges = torch.rand(rays, samples + 1, generator=generator, dtype=dtype).sort(-1).values
    weights = torch.rand(rays, samples, generator=generator, dtype=dtype).softmax(-1)
    return s_edges.to(device), weights.to(device)


def nested_loops(s_edges, weights):
    total = 0.0
    for edges, row in zip(s_edges.tolist(), weights.tolist(), strict=True):
        for i, a in enumerate(row):
            total += a * a * (edges[i + 1] - edges[i]) / 3
            for j, b in enumerate(row):
                total += a * b * abs(edges[i] + edges[i + 1] - edges[j] - edges[j + 1]) / 2
    return total / len(weights)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("size", [(0, 4), (1, 1), (5, 1), (1, 33), (17, 48)])
def test_matches_reference(device, size, seed, dtype):
    s_edges, weights = random_rays(device, *size, seed, dtype)
    assert_matches(distortion_loss, reference.distortion_loss, [s_edges, weights.requires_grad_()])


@pytest.mark.parametrize("samples", [1, 2, 13])
def test_matches_nested_loops(device, samples):
    s_edges, weights = random_rays(device, 4, samples, dtype=torch.float64)
    expected = nested_loops(s_edges, weights)
    assert distortion_loss(s_edges, weights).item() == pytest.approx(expected, rel=1e-12)
    assert reference.distortion_loss(s_edges, weights).item() == pytest.approx(expected, rel=1e-12)


def test_is_the_mean_distance_of_two_random_points(device):
    # weights that sum to 1 are a probability: two points drawn from it lie E|x - y| apart
    s_edges, weights = random_rays(device, 1, 6, seed=3, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    count = 400_000
    bins = torch.multinomial(weights[0].cpu(), 2 * count, replacement=True, generator=generator)
    within = torch.rand(2 * count, generator=generator, dtype=torch.float64)
    edges = s_edges[0].cpu()
    x, y = (edges[bins] + within * edges.diff()[bins]).reshape(2, count)
    assert distortion_loss(s_edges, weights).item() == pytest.approx((x - y).abs().mean().item(), rel=5e-3)


@pytest.mark.gradcheck
def test_gradcheck(device):
    s_edges, weights = random_rays(device, 3, 5, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda w: distortion_loss(s_edges, w), (weights.requires_grad_(),))


def test_adjoint_equals_taichis_own(device):
    s_edges, weights = random_rays(device, 4, 15, dtype=torch.float64)
    kernels = distortion_kernels(torch.float64)
    inputs = [x.clone().requires_grad_() for x in (s_edges, weights)]
    loss = weights.new_zeros(4).requires_grad_()
    kernels.forward(*inputs, loss)
    incoming = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64, device=device)
    loss.grad = incoming.clone()
    for x in inputs:
        x.grad = torch.zeros_like(x)
    kernels.forward.grad(*inputs, loss)
    ours = torch.empty_like(weights)
    kernels.backward(s_edges, weights, incoming, ours)
    assert_gradients_close(ours, inputs[1].grad, 1e-12)


def test_safe_autograd(device):
    s_edges, weights = random_rays(device, 3, 4)
    assert_safe_autograd(lambda w: distortion_loss(s_edges, w).reshape(1), [weights.requires_grad_()])


def test_one_bin(device):
    s_edges = torch.tensor([[0.2, 0.5]], device=device)
    assert distortion_loss(s_edges, torch.tensor([[0.6]], device=device)).item() == pytest.approx(0.36 * 0.3 / 3)


def test_two_thin_bins_cost_twice_their_distance(device):
    s_edges = torch.tensor([[0.1, 0.1, 0.7, 0.7]], device=device)
    weights = torch.tensor([[0.5, 0.0, 0.5]], device=device)
    assert distortion_loss(s_edges, weights).item() == pytest.approx(2 * 0.25 * 0.6)


def test_splitting_a_bin_changes_nothing(device):
    s_edges, weights = random_rays(device, 5, 7, dtype=torch.float64)
    middles = (s_edges[:, 1:] + s_edges[:, :-1]) / 2
    split_edges = torch.cat([torch.stack([s_edges[:, :-1], middles], -1).flatten(1), s_edges[:, -1:]], -1)
    halves = weights.repeat_interleave(2, -1) / 2
    assert_close(distortion_loss(split_edges, halves), distortion_loss(s_edges, weights), 1e-12)


def test_shift_scale_and_mirror(device):
    s_edges, weights = random_rays(device, 5, 7, dtype=torch.float64)
    loss = distortion_loss(s_edges, weights)
    assert_close(distortion_loss(s_edges * 0.25 + 0.5, weights), loss * 0.25, 1e-12)
    assert_close(distortion_loss((1 - s_edges).flip(-1).contiguous(), weights.flip(-1).contiguous()), loss, 1e-12)
    assert_close(distortion_loss(s_edges, weights * 3), loss * 9, 1e-12)


def test_a_thin_surface_far_out_keeps_its_digits(device):
    # bins of width 1e-5 near s = 1, where m_i sum w - sum w m would lose all but two digits
    s_edges = (0.99 + torch.arange(17) * 1e-5)[None]
    weights = torch.full((1, 16), 1 / 16)
    exact = weights.double().requires_grad_()
    target = reference.distortion_loss(s_edges.double(), exact)
    target.backward()
    ours = weights.to(device).requires_grad_()
    loss = distortion_loss(s_edges.to(device), ours)
    loss.backward()
    assert_close(loss, target, 1e-5)
    assert_gradients_close(ours.grad, exact.grad, 1e-5)


@pytest.mark.parametrize(
    ("edges", "weights", "message"),
    [
        (torch.zeros(2, 4), torch.zeros(2, 4), r"s_edges: expected shape \(2, 5\)"),
        (torch.zeros(2, 5), torch.zeros(2, 4, dtype=torch.int32), "weights: expected float32 or float64"),
        (torch.zeros(2, 5).double(), torch.zeros(2, 4), "s_edges: expected float32, got float64"),
        (torch.zeros(2, 5), torch.zeros(4, 2).T, "weights: not contiguous"),
    ],
)
def test_wrong_tensors_are_named(device, edges, weights, message):
    with pytest.raises(TensorError, match=message):
        distortion_loss(edges.to(device), weights.to(device))
