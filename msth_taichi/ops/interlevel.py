"""Interlevel loss under torch autograd. Letters: N rays, S final bins, P proposal bins."""

import torch
from torch.autograd.function import once_differentiable

from msth_taichi.errors import TensorError
from msth_taichi.kernels.interlevel import interlevel_kernels
from msth_taichi.ops.checks import check


def interlevel_loss(
    s_edges: torch.Tensor,
    weights: torch.Tensor,
    proposal_s_edges: torch.Tensor,
    proposal_weights: torch.Tensor,
) -> torch.Tensor:
    """How much of the field's weights the proposal's weights fail to enclose.

        mean over rays and final bins of  max(0, w_i - W_i)^2 / (w_i + 1e-7)

    W_i is the sum of the proposal weights whose bins share more than an edge with final bin i. A final bin
    without width counts the proposal bin it lies in, at an edge the one behind; beyond the proposal's ends,
    its end bins count.

    Args:
        s_edges: (N, S+1) float32 or float64 edges of the final bins in [0, 1], not decreasing along a ray.
        weights: (N, S) at least 0, same dtype; constants of this loss, as it teaches the proposal alone.
        proposal_s_edges: (N, P+1) as s_edges; P at least 1.
        proposal_weights: (N, P) at least 0, same dtype.
    Returns:
        A scalar; 0 for no rays. Differentiable once, in proposal_weights.
    Raises:
        TensorError: wrong shape, dtype, device or layout.
    Source: Barron et al. 2022, Mip-NeRF 360, equation 13.

    Example:
        >>> edges = torch.tensor([[0.0, 0.5, 1.0]])
        >>> interlevel_loss(edges, torch.tensor([[0.0, 0.8]]), edges, torch.tensor([[0.6, 0.4]]))
        tensor(0.1000)
    """
    check("weights", weights, (None, None))
    rays, samples = weights.shape
    check("s_edges", s_edges, (rays, samples + 1), weights.dtype)
    check("proposal_weights", proposal_weights, (rays, None), weights.dtype)
    bins = proposal_weights.shape[1]
    if bins == 0:
        raise TensorError(f"proposal_weights: expected at least one bin per ray, got shape ({rays}, 0)")
    check("proposal_s_edges", proposal_s_edges, (rays, bins + 1), weights.dtype)
    per_ray = _RayInterlevel.apply(s_edges, weights, proposal_s_edges, proposal_weights)
    return per_ray.sum() / max(rays * samples, 1)


class _RayInterlevel(torch.autograd.Function):
    @staticmethod
    def forward(ctx, s_edges, weights, proposal_s_edges, proposal_weights):
        inputs = [x.detach() for x in (s_edges, weights, proposal_s_edges, proposal_weights)]
        loss = weights.new_empty(len(weights))
        if len(weights):
            interlevel_kernels(weights.dtype).forward(*inputs, loss)
        ctx.save_for_backward(*inputs)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx, loss_gradient):
        saved = ctx.saved_tensors
        gradient = torch.zeros_like(saved[-1])
        if len(gradient):
            incoming = loss_gradient.detach().contiguous()
            interlevel_kernels(gradient.dtype).backward(*saved, incoming, gradient)
        return None, None, None, gradient
