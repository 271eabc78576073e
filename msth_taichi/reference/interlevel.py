"""Interlevel loss in plain PyTorch, over all pairs. Letters: N rays, S final bins, P proposal bins."""

import torch

from msth_taichi.thresholds import INTERLEVEL_EPSILON


def interlevel_loss(
    s_edges: torch.Tensor,
    weights: torch.Tensor,
    proposal_s_edges: torch.Tensor,
    proposal_weights: torch.Tensor,
) -> torch.Tensor:
    """See `msth_taichi.ops.interlevel`."""
    weights = weights.detach()
    # inner edges alone: what lies beyond the proposal's ends belongs to its end bins
    inner = proposal_s_edges[:, None, 1:-1]  # (N, 1, P-1)
    first = (inner <= s_edges[:, :-1, None]).sum(-1)  # (N, S)
    last = torch.maximum((inner < s_edges[:, 1:, None]).sum(-1), first)
    bins = torch.arange(proposal_weights.shape[1], device=weights.device)
    overlaps = (first[:, :, None] <= bins) & (bins <= last[:, :, None])  # (N, S, P)
    bounds = (overlaps * proposal_weights[:, None, :]).sum(-1)
    terms = (weights - bounds).clamp(min=0) ** 2 / (weights + INTERLEVEL_EPSILON)
    return terms.sum() / max(weights.numel(), 1)
