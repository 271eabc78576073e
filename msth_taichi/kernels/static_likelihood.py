"""From the logits of samples of the static render to how likely its pixels are, and the gradients, in one launch.

Two sweeps of one thread per ray, as in `render_loss`: from the front colour and uncertainty, from the back the
gradients.

Letters: N rays, every k-th of which is looked at: N' of them; S samples per ray, B samples of other rays; along a ray
tau is the optical depth of a bin, T the transmittance, U the uncertainty of what it sees.
"""

from functools import cache
from types import SimpleNamespace

import taichi as ti
import torch

from msth_taichi.kernels.cells import TAICHI_DTYPE, real_of
from msth_taichi.kernels.launch import launchers
from msth_taichi.kernels.logits import logit_functions

# Gradients grow with 1 / U^2: with u_min = 0.03 they stay below some 2500, with a smaller one they could leave float16.
# Held here, they stay finite when the backward pass quadruples them.
_LARGEST_HALF = 2.0**13


@cache
def static_likelihood_kernels(dtype: torch.dtype, last_sample: bool) -> SimpleNamespace:
    """Kernels for logits of `dtype`; see `msth_taichi.ops.static_likelihood`.

    With `last_sample` the background is the colour of each ray's last sample and the argument is not read.
    """
    real = real_of(dtype)
    stored = TAICHI_DTYPE[dtype]
    volume = logit_functions(real)
    vector = ti.types.ndarray(dtype=real, ndim=1)
    matrix = ti.types.ndarray(dtype=real, ndim=2)
    stored_vector = ti.types.ndarray(dtype=stored, ndim=1)
    stored_matrix = ti.types.ndarray(dtype=stored, ndim=2)
    vec3 = ti.types.vector(3, real)

    @ti.func
    def softplus(logit):
        # no exponent is above 0
        return ti.max(logit, real(0.0)) + ti.log(1 + ti.exp(-ti.abs(logit)))

    @ti.func
    def storable(gradient):
        held = gradient
        if ti.static(stored == ti.f16):
            held = ti.min(ti.max(gradient, -real(_LARGEST_HALF)), real(_LARGEST_HALF))
        return ti.cast(held, stored)

    @ti.kernel
    def both(
        density_logits: stored_vector,  # (B + N'*S,)
        color_logits: stored_matrix,  # (3, B + N'*S)
        u_logits: vector,  # (N'*S,)
        t_edges: matrix,  # (N, S+1)
        target: matrix,  # (N, 3)
        background: matrix,  # (N, 3), or empty
        weights: matrix,  # (N, S) of the full render
        kept: vector,  # (N,) factor of each ray's term, or empty for 1
        tint: matrix,  # (N, 6) gain and bias of each channel, or empty for 1 and 0
        u_min: real,
        before: ti.i32,  # B
        interval: ti.i32,  # k
        terms: vector,  # (N',)
        level: vector,  # (N'*S,)
        density_gradient: stored_vector,  # (B + N'*S,), of the sum of the terms; or empty where none is wanted
        color_gradient: stored_matrix,  # (3, B + N'*S), or empty
        u_gradient: vector,  # (N'*S,), or empty
    ):
        for row in range(terms.shape[0]):
            ray = row * interval
            samples = weights.shape[1]
            tau_sum = real(0.0)
            transmitted = real(1.0)
            color = vec3(0)
            last = vec3(0)
            unsure = u_min
            for i in range(samples):
                own = row * samples + i
                tau = volume.optical_depth(
                    ti.cast(density_logits[before + own], real), t_edges[ray, i + 1] - t_edges[ray, i]
                )
                last = volume.color(color_logits, before + own)
                color += transmitted * volume.absorbed(tau) * last
                tau_sum += tau
                transmitted = ti.exp(-tau_sum)
                excess = softplus(u_logits[own])
                unsure += weights[ray, i] * excess
                level[own] = ti.min(ti.log(1 + excess / u_min) / -ti.log(u_min), real(1.0))
                if u_gradient.shape[0] > 0:
                    u_gradient[own] = transmitted  # parked until it is overwritten
            back = last
            if ti.static(not last_sample):
                back = vec3(background[ray, 0], background[ray, 1], background[ray, 2])
            color += transmitted * back
            gain = vec3(1)
            error = color - vec3(target[ray, 0], target[ray, 1], target[ray, 2])
            if tint.shape[0] > 0:
                gain = vec3(tint[ray, 0], tint[ray, 1], tint[ray, 2])
                error += (gain - 1) * color + vec3(tint[ray, 3], tint[ray, 4], tint[ray, 5])
            share = real(1.0)
            if kept.shape[0] > 0:
                share = kept[ray]
            square = error.dot(error) / (unsure * unsure)
            terms[row] = share * (0.5 * square + ti.log(unsure))

            if u_gradient.shape[0] > 0:
                slope_of_unsure = share * (1 - square) / unsure
                slope_of_color = share * gain * error / (unsure * unsure)
                behind = real(0.0)
                for j in range(samples):
                    i = samples - 1 - j
                    own = row * samples + i
                    logit = ti.cast(density_logits[before + own], real)
                    width = t_edges[ray, i + 1] - t_edges[ray, i]
                    sample_color = volume.color(color_logits, before + own)
                    through = u_gradient[own]
                    ahead = real(1.0)
                    if i > 0:
                        ahead = u_gradient[own - 1]
                    w = ahead * volume.absorbed(volume.optical_depth(logit, width))
                    slope = slope_of_color.dot(sample_color - back)
                    tau_gradient = through * slope - behind
                    behind += w * slope
                    density_gradient[before + own] = storable(tau_gradient * width * volume.density_slope(logit))
                    if ti.static(last_sample):
                        if i == samples - 1:
                            w += through
                    for c in ti.static(range(3)):
                        g = slope_of_color[c] * sample_color[c] * (1 - sample_color[c])
                        color_gradient[c, before + own] = storable(w * g)
                    u_gradient[own] = slope_of_unsure * weights[ray, i] * volume.sigmoid(u_logits[own])

    return launchers(both=both)
