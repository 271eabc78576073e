"""What a histogram holds around other bins, in plain PyTorch. Letters: N rays, S bins, P bins of the histogram."""

import torch


def outer_mass(s_edges: torch.Tensor, histogram_s_edges: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """See `msth_taichi.ops.outer_mass`."""
    # inner edges alone: what lies beyond the histogram's ends belongs to its end bins
    inner = histogram_s_edges[:, None, 1:-1]
    first = (inner <= s_edges[:, :-1, None]).sum(-1)
    last = torch.maximum((inner < s_edges[:, 1:, None]).sum(-1), first)
    bins = torch.arange(weights.shape[1], device=weights.device)
    overlaps = (first[:, :, None] <= bins) & (bins <= last[:, :, None])
    return (overlaps * weights[:, None, :]).sum(-1)
