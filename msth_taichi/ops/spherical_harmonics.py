"""Real spherical harmonics of four bands under torch autograd. Letters: N directions."""

import torch
from torch.autograd.function import once_differentiable

from msth_taichi.kernels.spherical_harmonics import spherical_harmonics_kernels
from msth_taichi.ops.checks import check


class _SphericalHarmonics(torch.autograd.Function):
    @staticmethod
    def forward(ctx, directions):
        directions = directions.detach()
        out = directions.new_empty(16, len(directions))
        if len(directions):
            spherical_harmonics_kernels(directions.dtype).forward(directions, out)
        ctx.save_for_backward(directions)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, out_gradient):
        (directions,) = ctx.saved_tensors
        direction_gradient = torch.empty_like(directions)
        if len(directions):
            kernels = spherical_harmonics_kernels(directions.dtype)
            kernels.backward(directions, out_gradient.contiguous(), direction_gradient)
        return direction_gradient


def spherical_harmonics(directions: torch.Tensor) -> torch.Tensor:
    """The 16 real spherical harmonics Y_l^m of the bands l = 0 .. 3, orthonormal over the sphere.

    Row l^2 + l + m holds Y_l^m with the Condon-Shortley sign (-1)^m, as in Instant-NGP: rows 1 to 3 are
    proportional to -y, z, -x. The gradient is that of the polynomials in x, y, z, not projected.

    Args:
        directions: (N, 3) unit vectors, float32 or float64.
    Returns:
        (16, N), feature-major. Differentiable in directions.
    Raises:
        TensorError: wrong shape, dtype, device or layout.
    Source: order and signs of tiny-cuda-nn's SphericalHarmonics encoding, which takes (d + 1) / 2 instead.

    Example:
        >>> spherical_harmonics(torch.tensor([[0.0, 0.0, 1.0]]))[:4, 0]
        tensor([0.2821, -0.0000, 0.4886, -0.0000])
    """
    check("directions", directions, (None, 3))
    return _SphericalHarmonics.apply(directions)  # type: ignore[no-any-return]
