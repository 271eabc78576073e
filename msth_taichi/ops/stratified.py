"""Edges of the first samples along each ray. Letters: N rays, g spacing function, k middle distance."""

from typing import get_args

import torch

from msth_taichi.errors import ConfigError
from msth_taichi.kernels.stratified import stratified_kernels
from msth_taichi.ops.checks import check
from msth_taichi.reference.spacing import Spacing, to_spacing


def check_sampling(count: int, spacing: str, middle: float) -> None:
    """Raise ConfigError unless samples can be spaced so."""
    if count < 1:
        raise ConfigError(f"count = {count}: a ray needs at least 1 sample")
    if spacing not in get_args(Spacing):
        raise ConfigError(f"spacing = '{spacing}': unknown; use {', '.join(get_args(Spacing))}")
    if not middle > 0:
        raise ConfigError(f"middle = {middle}: the middle distance must be positive")


def stratified_samples(
    near: torch.Tensor,
    far: torch.Tensor,
    count: int,
    spacing: Spacing = "piecewise",
    middle: float = 1.0,
    jitter: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Edges of `count` intervals from near to far, evenly spaced in g:

        t = g^-1( s g(far) + (1 - s) g(near) )

        piecewise  g(x) = x / (2k) if x < k else 1 - k / (2x)     linear up to k, then in disparity
        uniform    g(x) = x
        lindisp    g(x) = 1 - 1 / (x + 1)

    One jitter moves all edges of a ray together: each from the centre of the interval before it (0) to the
    centre of the one after it (1), the first and the last within their own interval. Not differentiated.

    Args:
        near: (N,) distance of the first edge, scene units, at least 0; float32 or float64.
        far: (N,) distance of the last edge, same dtype, more than near.
        count: intervals per ray.
        spacing: which g.
        middle: k, scene units; only 'piecewise' reads it.
        jitter: (N,) in [0, 1), same dtype; None for regular edges, which reach near and far exactly.
    Returns:
        s_edges (N, count + 1) in [0, 1] and t_edges (N, count + 1) in [near, far], both increasing.
    Raises:
        TensorError: wrong shape, dtype, device or layout.
        ConfigError: count, spacing or middle out of range.
    Source: mip-NeRF 360 (Barron et al. 2022), section 3; piecewise g of the released MSTH code's sampler.

    Example:
        >>> stratified_samples(torch.zeros(1), torch.full((1,), 8.0), 4, "uniform")[1]
        tensor([[0., 2., 4., 6., 8.]])
    """
    check_sampling(count, spacing, middle)
    check("near", near, (None,))
    check("far", far, (len(near),), near.dtype)
    if jitter is not None:
        check("jitter", jitter, (len(near),), near.dtype)
    s_edges = near.new_empty(len(near), count + 1)
    t_edges = torch.empty_like(s_edges)
    if len(near):
        kernels = stratified_kernels(near.dtype, spacing, jitter is not None)
        offsets = near.new_empty(0) if jitter is None else jitter.detach()
        kernels.forward(near.detach(), far.detach(), offsets, middle, s_edges, t_edges)
    return s_edges, t_edges


def spaced_positions(
    t: torch.Tensor, near: torch.Tensor, far: torch.Tensor, spacing: Spacing = "piecewise", middle: float = 1.0
) -> torch.Tensor:
    """Where in s distances are, the inverse of what `stratified_samples` does:

        s = (g(t) - g(near)) / (g(far) - g(near))

    Args:
        t: (N,) distances, scene units; from `far` on s is 1.
        near: (N,) distance of the first edge.
        far: (N,) distance of the last edge.
        spacing: which g.
        middle: k, scene units.
    Returns:
        (N,) in [0, 1]; -1 before `near`, and on a ray of no length.

    Example:
        >>> spaced_positions(torch.tensor([2.0]), torch.zeros(1), torch.full((1,), 8.0), "uniform")
        tensor([0.2500])
    """
    g, g_near, g_far = (to_spacing(x, spacing, middle) for x in (t, near, far))
    s = ((g - g_near) / (g_far - g_near)).clamp(max=1)
    return torch.where((t >= near) & (far > near), s, -1.0)
