"""Distortion loss under torch autograd. Letters: N rays, S samples per ray."""

import torch
from torch.autograd.function import once_differentiable

from msth_taichi.kernels.distortion import distortion_kernels
from msth_taichi.ops.checks import check


def distortion_loss(s_edges: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """How far the weights of a ray lie apart: zero where one thin bin holds all of it.

        mean over rays of  sum_ij w_i w_j |m_i - m_j| + 1/3 sum_i w_i^2 (s_{i+1} - s_i)         m bin centres

    It is the integral of w(x) w(y) |x - y| over all pairs of points, for weights spread evenly in their bins.

    Args:
        s_edges: (N, S+1) float32 or float64 edges in [0, 1], not decreasing along a ray. Not differentiated.
        weights: (N, S) at least 0, same dtype.
    Returns:
        A scalar; 0 for no rays. Differentiable once, in weights.
    Raises:
        TensorError: wrong shape, dtype, device or layout.
    Source: Barron et al. 2022, Mip-NeRF 360, equation 15.

    Example:
        >>> distortion_loss(torch.tensor([[0.0, 0.2, 1.0]]), torch.tensor([[0.5, 0.5]]))
        tensor(0.3333)
    """
    check("weights", weights, (None, None))
    rays, samples = weights.shape
    check("s_edges", s_edges, (rays, samples + 1), weights.dtype)
    return _RayDistortion.apply(s_edges, weights).sum() / max(rays, 1)


class _RayDistortion(torch.autograd.Function):
    @staticmethod
    def forward(ctx, s_edges, weights):
        s_edges, weights = s_edges.detach(), weights.detach()
        loss = weights.new_empty(len(weights))
        if len(weights):
            distortion_kernels(weights.dtype).forward(s_edges, weights, loss)
        ctx.save_for_backward(s_edges, weights)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx, loss_gradient):
        s_edges, weights = ctx.saved_tensors
        gradient = torch.empty_like(weights)
        if len(weights):
            incoming = loss_gradient.detach().contiguous()
            distortion_kernels(weights.dtype).backward(s_edges, weights, incoming, gradient)
        return None, gradient
