"""Distortion loss in plain PyTorch, over all pairs of samples. Letters: N rays, S samples per ray."""

import torch


def distortion_loss(s_edges: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Mean over rays of sum_ij w_i w_j |m_i - m_j| + 1/3 sum_i w_i^2 ds_i; L_d of `msth_taichi.ops.render_loss`."""
    middles = (s_edges[:, 1:] + s_edges[:, :-1]) / 2
    distances = (middles[:, :, None] - middles[:, None, :]).abs()
    between = torch.einsum("ni,nij,nj->n", weights, distances, weights)
    within = (weights**2 * s_edges.diff(dim=-1)).sum(-1) / 3
    return (between + within).sum() / max(len(weights), 1)
