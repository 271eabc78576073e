"""Contraction of unbounded space into the unit cube, and back, in plain PyTorch. Letters: M positions."""

from typing import Literal

import torch

Contraction = Literal["inf", "l2", "none"]


def _radius(x: torch.Tensor, kind: Contraction) -> torch.Tensor:
    """max(1, |x|) of each row; where several axes are largest, the first one takes the gradient."""
    if kind == "l2":
        radius = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    else:
        radius = x.abs().gather(1, x.abs().argmax(dim=1, keepdim=True))
    return radius.clamp(min=1)


def contract(positions: torch.Tensor, kind: Contraction = "inf", box: float = 1.0) -> torch.Tensor:
    """See `msth_taichi.ops.contract`."""
    if kind == "none":
        return (positions + box) / (2 * box)
    radius = _radius(positions, kind)
    return (positions * ((2 - 1 / radius) / radius) + 2) / 4


def uncontract(contracted: torch.Tensor, kind: Contraction = "inf", box: float = 1.0) -> torch.Tensor:
    """The positions (M, 3) that `contract` maps to `contracted` (M, 3), which lies inside (0, 1)^3."""
    if kind == "none":
        return contracted * (2 * box) - box
    y = contracted * 4 - 2
    radius = _radius(y, kind)
    return y / (radius * (2 - radius))
