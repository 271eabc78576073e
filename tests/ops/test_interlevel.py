"""Interlevel loss: against nested loops over bins, and proposals that enclose or miss by a known amount."""

import math

import pytest
import torch

from msth_taichi.errors import TensorError
from msth_taichi.ops.interlevel import interlevel_loss
from msth_taichi.reference import interlevel as reference
from msth_taichi.reference.composite import truncated_exp
from msth_taichi.reference.composite import weights as weights_of
from tests.comparison import assert_close, assert_gradients_close, assert_matches, assert_safe_autograd


def random_rows(rays, bins, generator, dtype):
    edges = torch.rand(rays, bins + 1, generator=generator, dtype=dtype).sort(-1).values
    if bins > 1:
        edges[:, 0], edges[:, -1] = 0, 1
    weights = torch.randn(rays, bins, generator=generator, dtype=dtype).mul(2).softmax(-1)
    return edges, weights


def random_levels(device, rays, samples, bins, seed=0, dtype=torch.float32):
    """Edges and weights of the field, then both edges and the density logits of a proposal."""
    generator = torch.Generator().manual_seed(seed)
    field, proposal = (random_rows(rays, n, generator, dtype) for n in (samples, bins))
    logits = torch.randn(rays, bins, generator=generator, dtype=dtype) * 2
    return [x.to(device) for x in (*field, proposal[0], proposal[0] * 3 + 0.1, logits)]


def loss_of(s_edges, weights, proposal_s_edges, proposal_t_edges, logits):
    """The operator, with the weights that `resample_logits` would hand to it."""
    found = weights_of(truncated_exp(logits.detach().to(weights.dtype)), proposal_t_edges)
    return interlevel_loss(s_edges, weights, proposal_s_edges, proposal_t_edges, logits, found)


def reference_loss(s_edges, weights, proposal_s_edges, proposal_t_edges, logits):
    """From the logits on, in plain PyTorch."""
    found = weights_of(truncated_exp(logits), proposal_t_edges)
    return reference.interlevel_loss(s_edges, weights, proposal_s_edges, found)


def loss_of_weights(s_edges, weights, proposal_s_edges, proposal_weights):
    """Value alone, for weights of any size: what the logits are does not matter to it."""
    logits = torch.zeros_like(proposal_weights)
    return interlevel_loss(s_edges, weights, proposal_s_edges, proposal_s_edges, logits, proposal_weights)


def nested_loops(s_edges, weights, proposal_s_edges, proposal_weights):
    total = 0.0
    for ray in range(len(weights)):
        fine, coarse = s_edges[ray].tolist(), proposal_s_edges[ray].tolist()
        for i, w in enumerate(weights[ray].tolist()):
            bound = 0.0
            for j, p in enumerate(proposal_weights[ray].tolist()):
                if coarse[j] < fine[i + 1] and fine[i] < coarse[j + 1]:
                    bound += p
            total += max(0.0, w - bound) ** 2 / (w + 1e-7)
    return total / weights.numel()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("size", [(0, 4, 3), (1, 1, 1), (5, 1, 7), (3, 7, 1), (17, 48, 129), (9, 33, 8)])
def test_matches_reference(device, size, seed, dtype):
    levels = random_levels(device, *size, seed, dtype)
    levels[4].requires_grad_()
    assert_matches(loss_of, reference_loss, levels, 2e-5)


@pytest.mark.parametrize("size", [(4, 5, 9), (4, 9, 5), (4, 2, 2)])
def test_matches_nested_loops(device, size):
    *levels, _, logits = random_levels(device, *size, dtype=torch.float64)
    levels.append(logits.softmax(-1))
    expected = nested_loops(*levels)
    assert expected > 1e-3
    assert loss_of_weights(*levels).item() == pytest.approx(expected, rel=1e-12)
    assert reference.interlevel_loss(*levels).item() == pytest.approx(expected, rel=1e-12)


def test_matches_nested_loops_on_shared_edges(device):
    # edges on a lattice: bins touch, coincide and have no width, in all combinations
    generator = torch.Generator().manual_seed(2)
    s_edges = torch.randint(0, 5, (300, 4), generator=generator).double().sort(-1).values / 4
    proposal_s_edges = torch.randint(0, 5, (300, 6), generator=generator).double().sort(-1).values / 4
    proposal_s_edges[:, 0], proposal_s_edges[:, -1] = 0, 1
    proposal_weights = torch.rand(300, 5, generator=generator, dtype=torch.float64) / 5
    # bins without width have no weight, and then cost nothing whatever they overlap
    weights = (s_edges.diff(dim=-1) > 0).double() * torch.rand(300, 3, generator=generator, dtype=torch.float64)
    levels = [x.to(device) for x in (s_edges, weights, proposal_s_edges, proposal_weights)]
    assert loss_of_weights(*levels).item() == pytest.approx(nested_loops(*levels), rel=1e-12)
    logits = proposal_weights.log().to(device).requires_grad_()
    assert_matches(loss_of, reference_loss, [*levels[:3], levels[2] * 2, logits], 1e-12, 1e-12)


@pytest.mark.gradcheck
def test_gradcheck(device):
    *constants, logits = random_levels(device, 3, 6, 5, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: loss_of(*constants, x), (logits.requires_grad_(),))


def test_safe_autograd(device):
    *constants, logits = random_levels(device, 3, 6, 5)
    assert_safe_autograd(lambda x: loss_of(*constants, x).reshape(1), [logits.requires_grad_()])


def test_the_field_is_not_taught(device):
    *edges, logits = random_levels(device, 3, 6, 5)
    edges[1].requires_grad_()
    loss = loss_of(*edges, logits.requires_grad_())
    loss.backward()
    assert edges[1].grad is None
    assert logits.grad is not None and logits.grad.min() < 0


def test_without_gradients_none_are_made(device):
    levels = random_levels(device, 3, 6, 5)
    assert not loss_of(*levels).requires_grad
    levels[4].requires_grad_()
    with torch.no_grad():
        assert not loss_of(*levels).requires_grad


def test_float16_logits_keep_small_gradients(device):
    """Of 16,384 rays each has a share of 6e-5 in the mean: gradients survive because they are kept per ray."""
    *constants, logits = random_levels(device, 2048, 8, 16)
    half = logits.half().requires_grad_()
    exact = half.detach().float().requires_grad_()
    for leaf in (half, exact):
        (loss_of(*constants, leaf) * 2048).backward()
    assert half.grad.dtype == torch.float16
    assert_gradients_close(half.grad, exact.grad, 1e-3)


@pytest.mark.parametrize("logit", [-1e4, -40.0, 40.0, 1e4])
def test_extremes_stay_finite(device, logit):
    *constants, logits = random_levels(device, 3, 6, 5)
    logits = torch.full_like(logits, logit).requires_grad_()
    loss = loss_of(*constants, logits)
    loss.backward()
    assert loss.isfinite() and logits.grad.isfinite().all()


@pytest.mark.parametrize("samples", [1, 4, 32])
def test_zero_where_the_proposal_encloses(device, samples):
    s_edges, weights, *_ = random_levels(device, 6, samples, 1)
    for edges, proposal in [
        (s_edges, weights),  # the field itself
        (
            torch.tensor([[0.0, 1.0]], device=device).repeat(6, 1),
            weights.sum(-1, keepdim=True),
        ),  # one bin for all
        (s_edges, weights * 1.5),
    ]:
        logits = torch.zeros_like(proposal).requires_grad_()
        loss = interlevel_loss(s_edges, weights, edges, edges, logits, proposal)
        loss.backward()
        assert loss.item() < 1e-12
        assert logits.grad.abs().max() < 1e-5


def test_by_hand(device):
    s_edges = torch.tensor([[0.0, 0.5, 1.0]], device=device)
    proposal_s_edges = torch.tensor([[0.0, 0.25, 0.75, 1.0]], device=device)
    weights = torch.tensor([[0.8, 0.2]], device=device)
    proposal_weights = torch.tensor([[0.1, 0.3, 0.6]], device=device)
    # the first bin overlaps two proposals, 0.8 - (0.1 + 0.3) = 0.4; the second is enclosed
    loss = loss_of_weights(s_edges, weights, proposal_s_edges, proposal_weights)
    assert loss.item() == pytest.approx(0.4**2 / 0.8 / 2, rel=1e-5)


def test_gradient_by_hand(device):
    """Two proposal bins of optical depth a and b under one final bin of weight 1: 1 - W = exp(-(a + b))."""
    a, b = 0.3, 0.5
    edges, t_edges = torch.tensor([[0.0, 1.0]], device=device), torch.tensor([[0.0, 2.0, 6.0]], device=device)
    logits = torch.tensor([[math.log(a / 2), math.log(b / 4)]], device=device, requires_grad=True)
    proposal_s_edges = torch.tensor([[0.0, 0.4, 1.0]], device=device)
    loss = loss_of(edges, torch.ones(1, 1, device=device), proposal_s_edges, t_edges, logits)
    loss.backward()
    left = math.exp(-(a + b))
    assert loss.item() == pytest.approx(left**2, rel=1e-5)
    assert_close(logits.grad, torch.tensor([[-2 * left**2 * a, -2 * left**2 * b]]), 1e-5)


def test_bins_beyond_the_proposal_and_bins_without_width(device):
    proposal_s_edges = torch.tensor([[0.4, 0.5, 0.6]], device=device)
    proposal_weights = torch.tensor([[0.3, 0.7]], device=device)
    for edges, bound in [
        ([0.1, 0.2], 0.3),  # before the proposal: its first bin
        ([0.8, 0.9], 0.7),  # behind: its last
        ([0.45, 0.45], 0.3),
        ([0.5, 0.5], 0.7),
        ([0.0, 1.0], 1.0),
    ]:
        s_edges, weights = torch.tensor([edges], device=device), torch.tensor([[2.0]], device=device)
        loss = loss_of_weights(s_edges, weights, proposal_s_edges, proposal_weights)
        assert loss.item() == pytest.approx((2 - bound) ** 2 / 2, rel=1e-5)


def test_no_weights_no_loss(device):
    s_edges, weights, *proposal, logits = random_levels(device, 2, 3, 4)
    empty = torch.full_like(logits, -1e4).requires_grad_()
    loss = loss_of(s_edges, torch.zeros_like(weights), *proposal, empty)
    loss.backward()
    assert loss == 0 and (empty.grad == 0).all()


@pytest.mark.parametrize(
    ("position", "change", "message"),
    [
        (0, lambda x: x[:, 1:].contiguous(), r"s_edges: expected shape \(3, 6\)"),
        (1, lambda x: x.half(), "weights: expected float32, got float16"),
        (2, lambda x: x.double(), "proposal_s_edges: expected float32, got float64"),
        (3, lambda x: x[:, :3].contiguous(), r"proposal_t_edges: expected shape \(3, 5\)"),
        (4, lambda x: x.int(), "density_logits: expected float16 or float32 or float64, got int32"),
        (4, lambda x: x[:2], r"weights: expected shape \(2, any\)"),
        (4, lambda x: x[:, :0], "at least one bin"),
        (4, lambda x: x.T.contiguous().T, "density_logits: not contiguous"),
        (5, lambda x: x[:, :3].contiguous(), r"proposal_weights: expected shape \(3, 4\)"),
    ],
)
def test_wrong_tensors_are_named(device, position, change, message):
    levels = random_levels(device, 3, 5, 4)
    levels.append(torch.zeros_like(levels[4]))
    levels[position] = change(levels[position])
    with pytest.raises(TensorError, match=message):
        interlevel_loss(*levels)
