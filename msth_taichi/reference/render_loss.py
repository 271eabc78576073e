"""The losses of a batch of rays in plain PyTorch. Letters: N rays, S samples per ray."""

import torch

from msth_taichi.reference.composite import composite, truncated_exp
from msth_taichi.reference.distortion import distortion_loss
from msth_taichi.thresholds import CLEAR, COLOR_LIMIT, COLOR_PULL, OPAQUE


def render_loss(
    density_logits: torch.Tensor,
    color_logits: torch.Tensor,
    s_edges: torch.Tensor,
    t_edges: torch.Tensor,
    target: torch.Tensor,
    background: torch.Tensor | None,
    distortion: float = 0.0,
    sparse: float = 0.0,
    kept: torch.Tensor | None = None,
    tint: torch.Tensor | None = None,
    opacity: float = 0.0,
    depth: torch.Tensor | None = None,
    depth_weight: float = 0.0,
    full_distance: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Total, terms (5,) and weights (N, S); see `msth_taichi.ops.render_loss`."""
    rays, samples = s_edges.shape[0], s_edges.shape[1] - 1
    if full_distance:
        reach = ((t_edges[:, 1:] + t_edges[:, :-1]) / 2 / full_distance).clamp(max=1).square().flatten()
        density_logits, color_logits = (_with_gradient(x, reach) for x in (density_logits, color_logits))
    density = truncated_exp(density_logits).view(rays, samples)
    colors = torch.sigmoid(color_logits).view(3, rays, samples)
    out = composite(density, colors, t_edges, "last_sample" if background is None else background)
    seen = out.color if tint is None else tint[:, :3] * out.color + tint[:, 3:]
    share = torch.ones_like(target[:, 0]) if kept is None else kept
    error = (seen - target) * share[:, None]
    passed = torch.exp(-(density * t_edges.diff(dim=1)).clamp(max=OPAQUE).sum(1))
    clear = passed.clamp(CLEAR, 1 - CLEAR)
    surface = torch.full_like(share, -1) if depth is None else depth
    middles, widths = (s_edges[:, 1:] + s_edges[:, :-1]) / 2, s_edges.diff(dim=1)
    misses = (middles - surface[:, None]).square() + widths.square() / 12
    moment = (out.weights * misses).sum(1) + passed * (1 - surface).square()
    terms = torch.stack(
        [
            error.square().sum() / (3 * max(rays, 1)),
            distortion * distortion_loss(s_edges, out.weights),
            sparse * torch.log1p(2 * density.square()).sum() / max(density.numel(), 1),
            opacity * torch.special.entr(torch.stack([clear, 1 - clear])).sum() / max(rays, 1),
            depth_weight * torch.where(surface >= 0, share.square() * moment, 0).sum() / max(rays, 1),
        ]
    )
    return terms.sum() + _pull(color_logits, out.weights, passed, background is None), terms, out.weights


def _pull(color_logits: torch.Tensor, weights: torch.Tensor, passed: torch.Tensor, last_sample: bool) -> torch.Tensor:
    """Zero, with the gradient that brings colours back which no gradient of the sigmoid would."""
    share = weights.detach().clone()
    if last_sample:
        share[:, -1:] += passed.detach()[:, None]
    logits = color_logits.view(3, *weights.shape)
    excess = logits - logits.clamp(-COLOR_LIMIT, COLOR_LIMIT)
    pull = COLOR_PULL / 2 * (share * excess.square()).sum() / max(len(weights), 1)
    return pull - pull.detach()


def _with_gradient(values: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """The same values, whose gradients count as much as `share`."""
    return values * share + (values * (1 - share)).detach()
