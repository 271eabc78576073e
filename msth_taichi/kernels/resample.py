"""Edges drawn from the histogram of weights along each ray. Letters: N rays, S bins, E new edges per ray."""

from functools import cache
from types import SimpleNamespace

import taichi as ti
import torch

from msth_taichi.kernels.cells import TAICHI_DTYPE
from msth_taichi.kernels.launch import launchers
from msth_taichi.kernels.logits import logit_functions
from msth_taichi.kernels.spacing import spacing_functions

# a histogram of less mass is filled up to this evenly: a ray without weights is sampled everywhere
MIN_TOTAL = 1e-5


@cache
def resample_kernels(dtype: torch.dtype, spacing: str) -> SimpleNamespace:
    """Kernels for float32 or float64; see `msth_taichi.ops.resample`."""
    real = TAICHI_DTYPE[dtype]
    along = spacing_functions(spacing, real)
    volume = logit_functions(real)
    vector = ti.types.ndarray(dtype=real, ndim=1)
    matrix = ti.types.ndarray(dtype=real, ndim=2)

    @ti.func
    def annealed(weight, anneal):
        share = ti.cast(0, real)
        # 0^a = 0 for a = 0 as well, the first step: an empty bin stays empty
        if weight > 0:
            share = weight
            if anneal != 1:
                share = ti.pow(weight, anneal)
        return share

    @ti.func
    def redraw(
        ray, total, s_edges: ti.template(), weights: ti.template(), near: ti.template(), far: ti.template(),
        jitter: ti.template(), middle, anneal, padding, new_s_edges: ti.template(), new_t_edges: ti.template(),
    ):  # fmt: skip
        """New edges of one ray, whose annealed weights and padding sum to `total`."""
        bins = weights.shape[1]
        edges = new_s_edges.shape[1]
        fill = padding
        if total < real(MIN_TOTAL):
            fill += (real(MIN_TOTAL) - total) / bins
        mass_total = ti.max(total, real(MIN_TOTAL))

        # both the edges and the cumulated weight grow, so one walk over the bins serves all edges
        i = 0
        nearest, farthest = near[ray], far[ray]
        g_near, g_far = along.to_spacing(nearest, middle), along.to_spacing(farthest, middle)
        distance = nearest
        low = ti.cast(0, real)
        high = annealed(weights[ray, 0], anneal) + fill
        for edge in range(edges):
            mass = (edge + jitter[ray]) / edges * mass_total
            # past the last bin with weight, rounding must not carry an edge on to the end of the ray
            while i < bins - 1 and high <= mass and high < mass_total:
                i += 1
                low = high
                high += annealed(weights[ray, i], anneal) + fill
            fraction = ti.cast(0, real)
            if high > low:
                fraction = ti.min((mass - low) / (high - low), 1)
            start, end = s_edges[ray, i], s_edges[ray, i + 1]
            s = ti.min(start + fraction * (end - start), end)
            new_s_edges[ray, edge] = s
            # CUDA's fast division does not promise to be monotone to the last bit
            distance = ti.max(distance, along.distance_between(s, nearest, farthest, g_near, g_far, middle))
            new_t_edges[ray, edge] = distance

    @ti.kernel
    def forward(
        s_edges: matrix,  # (N, S + 1)
        weights: matrix,  # (N, S)
        near: vector,  # (N,)
        far: vector,
        jitter: vector,  # (N,)
        middle: real,
        anneal: real,
        padding: real,
        new_s_edges: matrix,  # (N, E)
        new_t_edges: matrix,
    ):
        for ray in range(weights.shape[0]):
            total = ti.cast(0, real)
            for i in range(weights.shape[1]):
                total += annealed(weights[ray, i], anneal) + padding
            redraw(ray, total, s_edges, weights, near, far, jitter, middle, anneal, padding, new_s_edges, new_t_edges)

    @ti.kernel
    def from_logits(
        s_edges: matrix,
        t_edges: matrix,  # (N, S + 1)
        density_logits: matrix,  # (N, S)
        near: vector,
        far: vector,
        jitter: vector,
        middle: real,
        anneal: real,
        padding: real,
        weights: matrix,  # (N, S), overwritten
        new_s_edges: matrix,
        new_t_edges: matrix,
    ):
        for ray in range(weights.shape[0]):
            total = ti.cast(0, real)
            tau_sum = ti.cast(0, real)
            t = t_edges[ray, 0]
            for i in range(weights.shape[1]):
                tau = volume.optical_depth(density_logits[ray, i], t_edges[ray, i + 1] - t)
                t = t_edges[ray, i + 1]
                w = ti.exp(-tau_sum) * volume.absorbed(tau)
                tau_sum += tau
                weights[ray, i] = w
                total += annealed(w, anneal) + padding
            redraw(ray, total, s_edges, weights, near, far, jitter, middle, anneal, padding, new_s_edges, new_t_edges)

    return launchers(forward=forward, from_logits=from_logits)
