"""Single-level mask grid in plain PyTorch. Letters: N rays, M samples."""

import torch

from msth_taichi.grids import GridSpec
from msth_taichi.reference.hash_grid import hash_grid
from msth_taichi.thresholds import SATURATED


def mask_grid(
    positions: torch.Tensor, logits: torch.Tensor, spec: GridSpec, times: torch.Tensor | None = None
) -> torch.Tensor:
    """See `msth_taichi.ops.mask_grid`."""
    if spec.axes == 4:
        assert times is not None
        each = times.repeat_interleave(len(positions) // max(len(times), 1))
        positions = torch.cat([positions, each[:, None]], dim=1)
    mask = torch.sigmoid(hash_grid(positions, logits, spec)[0])
    mask = torch.where(mask < SATURATED, 0, mask)
    return torch.where(mask > 1 - SATURATED, 1, mask)
