"""Edges drawn from the histogram of weights along each ray. Letters: N rays, S bins."""

import torch

from msth_taichi.errors import ConfigError, TensorError
from msth_taichi.kernels.resample import resample_kernels
from msth_taichi.ops.checks import check
from msth_taichi.ops.stratified import check_sampling
from msth_taichi.reference.spacing import Spacing


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
    """New edges where the weights are, by inverting the cumulative histogram:

        p_i = (w_i^anneal + padding) / sum_j (w_j^anneal + padding)        0^anneal = 0
        u_e = (e + jitter) / n,  e = 0 .. n - 1,  n = count + 1
        s_e = the position at which p, spread evenly within each bin, has cumulated to u_e

    An edge on a boundary belongs to the bin above it; old edges are not kept. Linear time per ray. Not
    differentiated.

    Args:
        s_edges: (N, S + 1) increasing, in [0, 1]; float32 or float64.
        weights: (N, S) at least 0, same dtype.
        near: (N,) distance at s = 0, scene units, same dtype.
        far: (N,) distance at s = 1, scene units, same dtype.
        count: intervals to draw per ray.
        spacing: spacing function of the distance; see `stratified_samples`.
        middle: its middle distance, scene units.
        anneal: exponent of the weights; below 1 flattens them.
        padding: added to each annealed weight, so that no bin is lost for good.
        jitter: (N,) in [0, 1), same dtype; None for 1/2.
    Returns:
        s_edges (N, count + 1) in [0, 1] and t_edges (N, count + 1) in [near, far], both not decreasing.
    Raises:
        TensorError: wrong shape, dtype, device or layout.
        ConfigError: count, spacing, middle, anneal or padding out of range.
    Source: mip-NeRF 360 (Barron et al. 2022), section 3.1 and annealing; padding of the released MSTH code.

    Example:
        >>> edges, weights = torch.linspace(0, 1, 5)[None], torch.tensor([[0.0, 1.0, 0.0, 0.0]])
        >>> resample(edges, weights, torch.zeros(1), torch.ones(1), 3, "uniform", padding=0.0)[0]
        tensor([[0.2812, 0.3438, 0.4062, 0.4688]])
    """
    check("weights", weights, (None, None))
    rays = len(weights)
    _check_histogram(weights, s_edges, near, far, count, spacing, middle, anneal, padding)
    jitter = torch.full_like(near, 0.5) if jitter is None else check("jitter", jitter, (rays,), weights.dtype)
    new_s_edges = weights.new_empty(rays, count + 1)
    new_t_edges = torch.empty_like(new_s_edges)
    if rays:
        inputs = [x.detach() for x in (s_edges, weights, near, far, jitter)]
        kernels = resample_kernels(weights.dtype, spacing)
        kernels.forward(*inputs, middle, anneal, padding, new_s_edges, new_t_edges)
    return new_s_edges, new_t_edges


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
    """`resample` where a proposal's density is, weights and new edges in one launch:

        tau_i = exp(min(logit_i, 30)) (t_{i+1} - t_i)        w_i = exp(-sum_{j<i} tau_j) (1 - exp(-tau_i))

    Args:
        s_edges: (N, S + 1) increasing, in [0, 1]; float32 or float64.
        t_edges: (N, S + 1) distances of the same edges, scene units, same dtype.
        density_logits: (N, S) same dtype.
        near: see `resample`, as all that follows.
        far: see `resample`.
        count: intervals to draw per ray.
        spacing: spacing function of the distance.
        middle: its middle distance, scene units.
        anneal: exponent of the weights.
        padding: added to each annealed weight.
        jitter: (N,) in [0, 1), same dtype; None for 1/2.
    Returns:
        weights (N, S); s_edges and t_edges (N, count + 1). Not differentiated.
    Raises:
        TensorError: wrong shape, dtype, device or layout.
        ConfigError: count, spacing, middle, anneal or padding out of range.

    Example:
        >>> edges = torch.linspace(0, 1, 5)[None]
        >>> logits = torch.tensor([[-1e4, 30.0, 0.0, 0.0]])
        >>> resample_logits(edges, edges, logits, torch.zeros(1), torch.ones(1), 3, "uniform", padding=0.0)[0]
        tensor([[0., 1., 0., 0.]])
    """
    check("density_logits", density_logits, (None, None))
    rays = len(density_logits)
    _check_histogram(density_logits, s_edges, near, far, count, spacing, middle, anneal, padding)
    check("t_edges", t_edges, tuple(s_edges.shape), s_edges.dtype)
    jitter = torch.full_like(near, 0.5) if jitter is None else check("jitter", jitter, (rays,), near.dtype)
    weights = near.new_empty(density_logits.shape)
    new_s_edges = near.new_empty(rays, count + 1)
    new_t_edges = torch.empty_like(new_s_edges)
    if rays:
        resample_kernels(near.dtype, spacing).from_logits(
            s_edges, t_edges, density_logits, near, far, jitter,
            middle, anneal, padding, weights, new_s_edges, new_t_edges,
        )  # fmt: skip
    return weights, new_s_edges, new_t_edges


def _check_histogram(
    values: torch.Tensor,
    s_edges: torch.Tensor,
    near: torch.Tensor,
    far: torch.Tensor,
    count: int,
    spacing: str,
    middle: float,
    anneal: float,
    padding: float,
) -> None:
    check_sampling(count, spacing, middle)
    if anneal < 0 or padding < 0:
        raise ConfigError(f"anneal = {anneal}, padding = {padding}: both must be at least 0")
    rays, bins = values.shape
    if bins == 0:
        raise TensorError("weights: expected at least one bin per ray, got shape (N, 0)")
    check("s_edges", s_edges, (rays, bins + 1), values.dtype)
    check("near", near, (rays,), values.dtype)
    check("far", far, (rays,), values.dtype)
