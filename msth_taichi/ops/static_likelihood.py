"""How likely pixels are, given the render of the static table alone.

Letters: N rays, every k-th of which is looked at: N' = ceil(N / k) of them; S samples per ray, B samples of other rays.
"""

import torch
from torch.autograd.function import once_differentiable

from msth_taichi.errors import TensorError
from msth_taichi.kernels.static_likelihood import static_likelihood_kernels
from msth_taichi.ops.checks import check

_LOGITS = (torch.float16, torch.float32, torch.float64)


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
    """Negative log likelihood of pixels under a Gaussian around the static render, up to a constant.

        value = mean over every k-th ray of  kept (|gain C + bias - target|^2 / (2 U^2) + log U)

        density = exp(density_logit),  colour = sigmoid(color_logit),  C composited of both as in `composite`
        u = u_min + softplus(u_logit)                                U = sum_i w_i u_i + (1 - sum_i w_i) u_min
        level = log(u / u_min) / log(1 / u_min), at most 1

    It is least where U^2 = |gain C + bias - target|^2. What shines through the samples is the background, which is the
    same with and without what moves: it has the smallest uncertainty, so that log U is finite. No gradient reaches the
    weights w, or a ray could get surer by looking elsewhere, nor the tint.

    The adjoint is computed in the same launch, so the backward pass only scales it. The gradient of exp is that of
    exp(clamp(logit, -15, 15)). Gradients of a ray's term that are kept in float16 are held within +-8192.

    Args:
        density_logits: (B + N'*S,) of the static render, float16, float32 or float64; those of the N' rays, ray after
            ray, end the row.
        color_logits: (3, B + N'*S) same dtype.
        u_logits: (N'*S,) float64 with float64 logits, else float32.
        t_edges: (N, S+1) bin edges, scene units; dtype of u_logits, as all that follow.
        target: (N, 3) colours.
        background: (N, 3) colours behind the samples; None for the colour of each ray's last sample.
        weights: (N, S) of the samples in the full render.
        u_min: smallest uncertainty, unit of colours, between 0 and 1.
        kept: (N,) factor of each ray's term, 0 where a pixel is to be ignored; default 1.
        tint: (N, 6) how each ray's camera changes colours, the gains of three channels and their biases; default 1, 0.
        before: B, samples of other rays that begin the row. They are not read, and their gradient is 0.
        interval: k; the first ray is looked at.
    Returns:
        value, scalar, 0 of no rays, differentiable once in the three logits; level (N'*S,), detached.
    Raises:
        TensorError: wrong shape, dtype, device or layout; u_min out of range.
    Source: Kendall and Gal 2017, What Uncertainties Do We Need, equation 5.

    Example:
        >>> black, clear = torch.full((3, 1), -40.0), torch.full((1,), -40.0)
        >>> rest = torch.tensor([[0.0, 1.0]]), torch.tensor([[0.1, 0.0, 0.0]]), None, torch.ones(1, 1)
        >>> static_likelihood(clear, black, torch.full((1,), -2.6298), *rest, 0.03)[0]
        tensor(-1.8026)
    """
    check("density_logits", density_logits, (None,), _LOGITS)
    real = torch.float64 if density_logits.dtype == torch.float64 else torch.float32
    check("target", target, (None, 3), real)
    rays = len(target)
    check("weights", weights, (rays, None), real)
    count = -(-rays // interval) * weights.shape[1]
    if rays and not weights.shape[1]:
        raise TensorError(f"weights: expected at least one sample per ray, got shape ({rays}, 0)")
    check("density_logits", density_logits, (before + count,), density_logits.dtype)
    check("color_logits", color_logits, (3, before + count), density_logits.dtype)
    check("u_logits", u_logits, (count,), real)
    check("t_edges", t_edges, (rays, weights.shape[1] + 1), real)
    if background is not None:
        check("background", background, (rays, 3), real)
    if kept is not None:
        check("kept", kept, (rays,), real)
    if tint is not None:
        check("tint", tint, (rays, 6), real)
    if not 0 < u_min < 1:
        raise TensorError(f"u_min: expected a number between 0 and 1, got {u_min}")
    training = torch.is_grad_enabled() and any(x.requires_grad for x in (density_logits, color_logits, u_logits))
    return _StaticLikelihood.apply(
        density_logits, color_logits, u_logits, t_edges, target, background, weights, kept, tint, u_min, before,
        interval, training,
    )  # type: ignore[no-any-return]  # fmt: skip


class _StaticLikelihood(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, density_logits, color_logits, u_logits, t_edges, target, background, weights, kept, tint, u_min, before,
        interval, training: bool,
    ):  # fmt: skip
        rays = -(-len(target) // interval)
        terms, level = target.new_empty(rays), torch.empty_like(u_logits)
        if training:
            # zero where samples are of other rays
            gradients = torch.zeros_like(density_logits), torch.zeros_like(color_logits), torch.empty_like(u_logits)
        else:
            gradients = density_logits[:0], color_logits.new_empty(3, 0), u_logits[:0]
        if rays:
            none, empty = target.new_empty(0, 6), target.new_empty(0)
            static_likelihood_kernels(density_logits.dtype, background is None).both(
                density_logits, color_logits, u_logits, t_edges, target, none if background is None else background,
                weights, empty if kept is None else kept, none if tint is None else tint, u_min, before, interval,
                terms, level, *gradients,
            )  # fmt: skip
        ctx.save_for_backward(*gradients)
        ctx.rays = rays
        ctx.mark_non_differentiable(level)
        return terms.sum() / max(rays, 1), level

    @staticmethod
    @once_differentiable
    def backward(ctx, value_gradient, _):
        # kept per ray: in float16 the mean's gradients would vanish
        scale = value_gradient / max(ctx.rays, 1)
        return *(gradient * scale for gradient in ctx.saved_tensors), *(None,) * 10
