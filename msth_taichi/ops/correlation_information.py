"""What mask and uncertainty tell of each other by their correlation.

Letters: N rays, every k-th of which is looked at: N' = ceil(N / k) of them; S samples per ray, M samples of a mask.
"""

import torch
from torch.autograd.function import once_differentiable

from msth_taichi.errors import TensorError
from msth_taichi.kernels.correlation_information import MOMENTS, correlation_information_kernels
from msth_taichi.ops.checks import FLOATS, check


def correlation_information(
    mask: torch.Tensor,
    level: torch.Tensor,
    weights: torch.Tensor,
    kept: torch.Tensor | None = None,
    interval: int = 1,
) -> torch.Tensor:
    """Mutual information of mask and level if they were Gaussian, with a sign, over what every k-th ray sees.

        J = 1/2 log (1 - r) / (1 + r) = -1/2 log(1 - r^2) + log(1 - r)            r = 0.999 correlation

    The first summand is the mutual information, which does not tell a relation from its reverse and whose gradient is
    gone at r = 0. The second, at most log 2, breaks the tie: J grows as r falls, with a slope of at least 1.

    Each sample counts as much as its ray sees of it; where nothing is seen, all count alike. The correlation is 0 where
    mask or level is the same everywhere. The mask's gradient is computed with the value, so the backward pass only
    scales it; level and weights take none.

    Args:
        mask: (M,) float32 or float64, any unit; the first N*S are those of the rays, ray after ray. The others are not
            read, and their gradient is 0.
        level: (N'*S,) same dtype, any unit.
        weights: (N, S) same dtype, at least 0.
        kept: (N,) factor of each ray's weights, at least 0, same dtype; default 1.
        interval: k; the first ray is looked at.
    Returns:
        Scalar, 0 of fewer than two samples; differentiable once in the mask.
    Raises:
        TensorError: wrong shape, dtype, device or layout.
    Source: Fisher 1915: J is his z, reversed.

    Example:
        >>> correlation_information(torch.tensor([0.0, 0.5, 1.0]), torch.tensor([0.9, 0.5, 0.1]), torch.ones(3, 1))
        tensor(3.7964)
    """
    check("mask", mask, (None,), FLOATS)
    check("weights", weights, (None, None), mask.dtype)
    rays, samples = weights.shape
    if len(mask) < rays * samples:
        raise TensorError(f"mask: {len(mask)} samples are too few for {rays} rays of {samples}")
    check("level", level, (-(-rays // interval) * samples,), mask.dtype)
    if kept is not None:
        check("kept", kept, (rays,), mask.dtype)
    training = torch.is_grad_enabled() and mask.requires_grad
    return _CorrelationInformation.apply(mask, level, weights, kept, interval, training)  # type: ignore[no-any-return]


class _CorrelationInformation(torch.autograd.Function):
    @staticmethod
    def forward(ctx, mask, level, weights, kept, interval, training: bool):
        gradient = torch.zeros_like(mask if training else mask[:0])
        value = mask.new_zeros(1)
        if len(level):
            kernels = correlation_information_kernels(mask.dtype)
            inputs = mask, level, weights, mask[:0] if kept is None else kept, interval
            by_ray = mask.new_empty(MOMENTS, -(-len(weights) // interval), dtype=torch.float64)
            kernels.moments(*inputs, by_ray)
            kernels.information(*inputs, by_ray.sum(1), value, gradient)
        ctx.save_for_backward(gradient)
        return value.squeeze()

    @staticmethod
    @once_differentiable
    def backward(ctx, value_gradient):
        (gradient,) = ctx.saved_tensors
        return gradient * value_gradient, None, None, None, None, None
