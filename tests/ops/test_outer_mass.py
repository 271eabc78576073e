"""Bounds of weights from a histogram, against the PyTorch twin and by hand."""

import pytest
import torch

from msth_taichi.errors import TensorError
from msth_taichi.ops.outer_mass import outer_mass
from msth_taichi.reference import outer_mass as twin
from tests.comparison import assert_close


def edges(rays: int, bins: int, device: torch.device, dtype=torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(100 * rays + bins)
    return torch.rand(rays, bins + 1, generator=generator, dtype=dtype).sort(dim=1).values.to(device)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("rays", "bins", "outer"), [(1, 1, 1), (7, 5, 9), (40, 48, 128), (0, 3, 4)])
def test_matches_reference(device, dtype, rays, bins, outer):
    inputs = edges(rays, bins, device, dtype), edges(rays, outer, device, dtype)
    weights = edges(rays, outer - 1, device, dtype)
    assert_close(outer_mass(*inputs, weights), twin.outer_mass(*inputs, weights), 1e-5)


def test_edges_that_meet_do_not_overlap(device):
    quarters = torch.linspace(0, 1, 5, device=device)[None]
    weights = torch.tensor([[0.1, 0.2, 0.3, 0.4]], device=device)
    assert_close(outer_mass(quarters, quarters, weights), weights, 1e-6)
    assert_close(outer_mass(quarters[:, ::2].contiguous(), quarters, weights), weights.view(1, 2, 2).sum(2), 1e-6)


def test_wrong_shapes_are_named(device):
    with pytest.raises(TensorError, match="histogram_s_edges"):
        outer_mass(edges(3, 4, device), edges(3, 5, device), edges(3, 5, device))
