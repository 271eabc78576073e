"""Single-level mask grid in plain PyTorch. Letters: M samples."""

import torch

from msth_taichi.grids import GridSpec
from msth_taichi.reference.hash_grid import hash_grid


def mask_grid(positions: torch.Tensor, logits: torch.Tensor, spec: GridSpec) -> torch.Tensor:
    """See `msth_taichi.ops.mask_grid`."""
    return torch.sigmoid(hash_grid(positions, logits, spec)[0])
