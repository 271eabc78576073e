"""Volume rendering along rays in plain PyTorch. Letters: N rays, S samples per ray."""

from dataclasses import dataclass
from typing import Literal

import torch

from msth_taichi.thresholds import MAX_GRADIENT_LOGIT, MAX_LOGIT, MIN_ACCUMULATION, OPAQUE

Background = Literal["last_sample"] | torch.Tensor | None


@dataclass(frozen=True)
class Composite:
    """What a ray sees."""

    color: torch.Tensor
    """(N, 3) in [0, 1] if the sample colours and the background are."""
    depth: torch.Tensor
    """(N,) expected distance; 0 where the ray meets nothing."""
    depth_median: torch.Tensor
    """(N,) distance at which half of the light is absorbed; the last sample's where that never happens."""
    accumulation: torch.Tensor
    """(N,) opacity of the ray in [0, 1]."""
    weights: torch.Tensor
    """(N, S) share of each sample."""


def truncated_exp(x: torch.Tensor) -> torch.Tensor:
    """exp(min(x, 30)) with the gradient of exp(clamp(x, -15, 15))."""
    slope = torch.exp(x.detach().clamp(-MAX_GRADIENT_LOGIT, MAX_GRADIENT_LOGIT))
    value = torch.exp(x.detach().clamp(max=MAX_LOGIT))
    return value + slope * (x - x.detach())


def _optical_depth(densities: torch.Tensor, t_edges: torch.Tensor) -> torch.Tensor:
    return (densities * t_edges.diff(dim=-1)).clamp(max=OPAQUE)


def _sums_before(x: torch.Tensor) -> torch.Tensor:
    return torch.cat([torch.zeros_like(x[:, :1]), x.cumsum(-1)[:, :-1]], dim=-1)


def weights(densities: torch.Tensor, t_edges: torch.Tensor) -> torch.Tensor:
    """See `msth_taichi.ops.composite`."""
    tau = _optical_depth(densities, t_edges)
    return torch.exp(-_sums_before(tau)) * -torch.expm1(-tau)


def composite(
    densities: torch.Tensor, colors: torch.Tensor, t_edges: torch.Tensor, background: Background
) -> Composite:
    """See `msth_taichi.ops.composite`."""
    w = weights(densities, t_edges)
    middles = (t_edges[:, 1:] + t_edges[:, :-1]) / 2
    tau_sum = _optical_depth(densities, t_edges).sum(-1)
    if background is None:
        behind = torch.zeros_like(colors[:, :, -1]).T
    else:
        behind = background if isinstance(background, torch.Tensor) else colors[:, :, -1].T
    crossing = (_sums_before(w) < 0.5).sum(-1, keepdim=True) - 1
    return Composite(
        color=torch.einsum("ns,cns->nc", w, colors) + torch.exp(-tau_sum)[:, None] * behind,
        depth=(w * middles).sum(-1) / w.sum(-1).clamp(min=MIN_ACCUMULATION),
        depth_median=middles.gather(-1, crossing)[:, 0],
        accumulation=-torch.expm1(-tau_sum),
        weights=w,
    )
