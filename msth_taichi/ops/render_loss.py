"""The losses of a batch of rays, from what the field says of their samples.

Letters: N rays, S samples per ray, B samples of other rays.
"""

from dataclasses import dataclass

import torch
from torch.autograd.function import once_differentiable

from msth_taichi.errors import TensorError
from msth_taichi.kernels.render_loss import render_loss_kernels
from msth_taichi.ops.checks import check

_LOGITS = (torch.float16, torch.float32, torch.float64)


@dataclass(frozen=True)
class RenderLoss:
    """Losses of N rays."""

    total: torch.Tensor
    """Scalar, the sum of the terms; differentiable."""
    terms: torch.Tensor
    """(5,) colour, distortion, sparse, opacity and depth term, weighted; detached."""
    weights: torch.Tensor
    """(N, S) share of each sample in what its ray sees; detached."""
    errors: torch.Tensor
    """(N,) squared difference to each ray's target, mean over channels; detached."""


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
    behind: int = 0,
) -> RenderLoss:
    """Composite rays, compare them with their pixels, and add what keeps the weights together and space empty.

        total = mean |gain C + bias - target|^2 + distortion L_d + sparse mean log(1 + 2 density^2)
              + opacity mean H(sum_i w_i)                                H(p) = -p log p - (1 - p) log(1 - p)
              + depth_weight mean E|s - depth|^2

        density = exp(density_logit),  colour = sigmoid(color_logit),  C = sum_i w_i colour_i + (1 - sum_i w_i) back
        L_d = mean over rays of  sum_ij w_i w_j |m_i - m_j| + 1/3 sum_i w_i^2 (s_{i+1} - s_i)        m bin centres

        E|s - depth|^2 = sum_i w_i (|m_i - depth|^2 + (s_{i+1} - s_i)^2 / 12) + (1 - sum_i w_i) |1 - depth|^2

    with w as in `composite`. The last is how far from a measured surface the ray's light ends: the mean square, and the
    squared Wasserstein distance between the two. What no sample stops counts as ending at s = 1, so that empty rays are
    no way out. A ray whose depth is unknown adds zero to the mean.

    The adjoint is computed in the same launch, so the backward pass only scales it. The gradient of exp is that of
    exp(clamp(logit, -15, 15)); that of the sigmoid also pulls colour logits beyond +-6 back, by 1e-4 of the excess
    times what the ray sees of the sample: a saturated colour would stay what it is.

    Rays stand close together near their camera, and a cell there gets the gradients of all of them. With a full
    distance d, gradients of a sample at t count min(1, (t / d)^2): as much per volume as they would farther away, so
    that other cameras, which see the cell from afar, have their say whether it is empty.

    Args:
        density_logits: (N*S + B,) float16, float32 or float64, ray after ray.
        color_logits: (3, N*S + B) same dtype.
        s_edges: (N, S+1) bin edges in [0, 1], not decreasing along a ray; float64 with float64 logits, else float32.
        t_edges: (N, S+1) bin edges, scene units; dtype of s_edges.
        target: (N, 3) colours; dtype of s_edges.
        background: (N, 3) colours behind the samples; None for the colour of each ray's last sample.
        distortion: weight of L_d.
        sparse: weight of the sparse term.
        kept: (N,) factor of each ray's difference to its target, 0 where a pixel is to be ignored; default 1.
        tint: (N, 6) how each ray's camera changes colours, the gains of three channels and their biases; default 1, 0.
        opacity: weight of the entropy H.
        depth: (N,) position s of the surface that each ray is known to meet, negative where that is unknown; dtype of
            s_edges. `kept` holds for it as for colours.
        depth_weight: weight of the depth term; where it is 0, depth is not read.
        full_distance: d, scene units; 0 counts all gradients in full.
        behind: B, samples of other rays that end the row. They are not read, and their gradient is 0.
    Returns:
        A `RenderLoss`, differentiable once in both logits and in tint.
    Raises:
        TensorError: wrong shape, dtype, device or layout.
    Source: Barron et al. 2022, Mip-NeRF 360, equation 15 (distortion); Hedman et al. 2021, SNeRG (sparse);
        Philip and Deschaintre 2023, Floaters No More (gradients by distance).

    Example:
        >>> loss = render_loss(samples.density_logits, samples.color_logits, s_edges, t_edges, target, None)
        >>> loss.total.backward()
    """
    check("density_logits", density_logits, (None,), _LOGITS)
    real = torch.float64 if density_logits.dtype == torch.float64 else torch.float32
    check("target", target, (None, 3), real)
    rays = len(target)
    count = len(density_logits) - behind
    samples = count // max(rays, 1)
    if samples * rays != count or (rays and not samples):
        raise TensorError(f"density_logits: {count} samples do not divide into {rays} rays evenly")
    check("color_logits", color_logits, (3, len(density_logits)), density_logits.dtype)
    check("s_edges", s_edges, (rays, samples + 1) if rays else (0, None), real)
    check("t_edges", t_edges, tuple(s_edges.shape), real)
    if background is not None:
        check("background", background, (rays, 3), real)
    if kept is not None:
        check("kept", kept, (rays,), real)
    if tint is not None:
        check("tint", tint, (rays, 6), real)
    if depth is not None:
        check("depth", depth, (rays,), real)
    wanted = (density_logits, color_logits) if tint is None else (density_logits, color_logits, tint)
    training = torch.is_grad_enabled() and any(x.requires_grad for x in wanted)
    total, terms, weights, errors = _RenderLoss.apply(
        density_logits,
        color_logits,
        s_edges,
        t_edges,
        target,
        background,
        kept,
        tint,
        depth if depth_weight else None,
        distortion,
        sparse,
        opacity,
        depth_weight,
        full_distance,
        behind,
        training,
    )  # type: ignore[misc]
    return RenderLoss(total, terms, weights, errors)


class _RenderLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, density_logits, color_logits, s_edges, t_edges, target, background, kept, tint, depth, distortion, sparse,
        opacity, depth_weight, full_distance, behind, training: bool,
    ):  # fmt: skip
        rays = len(target)
        samples = s_edges.shape[1] - 1
        weights = target.new_empty(rays, samples)
        terms = target.new_empty(5, rays)
        # passed and front, then the gradients
        scratch = target.new_empty(2, samples, rays if training else 0)
        fresh = torch.zeros_like if behind else torch.empty_like
        density_gradient = fresh(density_logits) if training else density_logits.new_empty(0)
        color_gradient = fresh(color_logits) if training else color_logits.new_empty(3, 0)
        none = target.new_empty(0, 6)
        tint_gradient = torch.empty_like(tint) if training and tint is not None else none
        if rays:
            back = target.new_empty(0, 3) if background is None else background
            empty = target.new_empty(0)
            render_loss_kernels(density_logits.dtype, background is None, depth is not None).both(
                density_logits, color_logits, s_edges, t_edges, target, back,
                empty if kept is None else kept, none if tint is None else tint, empty if depth is None else depth,
                distortion, sparse, opacity, depth_weight, full_distance,
                weights, terms, scratch[0], scratch[1], density_gradient, color_gradient, tint_gradient,
            )  # fmt: skip
        errors, terms = terms[0], terms.sum(1) / max(rays, 1)
        ctx.save_for_backward(density_gradient, color_gradient, tint_gradient)
        ctx.rays = rays
        ctx.mark_non_differentiable(terms, weights, errors)
        return terms.sum(), terms, weights, errors

    @staticmethod
    @once_differentiable
    def backward(ctx, total_gradient, *_):
        # kept per ray: in float16 the mean's gradients would vanish
        scale = total_gradient / max(ctx.rays, 1)
        density_gradient, color_gradient, tint_gradient = ctx.saved_tensors
        of_tint = tint_gradient * scale if ctx.needs_input_grad[7] else None
        return density_gradient * scale, color_gradient * scale, *(None,) * 5, of_tint, *(None,) * 8
