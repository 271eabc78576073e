"""Distortion loss of each ray in linear time, one thread per ray, and its adjoint.

Letters: N rays, S samples per ray; w weights, m bin centres.

The double sum is 2 sum_i w_i d_i with d_i = sum_{j<i} w_j (m_i - m_j). Walking along the ray, d grows by the
weight passed so far times the step: only positive terms, where m_i sum w_j - sum w_j m_j would cancel for
close samples. The adjoint needs d from both ends; the front one is parked in the gradient's own storage.
"""

from functools import cache
from types import SimpleNamespace

import taichi as ti
import torch

from msth_taichi.kernels.cells import real_of


@cache
def distortion_kernels(dtype: torch.dtype) -> SimpleNamespace:
    """Kernels for weights of `dtype`; see `msth_taichi.ops.distortion`."""
    real = real_of(dtype)
    vector = ti.types.ndarray(dtype=real, ndim=1)
    matrix = ti.types.ndarray(dtype=real, ndim=2)

    @ti.kernel
    def forward(
        s_edges: matrix,  # (N, S+1)
        weights: matrix,  # (N, S)
        loss: vector,  # (N,)
    ):
        for ray in range(weights.shape[0]):
            passed = real(0.0)
            distance = real(0.0)
            total = real(0.0)
            for i in range(weights.shape[1]):
                w = weights[ray, i]
                width = s_edges[ray, i + 1] - s_edges[ray, i]
                # from the last centre to this one in two steps: half of that bin, then half of this
                distance += 0.5 * width * passed
                total += w * (2 * distance + w * width / 3)
                passed += w
                distance += 0.5 * width * passed
            loss[ray] = total

    @ti.kernel
    def backward(
        s_edges: matrix,
        weights: matrix,
        loss_gradient: vector,  # (N,)
        weight_gradient: matrix,  # (N, S), overwritten
    ):
        for ray in range(weights.shape[0]):
            passed = real(0.0)
            distance = real(0.0)
            for i in range(weights.shape[1]):
                w = weights[ray, i]
                width = s_edges[ray, i + 1] - s_edges[ray, i]
                distance += 0.5 * width * passed
                weight_gradient[ray, i] = distance
                passed += w
                distance += 0.5 * width * passed
            passed = real(0.0)
            distance = real(0.0)
            for k in range(weights.shape[1]):
                i = weights.shape[1] - 1 - k
                w = weights[ray, i]
                width = s_edges[ray, i + 1] - s_edges[ray, i]
                distance += 0.5 * width * passed
                slope = 2 * (weight_gradient[ray, i] + distance + w * width / 3)
                weight_gradient[ray, i] = loss_gradient[ray] * slope
                passed += w
                distance += 0.5 * width * passed

    return SimpleNamespace(forward=forward, backward=backward)
