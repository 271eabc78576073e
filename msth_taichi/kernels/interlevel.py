"""Interlevel loss of each ray in linear time and its adjoint, one thread per ray in one launch.

Letters: N rays, S final bins with weights w, P proposal bins.

Both rows of edges are sorted, so the first overlapping bin only moves forward, and neighbouring final bins
share at most one proposal bin: summing each overlap directly costs S + P steps and, unlike differences of a
running sum, loses no digits.
"""

from functools import cache
from types import SimpleNamespace

import taichi as ti
import torch

from msth_taichi.kernels.cells import TAICHI_DTYPE, real_of
from msth_taichi.kernels.launch import launchers
from msth_taichi.kernels.logits import logit_functions
from msth_taichi.thresholds import INTERLEVEL_EPSILON


@cache
def interlevel_kernels(dtype: torch.dtype) -> SimpleNamespace:
    """Kernels for logits of `dtype`; see `msth_taichi.ops.interlevel`."""
    real = real_of(dtype)
    stored = TAICHI_DTYPE[dtype]
    volume = logit_functions(real)
    stored_matrix = ti.types.ndarray(dtype=stored, ndim=2)
    vector = ti.types.ndarray(dtype=real, ndim=1)
    matrix = ti.types.ndarray(dtype=real, ndim=2)

    @ti.func
    def first_overlap(edges: ti.template(), ray, start, j):
        """The bin that `start` lies in, searched from bin j on; at an edge, the bin behind it."""
        while j < edges.shape[1] - 2 and edges[ray, j + 1] <= start:
            j += 1
        return j

    @ti.func
    def last_overlap(edges: ti.template(), ray, end, j):
        """The bin that `end` lies in, searched from bin j on; at an edge, the bin before it."""
        while j < edges.shape[1] - 2 and edges[ray, j + 1] < end:
            j += 1
        return j

    @ti.func
    def shortfall(weight, bounds: ti.template(), ray, first, last):
        """How much of a final bin's weight the overlapping proposal bins leave uncovered."""
        bound = real(0.0)
        for j in range(first, last + 1):
            bound += bounds[ray, j]
        return ti.max(weight - bound, 0)

    @ti.kernel
    def both(
        s_edges: matrix,  # (N, S+1)
        weights: matrix,  # (N, S)
        proposal_s_edges: matrix,  # (N, P+1)
        proposal_t_edges: matrix,  # (N, P+1)
        logits: stored_matrix,  # (N, P)
        proposal_weights: matrix,  # (N, P)
        loss: vector,  # (N,) sum over the final bins of a ray
        slopes: matrix,  # (P, N) scratch, rays side by side; or empty where no gradient is wanted
        passed: matrix,  # (P, N) scratch, or empty
        logit_gradient: stored_matrix,  # (N, P), of the sum of the losses over all rays; or empty
    ):
        for ray in range(weights.shape[0]):
            bins = proposal_weights.shape[1]
            if slopes.shape[1] > 0:
                for j in range(bins):
                    slopes[j, ray] = 0
            first = 0
            total = real(0.0)
            for i in range(weights.shape[1]):
                w = weights[ray, i]
                first = first_overlap(proposal_s_edges, ray, s_edges[ray, i], first)
                last = last_overlap(proposal_s_edges, ray, s_edges[ray, i + 1], first)
                excess = shortfall(w, proposal_weights, ray, first, last)
                if excess > 0:
                    share = excess / (w + real(INTERLEVEL_EPSILON))
                    total += excess * share
                    if slopes.shape[1] > 0:
                        for j in range(first, last + 1):
                            slopes[j, ray] = slopes[j, ray] - 2 * share
            loss[ray] = total / weights.shape[1]

            if slopes.shape[1] > 0:
                # from the slopes of the weights to those of the logits, as `composite` does
                tau_sum = real(0.0)
                for j in range(bins):
                    width = proposal_t_edges[ray, j + 1] - proposal_t_edges[ray, j]
                    tau_sum += volume.optical_depth(ti.cast(logits[ray, j], real), width)
                    passed[j, ray] = ti.exp(-tau_sum)
                behind = real(0.0)
                for k in range(bins):
                    j = bins - 1 - k
                    logit = ti.cast(logits[ray, j], real)
                    width = proposal_t_edges[ray, j + 1] - proposal_t_edges[ray, j]
                    tau_gradient = passed[j, ray] * slopes[j, ray] - behind
                    behind += proposal_weights[ray, j] * slopes[j, ray]
                    g = tau_gradient * width * volume.density_slope(logit) / weights.shape[1]
                    logit_gradient[ray, j] = ti.cast(g, stored)

    return launchers(both=both)
