"""Interlevel loss under torch autograd. Letters: N rays, S final bins, P proposal bins."""

import torch
from torch.autograd.function import once_differentiable

from msth_taichi.errors import TensorError
from msth_taichi.kernels.interlevel import interlevel_kernels
from msth_taichi.ops.checks import check

_LOGITS = (torch.float16, torch.float32, torch.float64)


def interlevel_loss(
    s_edges: torch.Tensor,
    weights: torch.Tensor,
    proposal_s_edges: torch.Tensor,
    proposal_t_edges: torch.Tensor,
    density_logits: torch.Tensor,
    proposal_weights: torch.Tensor,
) -> torch.Tensor:
    """How much of the field's weights the proposal's weights fail to enclose.

        mean over rays and final bins of  max(0, w_i - W_i)^2 / (w_i + 1e-7)

    W_i is the sum of the proposal weights whose bins share more than an edge with final bin i. A final bin
    without width counts the proposal bin it lies in, at an edge the one behind; beyond the proposal's ends,
    its end bins count. The adjoint is computed in the same launch, so the backward pass only scales it.

    Args:
        s_edges: (N, S+1) edges of the final bins in [0, 1], not decreasing along a ray; float64 with float64
            logits, else float32, as all but the logits.
        weights: (N, S) at least 0; constants of this loss, as it teaches the proposal alone.
        proposal_s_edges: (N, P+1) as s_edges; P at least 1.
        proposal_t_edges: (N, P+1) distances of the same edges, scene units.
        density_logits: (N, P) of the proposal; float16, float32 or float64.
        proposal_weights: (N, P) what `resample_logits` makes of them.
    Returns:
        A scalar; 0 for no rays. Differentiable once, in density_logits.
    Raises:
        TensorError: wrong shape, dtype, device or layout.
    Source: Barron et al. 2022, Mip-NeRF 360, equation 13.

    Example:
        >>> edges, weights = torch.tensor([[0.0, 0.5, 1.0]]), torch.tensor([[0.6, 0.4]])
        >>> logits = torch.tensor([[0.6, 4.0]])
        >>> interlevel_loss(edges, torch.tensor([[0.0, 0.8]]), edges, edges, logits, weights)
        tensor(0.1000)
    """
    check("density_logits", density_logits, (None, None), _LOGITS)
    real = torch.float64 if density_logits.dtype == torch.float64 else torch.float32
    rays, bins = density_logits.shape
    check("weights", weights, (rays, None), real)
    samples = weights.shape[1]
    if samples == 0 or bins == 0:
        raise TensorError(f"weights, density_logits: expected at least one bin per ray, got {samples} and {bins}")
    check("s_edges", s_edges, (rays, samples + 1), real)
    check("proposal_s_edges", proposal_s_edges, (rays, bins + 1), real)
    check("proposal_t_edges", proposal_t_edges, (rays, bins + 1), real)
    check("proposal_weights", proposal_weights, (rays, bins), real)
    inputs = (s_edges, weights, proposal_s_edges, proposal_t_edges, density_logits, proposal_weights)
    return _Interlevel.apply(*inputs, torch.is_grad_enabled() and density_logits.requires_grad)  # type: ignore[no-any-return]


class _Interlevel(torch.autograd.Function):
    @staticmethod
    def forward(ctx, s_edges, weights, proposal_s_edges, proposal_t_edges, density_logits, proposal_weights, training):
        inputs = [
            x.detach() for x in (s_edges, weights, proposal_s_edges, proposal_t_edges, density_logits, proposal_weights)
        ]
        rays, bins = density_logits.shape
        loss = weights.new_empty(rays)
        slopes, passed = weights.new_empty(2, bins, rays if training else 0)
        gradient = density_logits.new_empty(slopes.shape[1], bins)
        if rays:
            interlevel_kernels(density_logits.dtype).both(*inputs, loss, slopes, passed, gradient)
        ctx.save_for_backward(gradient)
        return loss.sum() / max(rays, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx, loss_gradient):
        (gradient,) = ctx.saved_tensors
        # kept per ray: in float16 the mean's gradients would vanish
        return None, None, None, None, gradient * (loss_gradient / max(len(gradient), 1)), None, None
