"""Edges drawn from the histogram of weights along each ray. Letters: N rays, S bins, E new edges per ray."""

from functools import cache
from types import SimpleNamespace

import taichi as ti
import torch

from msth_taichi.kernels.cells import TAICHI_DTYPE
from msth_taichi.kernels.spacing import spacing_functions

# a histogram of less mass is filled up to this evenly: a ray without weights is sampled everywhere
MIN_TOTAL = 1e-5


@cache
def resample_kernels(dtype: torch.dtype, spacing: str) -> SimpleNamespace:
    """Kernels for float32 or float64; see `msth_taichi.ops.resample`."""
    real = TAICHI_DTYPE[dtype]
    along = spacing_functions(spacing, real)
    vector = ti.types.ndarray(dtype=real, ndim=1)
    matrix = ti.types.ndarray(dtype=real, ndim=2)

    @ti.func
    def annealed(weight, anneal):
        # 0^a = 0 for a = 0 as well, the first step: an empty bin stays empty
        return ti.pow(weight, anneal) if weight > 0 else ti.cast(0, real)

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
            bins = weights.shape[1]
            edges = new_s_edges.shape[1]
            total = ti.cast(0, real)
            for i in range(bins):
                total += annealed(weights[ray, i], anneal) + padding
            fill = padding
            if total < real(MIN_TOTAL):
                fill += (real(MIN_TOTAL) - total) / bins
                total = real(MIN_TOTAL)

            # both the edges and the cumulated weight grow, so one walk over the bins serves all edges
            i = 0
            distance = near[ray]
            low = ti.cast(0, real)
            high = annealed(weights[ray, 0], anneal) + fill
            for edge in range(edges):
                mass = (edge + jitter[ray]) / edges * total
                # past the last bin with weight, rounding must not carry an edge on to the end of the ray
                while i < bins - 1 and high <= mass and high < total:
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
                distance = ti.max(distance, along.distance(s, near[ray], far[ray], middle))
                new_t_edges[ray, edge] = distance

    return SimpleNamespace(forward=forward)
