"""Interlevel loss of each ray in linear time, one thread per ray, and its adjoint.

Letters: N rays, S final bins with weights w, P proposal bins.

Both rows of edges are sorted, so the first overlapping bin only moves forward, and neighbouring final bins
share at most one proposal bin: summing each overlap directly costs S + P steps and, unlike differences of a
running sum, loses no digits.
"""

from functools import cache
from types import SimpleNamespace

import taichi as ti
import torch

from msth_taichi.kernels.cells import real_of
from msth_taichi.thresholds import INTERLEVEL_EPSILON


@cache
def interlevel_kernels(dtype: torch.dtype) -> SimpleNamespace:
    """Kernels for weights of `dtype`; see `msth_taichi.ops.interlevel`."""
    real = real_of(dtype)
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
    def forward(
        s_edges: matrix,  # (N, S+1)
        weights: matrix,  # (N, S)
        proposal_s_edges: matrix,  # (N, P+1)
        proposal_weights: matrix,  # (N, P)
        loss: vector,  # (N,) sum over the final bins of a ray
    ):
        for ray in range(weights.shape[0]):
            first = 0
            total = real(0.0)
            for i in range(weights.shape[1]):
                w = weights[ray, i]
                first = first_overlap(proposal_s_edges, ray, s_edges[ray, i], first)
                last = last_overlap(proposal_s_edges, ray, s_edges[ray, i + 1], first)
                excess = shortfall(w, proposal_weights, ray, first, last)
                total += excess * excess / (w + real(INTERLEVEL_EPSILON))
            loss[ray] = total

    @ti.kernel
    def backward(
        s_edges: matrix,
        weights: matrix,
        proposal_s_edges: matrix,
        proposal_weights: matrix,
        loss_gradient: vector,  # (N,)
        proposal_gradient: matrix,  # (N, P), zero on entry
    ):
        for ray in range(weights.shape[0]):
            first = 0
            for i in range(weights.shape[1]):
                w = weights[ray, i]
                first = first_overlap(proposal_s_edges, ray, s_edges[ray, i], first)
                last = last_overlap(proposal_s_edges, ray, s_edges[ray, i + 1], first)
                excess = shortfall(w, proposal_weights, ray, first, last)
                if excess > 0:
                    slope = 2 * loss_gradient[ray] * excess / (w + real(INTERLEVEL_EPSILON))
                    for j in range(first, last + 1):
                        proposal_gradient[ray, j] -= slope  # this thread's own row

    return SimpleNamespace(forward=forward, backward=backward)
