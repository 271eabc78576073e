"""Edges of the first samples along each ray. Letters: N rays, E edges per ray."""

from functools import cache
from types import SimpleNamespace

import taichi as ti
import torch

from msth_taichi.kernels.cells import TAICHI_DTYPE
from msth_taichi.kernels.launch import launchers
from msth_taichi.kernels.spacing import spacing_functions


@cache
def stratified_kernels(dtype: torch.dtype, spacing: str, jittered: bool) -> SimpleNamespace:
    """Kernels for float32 or float64; see `msth_taichi.ops.stratified`."""
    real = TAICHI_DTYPE[dtype]
    along = spacing_functions(spacing, real)
    vector = ti.types.ndarray(dtype=real, ndim=1)
    matrix = ti.types.ndarray(dtype=real, ndim=2)

    @ti.kernel
    def forward(
        near: vector,  # (N,)
        far: vector,
        jitter: vector,  # (N,), or empty where not jittered
        middle: real,
        s_edges: matrix,  # (N, E)
        t_edges: matrix,
    ):
        for ray, edge in ti.ndrange(s_edges.shape[0], s_edges.shape[1]):
            count = s_edges.shape[1] - 1
            # CUDA's fast division may miss 1, and with it far
            s = ti.cast(edge, real) / count if edge < count else ti.cast(1, real)
            if ti.static(jittered):
                lower = ti.max(ti.cast(edge, real) - 0.5, 0) / count
                upper = ti.min(ti.cast(edge, real) + 0.5, count) / count
                s = lower + (upper - lower) * jitter[ray]
            s_edges[ray, edge] = s
            t_edges[ray, edge] = along.distance(s, near[ray], far[ray], middle)

    return launchers(forward=forward)
