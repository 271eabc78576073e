"""Masked space-time encoding in plain PyTorch. Letters: N rays, M samples, L levels, F features."""

import torch

from msth_taichi.grids import GridSpec
from msth_taichi.reference.hash_grid import hash_grid
from msth_taichi.reference.mask_grid import mask_grid


def masked_encoding(
    positions: torch.Tensor,
    times: torch.Tensor,
    mask_logits: torch.Tensor,
    static_table: torch.Tensor,
    dynamic_table: torch.Tensor,
    mask_spec: GridSpec,
    static_spec: GridSpec,
    dynamic_spec: GridSpec,
    blend: str = "mst",
    static_from: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """See `msth_taichi.ops.masked_encoding`."""
    mask = mask_grid(positions, mask_logits, mask_spec, times)
    if static_from is not None:
        mask = torch.cat([mask[:static_from], torch.ones_like(mask[static_from:])])
    static = hash_grid(positions, static_table, static_spec)
    if blend == "static":
        return static, mask
    sample_times = times.repeat_interleave(len(positions) // max(len(times), 1))
    dynamic = hash_grid(torch.cat([positions, sample_times[:, None]], dim=1), dynamic_table, dynamic_spec)
    if blend == "mst":
        return mask * static + (1 - mask) * dynamic, mask
    if blend == "mt":
        return static + (1 - mask) * dynamic, mask
    return static + dynamic, mask
