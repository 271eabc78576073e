"""Edges drawn from the histogram of weights along each ray in plain PyTorch. Letters: N rays, S bins."""

import torch

from msth_taichi.reference.composite import truncated_exp, weights
from msth_taichi.reference.spacing import Spacing, distances


@torch.no_grad()
def resample(
    s_edges: torch.Tensor,
    weights: torch.Tensor,
    near: torch.Tensor,
    far: torch.Tensor,
    count: int,
    spacing: Spacing = "piecewise",
    middle: float = 1.0,
    anneal: float = 1.0,
    padding: float = 0.01,
    jitter: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """See `msth_taichi.ops.resample`."""
    mass = torch.where(weights > 0, weights**anneal, 0) + padding
    mass = mass + (1e-5 - mass.sum(1, keepdim=True)).clamp(min=0) / mass.shape[1]
    pdf = mass / mass.sum(1, keepdim=True)
    cdf = torch.nn.functional.pad(pdf.cumsum(1), (1, 0)).clamp(max=1)

    edges = count + 1
    u = torch.linspace(0, 1 - 1 / edges, edges, dtype=weights.dtype, device=weights.device).expand(len(near), -1)
    u = u + (0.5 if jitter is None else jitter[:, None]) / edges

    above = torch.searchsorted(cdf, u, right=True).clamp(1, weights.shape[1])
    below = above - 1
    low, high = cdf.gather(1, below), cdf.gather(1, above)
    fraction = ((u - low) / (high - low)).nan_to_num(0).clamp(0, 1)
    start, end = s_edges.gather(1, below), s_edges.gather(1, above)
    new_s_edges = start + fraction * (end - start)
    return new_s_edges, distances(new_s_edges, near, far, spacing, middle)


@torch.no_grad()
def resample_logits(
    s_edges: torch.Tensor,
    t_edges: torch.Tensor,
    density_logits: torch.Tensor,
    near: torch.Tensor,
    far: torch.Tensor,
    count: int,
    spacing: Spacing = "piecewise",
    middle: float = 1.0,
    anneal: float = 1.0,
    padding: float = 0.01,
    jitter: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """See `msth_taichi.ops.resample`."""
    found = weights(truncated_exp(density_logits), t_edges)
    return found, *resample(s_edges, found, near, far, count, spacing, middle, anneal, padding, jitter)
