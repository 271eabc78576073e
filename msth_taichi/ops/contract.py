"""Contraction of unbounded space into the unit cube under torch autograd. Letters: M positions."""

from typing import get_args

import torch
from torch.autograd.function import once_differentiable

from msth_taichi.errors import ConfigError
from msth_taichi.kernels.contract import contract_kernels
from msth_taichi.ops.checks import check
from msth_taichi.reference.contract import Contraction


def check_contraction(kind: str, box: float) -> None:
    """Raise ConfigError unless space can be contracted so."""
    if kind not in get_args(Contraction):
        raise ConfigError(f"contraction = '{kind}': unknown; use {', '.join(get_args(Contraction))}")
    if not box > 0:
        raise ConfigError(f"box = {box}: the half edge must be positive")


class _Contract(torch.autograd.Function):
    @staticmethod
    def forward(ctx, positions, kind: Contraction, box: float):
        positions = positions.detach()
        contracted = torch.empty_like(positions)
        if len(positions):
            contract_kernels(positions.dtype, kind).forward(positions, box, contracted)
        ctx.save_for_backward(positions)
        ctx.kind, ctx.box = kind, box
        return contracted

    @staticmethod
    @once_differentiable
    def backward(ctx, contracted_gradient):
        (positions,) = ctx.saved_tensors
        position_gradient = torch.empty_like(positions)
        if len(positions):
            kernels = contract_kernels(positions.dtype, ctx.kind)
            kernels.backward(positions, ctx.box, contracted_gradient.contiguous(), position_gradient)
        return position_gradient, None, None


def contract(positions: torch.Tensor, kind: Contraction = "inf", box: float = 1.0) -> torch.Tensor:
    """Map all of space into the unit cube, where the grids live:

        y = x if |x| < 1 else (2 - 1/|x|) x/|x|,   result (y + 2) / 4      kind 'inf' (largest axis) or 'l2'
        result (x + box) / (2 box)                                         kind 'none'

    Args:
        positions: (M, 3) scene units, float32 or float64.
        kind: norm |x|, or 'none' for a bounded scene.
        box: half edge of a bounded scene, scene units; only 'none' reads it.
    Returns:
        (M, 3) in [0, 1]; with 'none', positions outside the box lie outside it. Differentiable in positions.
    Raises:
        TensorError: wrong shape, dtype, device or layout.
        ConfigError: unknown kind, or a box that is not positive.
    Source: mip-NeRF 360 (Barron et al. 2022), equation 10; L-inf norm of the released MSTH code.

    Example:
        >>> contract(torch.tensor([[0.0, 0.0, 0.0], [2.0, 0.0, 0.0]]))
        tensor([[0.5000, 0.5000, 0.5000],
                [0.8750, 0.5000, 0.5000]])
    """
    check_contraction(kind, box)
    check("positions", positions, (None, 3))
    return _Contract.apply(positions, kind, box)  # type: ignore[no-any-return]
