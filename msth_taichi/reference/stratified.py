"""Edges of the first samples along each ray in plain PyTorch. Letters: N rays."""

import torch

from msth_taichi.reference.spacing import Spacing, distances


def stratified_samples(
    near: torch.Tensor,
    far: torch.Tensor,
    count: int,
    spacing: Spacing = "piecewise",
    middle: float = 1.0,
    jitter: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """See `msth_taichi.ops.stratified`."""
    edges = torch.linspace(0, 1, count + 1, dtype=torch.float64, device=near.device).expand(len(near), -1)
    if jitter is not None:
        centres = (edges[:, 1:] + edges[:, :-1]) / 2
        lower = torch.cat([edges[:, :1], centres], dim=1)
        upper = torch.cat([centres, edges[:, -1:]], dim=1)
        edges = lower + (upper - lower) * jitter[:, None]
    s_edges = edges.to(near.dtype)
    return s_edges, distances(s_edges, near, far, spacing, middle)
