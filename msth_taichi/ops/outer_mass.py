"""What a histogram along a ray holds around other bins. Letters: N rays, S bins, P bins of the histogram."""

import torch

from msth_taichi.kernels.outer_mass import outer_mass_kernels
from msth_taichi.ops.checks import check


def outer_mass(s_edges: torch.Tensor, histogram_s_edges: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """The most weight that each bin can have, if the histogram holds all of it:

        mass_i = sum of weights_j over all j that overlap bin i

    A bin that ends on an edge of the histogram does not overlap what lies behind the edge. Not differentiated.

    Args:
        s_edges: (N, S+1) edges of the bins, not decreasing along a ray; float32 or float64.
        histogram_s_edges: (N, P+1) edges of the histogram, same dtype.
        weights: (N, P) its weights, same dtype.
    Returns:
        (N, S).
    Raises:
        TensorError: wrong shape, dtype, device or layout.
    Source: Barron et al. 2022, Mip-NeRF 360, equation 12.

    Example:
        >>> halves = torch.tensor([[0.0, 0.5, 1.0]])
        >>> outer_mass(torch.tensor([[0.0, 0.25, 0.75, 1.0]]), halves, torch.tensor([[0.1, 0.9]]))
        tensor([[0.1000, 1.0000, 0.9000]])
    """
    check("weights", weights, (None, None))
    rays, bins = weights.shape
    check("s_edges", s_edges, (rays, None), weights.dtype)
    check("histogram_s_edges", histogram_s_edges, (rays, bins + 1), weights.dtype)
    mass = weights.new_empty(rays, s_edges.shape[1] - 1)
    if mass.numel():
        outer_mass_kernels(weights.dtype).forward(s_edges, histogram_s_edges, weights, mass)
    return mass
