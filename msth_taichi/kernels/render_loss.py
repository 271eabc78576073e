"""From the logits of samples to the loss of each ray and the gradients of both, one thread per ray in one launch.

Two sweeps: from the front the colour, from the back the gradients. What the second needs of the first, transmittance
behind each bin and the distance sums of the distortion, is parked in scratch memory.

Letters: N rays, S samples per ray; along a ray tau is the optical depth of a bin, w its weight, T the transmittance.
"""

from functools import cache
from types import SimpleNamespace

import taichi as ti
import torch

from msth_taichi.kernels.cells import TAICHI_DTYPE, real_of
from msth_taichi.kernels.launch import launchers
from msth_taichi.kernels.logits import logit_functions
from msth_taichi.thresholds import CLEAR, COLOR_LIMIT, COLOR_PULL, OPAQUE


@cache
def render_loss_kernels(dtype: torch.dtype, last_sample: bool, measured: bool = False) -> SimpleNamespace:
    """Kernels for logits of `dtype`; see `msth_taichi.ops.render_loss`.

    With `last_sample` the background is the colour of each ray's last sample and the argument is not read. Depths are
    read with `measured` alone.
    """
    real = real_of(dtype)
    stored = TAICHI_DTYPE[dtype]
    volume = logit_functions(real)
    matrix = ti.types.ndarray(dtype=real, ndim=2)
    stored_vector = ti.types.ndarray(dtype=stored, ndim=1)
    stored_matrix = ti.types.ndarray(dtype=stored, ndim=2)
    vec3 = ti.types.vector(3, real)

    @ti.func
    def squared_miss(s_edges: ti.template(), ray, i, surface):
        """Mean of (s - surface)^2 over a bin."""
        width = s_edges[ray, i + 1] - s_edges[ray, i]
        miss = 0.5 * (s_edges[ray, i] + s_edges[ray, i + 1]) - surface
        return miss * miss + width * width / 12

    @ti.kernel
    def both(
        density_logits: stored_vector,  # (N*S,)
        color_logits: stored_matrix,  # (3, N*S)
        s_edges: matrix,  # (N, S+1)
        t_edges: matrix,  # (N, S+1)
        target: matrix,  # (N, 3)
        background: matrix,  # (N, 3), or empty
        kept: ti.types.ndarray(dtype=real, ndim=1),  # (N,) factor of the colour's error, or empty for 1
        tint: matrix,  # (N, 6) gain and bias of each channel, or empty for 1 and 0
        depth: ti.types.ndarray(dtype=real, ndim=1),  # (N,) s of the surface, negative where unknown; or empty
        distortion: real,  # weights of the terms
        sparse: real,
        opacity: real,
        depth_weight: real,
        full_distance: real,  # from which on a sample's gradients count in full, scene units
        weights: matrix,  # (N, S)
        terms: matrix,  # (5, N) colour, distortion, sparse, opacity and depth term of each ray, weighted
        passed: matrix,  # (S, N) scratch, rays side by side; or empty where no gradient is wanted
        front: matrix,  # (S, N) scratch, or empty
        density_gradient: stored_vector,  # (N*S,), of the sum of the terms over all rays; or empty
        color_gradient: stored_matrix,  # (3, N*S), or empty
        tint_gradient: matrix,  # (N, 6), or empty
    ):
        for ray in range(target.shape[0]):
            samples = weights.shape[1]
            transmitted = real(1.0)
            tau_sum = real(0.0)
            color = vec3(0)
            last = vec3(0)
            weight_sum = real(0.0)  # of the bins passed, and of their distances to here
            distance_sum = real(0.0)
            spread = real(0.0)
            fog = real(0.0)
            surface = real(0.0)
            pull = real(0.0)  # to the surface; none where it is unknown
            moment = real(0.0)
            if ti.static(measured):
                if depth[ray] >= 0:
                    surface = depth[ray]
                    pull = depth_weight
                    if kept.shape[0] > 0:
                        pull *= kept[ray] * kept[ray]
            for i in range(samples):
                k = ray * samples + i
                sigma = volume.density(ti.cast(density_logits[k], real))
                tau = ti.min(sigma * (t_edges[ray, i + 1] - t_edges[ray, i]), real(OPAQUE))
                w = transmitted * volume.absorbed(tau)
                tau_sum += tau
                transmitted = ti.exp(-tau_sum)
                last = volume.color(color_logits, k)
                color += w * last
                weights[ray, i] = w
                width = s_edges[ray, i + 1] - s_edges[ray, i]
                distance_sum += 0.5 * width * weight_sum
                if passed.shape[1] > 0:
                    passed[i, ray] = transmitted
                    front[i, ray] = distance_sum
                spread += w * (2 * distance_sum + w * width / 3)
                weight_sum += w
                distance_sum += 0.5 * width * weight_sum
                if sparse > 0:
                    fog += ti.log(1 + 2 * sigma * sigma)
                if ti.static(measured):
                    moment += w * squared_miss(s_edges, ray, i, surface)
            back = last
            if ti.static(not last_sample):
                back = vec3(background[ray, 0], background[ray, 1], background[ray, 2])
            color += transmitted * back
            gain = vec3(1)
            error = color - vec3(target[ray, 0], target[ray, 1], target[ray, 2])
            if tint.shape[0] > 0:
                gain = vec3(tint[ray, 0], tint[ray, 1], tint[ray, 2])
                error += (gain - 1) * color + vec3(tint[ray, 3], tint[ray, 4], tint[ray, 5])
            if kept.shape[0] > 0:
                error *= kept[ray]
            terms[0, ray] = error.dot(error) / 3
            terms[1, ray] = distortion * spread
            terms[2, ray] = sparse * fog / samples
            # clear of 0 and 1, where the logarithms are infinite
            clear = ti.min(ti.max(transmitted, real(CLEAR)), 1 - real(CLEAR))
            terms[3, ray] = -opacity * (clear * ti.log(clear) + (1 - clear) * ti.log(1 - clear))
            beyond = (1 - surface) * (1 - surface)  # what no sample stops goes on to the end of the ray
            terms[4, ray] = pull * (moment + transmitted * beyond)

            if passed.shape[1] > 0:
                slope_of_color = 2 * error / 3
                if kept.shape[0] > 0:
                    slope_of_color *= kept[ray]
                if tint_gradient.shape[0] > 0:
                    for c in ti.static(range(3)):
                        tint_gradient[ray, c] = slope_of_color[c] * color[c]
                        tint_gradient[ray, 3 + c] = slope_of_color[c]
                slope_of_color *= gain
                behind = real(0.0)
                closing = real(0.0)  # every bin lets the same share of the light through
                if clear == transmitted:
                    closing = opacity * clear * ti.log(clear / (1 - clear))
                weight_sum = 0
                distance_sum = 0
                for j in range(samples):
                    i = samples - 1 - j
                    k = ray * samples + i
                    w = weights[ray, i]
                    sample_color = volume.color(color_logits, k)
                    width = s_edges[ray, i + 1] - s_edges[ray, i]
                    distance_sum += 0.5 * width * weight_sum
                    slope = slope_of_color.dot(sample_color - back)
                    slope += 2 * distortion * (front[i, ray] + distance_sum + w * width / 3)
                    if ti.static(measured):
                        slope += pull * (squared_miss(s_edges, ray, i, surface) - beyond)
                    weight_sum += w
                    distance_sum += 0.5 * width * weight_sum
                    tau_gradient = passed[i, ray] * slope - behind + closing
                    behind += w * slope
                    logit = ti.cast(density_logits[k], real)
                    reach = real(1.0)
                    if full_distance > 0:
                        reach = ti.min(0.5 * (t_edges[ray, i] + t_edges[ray, i + 1]) / full_distance, real(1.0))
                        reach *= reach
                    sigma_gradient = tau_gradient * (t_edges[ray, i + 1] - t_edges[ray, i])
                    if sparse > 0:
                        sigma = volume.density(logit)
                        sigma_gradient += sparse / samples * 4 * sigma / (1 + 2 * sigma * sigma)
                    density_gradient[k] = ti.cast(reach * sigma_gradient * volume.density_slope(logit), stored)
                    share = w
                    if ti.static(last_sample):
                        if i == samples - 1:
                            share += passed[i, ray]
                    for c in ti.static(range(3)):
                        saturated = ti.cast(color_logits[c, k], real)
                        saturated -= ti.min(ti.max(saturated, -real(COLOR_LIMIT)), real(COLOR_LIMIT))
                        g = slope_of_color[c] * sample_color[c] * (1 - sample_color[c])
                        g = reach * share * (g + real(COLOR_PULL) * saturated)
                        color_gradient[c, k] = ti.cast(g, stored)

    return launchers(both=both)
