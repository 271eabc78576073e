"""How likely pixels are, given the static render, in plain PyTorch.

Letters: N rays, every k-th of which is looked at: N' of them; S samples per ray.
"""

import math

import torch
from torch.nn.functional import softplus

from msth_taichi.reference.composite import composite, truncated_exp


def static_likelihood(
    density_logits: torch.Tensor,
    color_logits: torch.Tensor,
    u_logits: torch.Tensor,
    t_edges: torch.Tensor,
    target: torch.Tensor,
    background: torch.Tensor | None,
    weights: torch.Tensor,
    u_min: float,
    kept: torch.Tensor | None = None,
    tint: torch.Tensor | None = None,
    before: int = 0,
    interval: int = 1,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Value and level (N'*S,); see `msth_taichi.ops.static_likelihood`."""
    t_edges, target, weights = (x[::interval] for x in (t_edges, target, weights.detach()))
    density = truncated_exp(density_logits[before:]).view_as(weights)
    colors = torch.sigmoid(color_logits[:, before:]).reshape(3, *weights.shape)
    seen = composite(density, colors, t_edges, "last_sample" if background is None else background[::interval]).color
    if tint is not None:
        gain, bias = tint.detach()[::interval].split(3, dim=1)
        seen = gain * seen + bias
    excess = softplus(u_logits)
    u = u_min + (weights * excess.view_as(weights)).sum(1)
    terms = (seen - target).square().sum(1) / (2 * u.square()) + u.log()
    if kept is not None:
        terms = terms * kept[::interval]
    level = torch.log1p(excess.detach() / u_min) / -math.log(u_min)
    return terms.sum() / max(len(terms), 1), level.clamp(0, 1)
