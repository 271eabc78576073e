"""Where the samples of rays lie in the grids, under torch autograd. Letters: N rays, S samples per ray, M = N*S."""

import torch
from torch.autograd.function import once_differentiable

from msth_taichi.kernels.sample_positions import sample_positions_kernels
from msth_taichi.ops.checks import check
from msth_taichi.ops.contract import check_contraction
from msth_taichi.reference.contract import Contraction


class _SamplePositions(torch.autograd.Function):
    @staticmethod
    def forward(ctx, origins, directions, t_edges, kind: Contraction, box: float):
        origins, directions, t_edges = origins.detach(), directions.detach(), t_edges.detach()
        samples = t_edges.shape[1] - 1
        positions = origins.new_empty(len(origins) * samples, 3)
        if len(positions):
            sample_positions_kernels(origins.dtype, kind).forward(origins, directions, t_edges, box, positions)
        ctx.save_for_backward(origins, directions, t_edges)
        ctx.kind, ctx.box = kind, box
        return positions

    @staticmethod
    @once_differentiable
    def backward(ctx, position_gradient):
        origins, directions, t_edges = (t.detach() for t in ctx.saved_tensors)
        origin_gradient, direction_gradient = torch.zeros_like(origins), torch.zeros_like(directions)
        if len(position_gradient):
            sample_positions_kernels(origins.dtype, ctx.kind).backward(
                origins, directions, t_edges, ctx.box, position_gradient.contiguous(), origin_gradient,
                direction_gradient,
            )  # fmt: skip
        return origin_gradient, direction_gradient, None, None, None


def sample_positions(
    origins: torch.Tensor,
    directions: torch.Tensor,
    t_edges: torch.Tensor,
    kind: Contraction = "inf",
    box: float = 1.0,
) -> torch.Tensor:
    """Grid positions of the bins' middles along rays: contract(o + d (t_i + t_{i+1}) / 2), see `contract`.

    Args:
        origins: (N, 3) scene units, float32 or float64.
        directions: (N, 3) unit, same dtype.
        t_edges: (N, S+1) distances, scene units, same dtype. Not differentiated.
        kind: contraction, 'inf', 'l2' or 'none'.
        box: half edge of a bounded scene, scene units; only 'none' reads it.
    Returns:
        (N*S, 3), ray after ray. Differentiable in origins and directions.
    Raises:
        TensorError: wrong shape, dtype, device or layout.
        ConfigError: unknown kind, or a box that is not positive.

    Example:
        >>> edges = torch.tensor([[1.0, 3.0]])
        >>> sample_positions(torch.zeros(1, 3), torch.tensor([[1.0, 0.0, 0.0]]), edges)
        tensor([[0.8750, 0.5000, 0.5000]])
    """
    check_contraction(kind, box)
    check("origins", origins, (None, 3))
    check("directions", directions, (len(origins), 3), origins.dtype)
    check("t_edges", t_edges, (len(origins), None), origins.dtype)
    return _SamplePositions.apply(origins, directions, t_edges, kind, box)  # type: ignore[no-any-return]
