"""Samples of rays that are rendered, in plain PyTorch. Letters: N rays, P bins of a proposal, S bins of the field."""

import math

import torch

from msth_taichi.reference.composite import truncated_exp, weights
from msth_taichi.reference.proposal_density import proposal_density
from msth_taichi.reference.resample import resample
from msth_taichi.reference.sample_positions import sample_positions
from msth_taichi.reference.spacing import Spacing
from msth_taichi.thresholds import EMPTY_LOGIT


def marched_density(
    origins: torch.Tensor,
    directions: torch.Tensor,
    times: torch.Tensor,
    t_edges: torch.Tensor,
    *field: object,
    occupied: torch.Tensor | None = None,
    darkness: float = math.inf,
) -> torch.Tensor:
    """See `msth_taichi.ops.marching`; `field` as there, without copies, and `occupied` is (C, C, C) bool."""
    edges = t_edges.T.contiguous()
    logits = proposal_density(origins, directions, times, edges, *field)  # type: ignore[arg-type]
    if occupied is not None:
        kind, box = field[-2:]
        places = sample_positions(origins, directions, edges, kind, box)  # type: ignore[arg-type]
        cell = (places * len(occupied)).long().clamp(0, len(occupied) - 1)
        logits = torch.where(occupied[tuple(cell.T)].view_as(logits), logits, EMPTY_LOGIT)
    depth = truncated_exp(logits) * edges.diff(dim=1)
    return torch.where(depth.cumsum(1) - depth < darkness, logits, EMPTY_LOGIT).T


def redraw(
    s_edges: torch.Tensor,
    t_edges: torch.Tensor,
    density_logits: torch.Tensor,
    near: torch.Tensor,
    far: torch.Tensor,
    count: int,
    spacing: Spacing = "piecewise",
    middle: float = 1.0,
    padding: float = 0.01,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """See `msth_taichi.ops.marching`."""
    s_edges = s_edges.T.contiguous()
    found = weights(truncated_exp(density_logits.T), t_edges.T)
    new_s_edges, new_t_edges = resample(s_edges, found, near, far, count, spacing, middle, 1.0, padding)
    # inner edges alone: an edge at the end of a ray lies in the last bin
    inside = torch.searchsorted(s_edges[:, 1:-1].contiguous(), new_s_edges, right=True)
    bins = torch.arange(found.shape[1], device=found.device)
    overlaps = (inside[:, :-1, None] <= bins) & (bins <= inside[:, 1:, None])
    mass = (overlaps * found[:, None, :]).sum(-1)
    return new_s_edges.T, new_t_edges.T, mass.T


def pack(
    t_edges: torch.Tensor, mass: torch.Tensor, least: float, keep_last: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """See `msth_taichi.ops.marching`."""
    keep = mass > least
    if keep_last:
        keep[-1] = True
    order = (~keep).byte().argsort(dim=0, stable=True)  # those to keep first
    kept = keep.gather(0, order)
    middles, widths = (t_edges[1:] + t_edges[:-1]) / 2, t_edges.diff(dim=0)
    middles, widths = (torch.where(kept, values.gather(0, order), 0) for values in (middles, widths))
    return middles, widths, keep.sum(0, dtype=torch.int32)
