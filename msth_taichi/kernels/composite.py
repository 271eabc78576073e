"""Volume rendering along rays, one thread per ray, with adjoints written by hand.

Letters: N rays, S samples per ray; along a ray tau is the optical depth of a bin, w its weight.

The adjoint of w_i = exp(-sum_{j<i} tau_j) (1 - exp(-tau_i)) for weight gradients g is

    d tau_i = T_{i+1} g_i - sum_{j>i} w_j g_j,     T_{i+1} = exp(-sum_{j<=i} tau_j)

Its sum runs from the back, the transmittance from the front. Undoing the front sweep while walking back would
cancel behind opaque bins, so T is parked in the gradient's own storage until it is overwritten.
"""

import math
from functools import cache
from types import SimpleNamespace

import taichi as ti
import torch

from msth_taichi.kernels.cells import real_of
from msth_taichi.kernels.launch import launchers
from msth_taichi.thresholds import MIN_ACCUMULATION, OPAQUE


@cache
def volume_functions(real, taichi_adjoint: bool) -> SimpleNamespace:
    """Device functions for a bin of a ray.

    Taichi 1.7 differentiates exp and tanh by their own result, and in a serial inner loop takes the last
    iteration's: `kernel.grad` is then wrong without a message. `taichi_adjoint` asks for powers, which it
    differentiates by their operands: slower, for tests of the adjoints.
    """

    @ti.func
    def width(t_edges: ti.template(), ray, i):
        return t_edges[ray, i + 1] - t_edges[ray, i]

    @ti.func
    def middle(t_edges: ti.template(), ray, i):
        return 0.5 * (t_edges[ray, i] + t_edges[ray, i + 1])

    @ti.func
    def optical_depth(densities: ti.template(), t_edges: ti.template(), ray, i):
        return ti.min(densities[ray, i] * width(t_edges, ray, i), real(OPAQUE))

    @ti.func
    def passed(tau):
        share = real(0.0)
        if ti.static(taichi_adjoint):
            share = ti.pow(real(math.e), -tau)
        else:
            share = ti.exp(-tau)
        return share

    @ti.func
    def absorbed(tau):
        share = real(0.0)
        if ti.static(taichi_adjoint):
            share = 1 - passed(tau)
        else:
            # 1 - exp(-tau) without its cancellation in thin bins; Taichi has no expm1
            half = ti.tanh(0.5 * tau)
            share = 2 * half / (1 + half)
        return share

    @ti.func
    def park_transmittance(densities: ti.template(), t_edges: ti.template(), ray, storage: ti.template()):
        tau_sum = real(0.0)
        for i in range(densities.shape[1]):
            tau_sum += optical_depth(densities, t_edges, ray, i)
            storage[ray, i] = passed(tau_sum)

    return SimpleNamespace(
        width=width,
        middle=middle,
        optical_depth=optical_depth,
        passed=passed,
        absorbed=absorbed,
        park_transmittance=park_transmittance,
    )


@cache
def composite_kernels(dtype: torch.dtype, last_sample: bool, taichi_adjoint: bool = False) -> SimpleNamespace:
    """Kernels for densities and colours of `dtype`; see `msth_taichi.ops.composite.composite`.

    With `last_sample` the background is the colour of each ray's last sample and the argument is not read.
    """
    real = real_of(dtype)
    volume = volume_functions(real, taichi_adjoint)
    vector = ti.types.ndarray(dtype=real, ndim=1)
    matrix = ti.types.ndarray(dtype=real, ndim=2)
    cube = ti.types.ndarray(dtype=real, ndim=3)

    @ti.func
    def background_of(colors: ti.template(), background: ti.template(), ray):
        color = ti.Vector.zero(real, 3)
        for c in ti.static(range(3)):
            if ti.static(last_sample):
                color[c] = colors[c, ray, colors.shape[2] - 1]
            else:
                color[c] = background[ray, c]
        return color

    @ti.kernel
    def forward(
        densities: matrix,  # (N, S)
        colors: cube,  # (3, N, S)
        t_edges: matrix,  # (N, S+1)
        background: matrix,  # (N, 3), or empty
        color: matrix,  # (N, 3)
        depth: vector,  # (N,)
        depth_median: vector,  # (N,)
        accumulation: vector,  # (N,)
        weights: matrix,  # (N, S)
    ):
        for ray in range(densities.shape[0]):
            tau_sum = real(0.0)
            weight_sum = real(0.0)
            moment = real(0.0)
            median = real(0.0)
            total = ti.Vector.zero(real, 3)
            for i in range(densities.shape[1]):
                tau = volume.optical_depth(densities, t_edges, ray, i)
                middle = volume.middle(t_edges, ray, i)
                w = volume.passed(tau_sum) * volume.absorbed(tau)
                if weight_sum < 0.5:
                    median = middle  # ends at the bin that takes the sum across, or at the last one
                for c in ti.static(range(3)):
                    total[c] += w * colors[c, ray, i]
                moment += w * middle
                weight_sum += w
                weights[ray, i] = w
                tau_sum += tau
            behind = background_of(colors, background, ray)
            for c in ti.static(range(3)):
                color[ray, c] = total[c] + volume.passed(tau_sum) * behind[c]
            depth[ray] = moment / ti.max(weight_sum, real(MIN_ACCUMULATION))
            depth_median[ray] = median
            accumulation[ray] = volume.absorbed(tau_sum)  # the sum of the weights, but never above 1

    @ti.kernel
    def backward(
        densities: matrix,
        colors: cube,
        t_edges: matrix,
        background: matrix,
        depth: vector,
        accumulation: vector,
        weights: matrix,
        color_gradient: matrix,  # (N, 3), of the composited colour
        depth_gradient: vector,  # (N,)
        accumulation_gradient: vector,  # (N,)
        weight_gradient: matrix,  # (N, S)
        density_gradient: matrix,  # (N, S), overwritten
        colors_gradient: cube,  # (3, N, S), overwritten
    ):
        for ray in range(densities.shape[0]):
            samples = densities.shape[1]
            volume.park_transmittance(densities, t_edges, ray, density_gradient)
            transmittance = density_gradient[ray, samples - 1]
            back = background_of(colors, background, ray)
            depth_scale = depth_gradient[ray] / ti.max(accumulation[ray], real(MIN_ACCUMULATION))
            # where the divisor is held at its minimum, a weight moves the numerator alone
            pivot = depth[ray] if accumulation[ray] > real(MIN_ACCUMULATION) else real(0.0)
            behind = real(0.0)
            for k in range(samples):
                i = samples - 1 - k
                w = weights[ray, i]
                slope = weight_gradient[ray, i] + accumulation_gradient[ray]
                slope += depth_scale * (volume.middle(t_edges, ray, i) - pivot)
                for c in ti.static(range(3)):
                    slope += color_gradient[ray, c] * (colors[c, ray, i] - back[c])
                    colors_gradient[c, ray, i] = color_gradient[ray, c] * w
                tau_gradient = density_gradient[ray, i] * slope - behind
                density_gradient[ray, i] = tau_gradient * volume.width(t_edges, ray, i)
                behind += w * slope
            if ti.static(last_sample):
                for c in ti.static(range(3)):
                    colors_gradient[c, ray, samples - 1] += color_gradient[ray, c] * transmittance

    return launchers(forward=forward, backward=backward)
