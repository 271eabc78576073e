"""What mask and uncertainty tell of each other by their correlation, and the mask's gradient.

Sums of each ray first, and from the sum of those what a sample's gradient is: nothing is added in an order of chance.

Letters: N rays, every k-th of which is looked at: N' of them; S samples per ray, M samples of a mask.
"""

from functools import cache
from types import SimpleNamespace

import taichi as ti
import torch

from msth_taichi.kernels.cells import real_of
from msth_taichi.kernels.launch import launchers
from msth_taichi.thresholds import LEAST_VARIANCE, MOST_CORRELATION

MOMENTS = 6
"""Sums over samples of their weight, and of it times mask, level, mask^2, level^2 and mask * level."""

_TINY = torch.finfo(torch.float32).tiny  # of each sample's weight: where all are 0, all samples count alike


@cache
def correlation_information_kernels(dtype: torch.dtype) -> SimpleNamespace:
    """Kernels for masks of `dtype`; see `msth_taichi.ops.correlation_information`.

    Moments are float64: variances are the small differences of large sums.
    """
    real = real_of(dtype)
    vector = ti.types.ndarray(dtype=real, ndim=1)
    matrix = ti.types.ndarray(dtype=real, ndim=2)
    sums = ti.types.vector(MOMENTS, ti.f64)

    @ti.func
    def weight_of(weights: ti.template(), kept: ti.template(), ray, i):
        weight = ti.cast(weights[ray, i], ti.f64)
        if kept.shape[0] > 0:
            weight *= kept[ray]
        return weight + ti.f64(_TINY)

    @ti.kernel
    def moments(
        mask: vector,  # (M,), M at least N*S
        level: vector,  # (N'*S,)
        weights: matrix,  # (N, S)
        kept: vector,  # (N,) factor of each ray's weights, or empty for 1
        interval: ti.i32,  # k
        by_ray: ti.types.ndarray(dtype=ti.f64, ndim=2),  # (6, N')
    ):
        for row in range(by_ray.shape[1]):
            ray = row * interval
            total = sums(0)
            for i in range(weights.shape[1]):
                m = ti.cast(mask[ray * weights.shape[1] + i], ti.f64)
                u = ti.cast(level[row * weights.shape[1] + i], ti.f64)
                total += weight_of(weights, kept, ray, i) * sums(1.0, m, u, m * m, u * u, m * u)
            for j in ti.static(range(MOMENTS)):
                by_ray[j, row] = total[j]

    @ti.kernel
    def information(
        mask: vector,
        level: vector,
        weights: matrix,
        kept: vector,
        interval: ti.i32,
        moments: ti.types.ndarray(dtype=ti.f64, ndim=1),  # (6,) over all rays
        value: vector,  # (1,)
        mask_gradient: vector,  # (M,), zero on entry; or empty where it is not wanted
    ):
        for sample in range(level.shape[0]):
            row = sample // weights.shape[1]
            i = sample % weights.shape[1]
            whole = moments[0]
            m_mean = moments[1] / whole
            u_mean = moments[2] / whole
            m_variance = ti.max(moments[3] / whole - m_mean * m_mean, 0.0) + ti.f64(LEAST_VARIANCE)
            u_variance = ti.max(moments[4] / whole - u_mean * u_mean, 0.0) + ti.f64(LEAST_VARIANCE)
            scale = 1 / ti.sqrt(m_variance * u_variance)
            correlation = (moments[5] / whole - m_mean * u_mean) * scale
            r = ti.f64(MOST_CORRELATION) * correlation
            if sample == 0:
                value[0] = ti.cast(0.5 * ti.log((1 - r) / (1 + r)), real)
            if mask_gradient.shape[0] > 0:
                k = row * interval * weights.shape[1] + i
                slope = (level[sample] - u_mean) * scale - correlation * (mask[k] - m_mean) / m_variance
                share = weight_of(weights, kept, row * interval, i) / whole
                mask_gradient[k] = ti.cast(-ti.f64(MOST_CORRELATION) / (1 - r * r) * share * slope, real)

    return launchers(moments=moments, information=information)
