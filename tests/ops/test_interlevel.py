"""Interlevel loss: against nested loops over bins, and proposals that enclose or miss by a known amount."""

import pytest
import torch

from msth_taichi.errors import TensorError
from msth_taichi.ops.interlevel import interlevel_loss
from msth_taichi.reference import interlevel as reference
from tests.comparison import assert_close, assert_matches, assert_safe_autograd


def random_rows(rays, bins, generator, dtype):
    edges = torch.rand(rays, bins + 1, generator=generator, dtype=dtype).sort(-1).values
    if bins > 1:
        edges[:, 0], edges[:, -1] = 0, 1
    weights = torch.randn(rays, bins, generator=generator, dtype=dtype).mul(2).softmax(-1)
    return edges, weights


def random_levels(device, rays, samples, bins, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    rows = [*random_rows(rays, samples, generator, dtype), *random_rows(rays, bins, generator, dtype)]
    return [x.to(device) for x in rows]


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
    levels[3].requires_grad_()
    assert_matches(interlevel_loss, reference.interlevel_loss, levels, 2e-5)


@pytest.mark.parametrize("size", [(4, 5, 9), (4, 9, 5), (4, 2, 2)])
def test_matches_nested_loops(device, size):
    levels = random_levels(device, *size, dtype=torch.float64)
    expected = nested_loops(*levels)
    assert expected > 1e-3
    assert interlevel_loss(*levels).item() == pytest.approx(expected, rel=1e-12)
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
    assert interlevel_loss(*levels).item() == pytest.approx(nested_loops(*levels), rel=1e-12)
    levels[3].requires_grad_()
    assert_matches(interlevel_loss, reference.interlevel_loss, levels, 1e-12, 1e-12)


@pytest.mark.gradcheck
def test_gradcheck(device):
    *constants, proposal_weights = random_levels(device, 3, 6, 5, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda p: interlevel_loss(*constants, p), (proposal_weights.requires_grad_(),))


def test_safe_autograd(device):
    *constants, proposal_weights = random_levels(device, 3, 6, 5)
    assert_safe_autograd(lambda p: interlevel_loss(*constants, p).reshape(1), [proposal_weights.requires_grad_()])


def test_the_field_is_not_taught(device):
    s_edges, weights, proposal_s_edges, proposal_weights = random_levels(device, 3, 6, 5)
    weights.requires_grad_()
    interlevel_loss(s_edges, weights, proposal_s_edges, proposal_weights.requires_grad_()).backward()
    assert weights.grad is None
    assert (proposal_weights.grad <= 0).all() and proposal_weights.grad.min() < 0


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
        proposal = proposal.clone().requires_grad_()
        loss = interlevel_loss(s_edges, weights, edges, proposal)
        loss.backward()
        assert loss.item() < 1e-12
        assert proposal.grad.abs().max() < 1e-5


def test_by_hand(device):
    s_edges = torch.tensor([[0.0, 0.5, 1.0]], device=device)
    proposal_s_edges = torch.tensor([[0.0, 0.25, 0.75, 1.0]], device=device)
    weights = torch.tensor([[0.8, 0.2]], device=device)
    proposal_weights = torch.tensor([[0.1, 0.3, 0.6]], device=device).requires_grad_()
    loss = interlevel_loss(s_edges, weights, proposal_s_edges, proposal_weights)
    loss.backward()
    # the first bin overlaps two proposals, 0.8 - (0.1 + 0.3) = 0.4; the second is enclosed
    assert loss.item() == pytest.approx(0.4**2 / 0.8 / 2, rel=1e-5)
    assert_close(proposal_weights.grad, torch.tensor([[-0.5, -0.5, 0.0]]), 1e-5)


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
        loss = interlevel_loss(s_edges, weights, proposal_s_edges, proposal_weights)
        assert loss.item() == pytest.approx((2 - bound) ** 2 / 2, rel=1e-5)


def test_no_weights_no_loss(device):
    s_edges, weights, proposal_s_edges, proposal_weights = random_levels(device, 2, 3, 4)
    proposal_weights = torch.zeros_like(proposal_weights).requires_grad_()
    loss = interlevel_loss(s_edges, torch.zeros_like(weights), proposal_s_edges, proposal_weights)
    loss.backward()
    assert loss == 0 and (proposal_weights.grad == 0).all()


@pytest.mark.parametrize(
    ("position", "change", "message"),
    [
        (0, lambda x: x[:, 1:].contiguous(), r"s_edges: expected shape \(3, 6\)"),
        (1, lambda x: x.half(), "weights: expected float32 or float64"),
        (2, lambda x: x.double(), "proposal_s_edges: expected float32, got float64"),
        (3, lambda x: x[:2], r"proposal_weights: expected shape \(3, any\)"),
        (3, lambda x: x[:, :0], "at least one bin"),
        (3, lambda x: x.T.contiguous().T, "proposal_weights: not contiguous"),
    ],
)
def test_wrong_tensors_are_named(device, position, change, message):
    levels = random_levels(device, 3, 5, 4)
    levels[position] = change(levels[position])
    with pytest.raises(TensorError, match=message):
        interlevel_loss(*levels)
