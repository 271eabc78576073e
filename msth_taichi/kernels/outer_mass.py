"""What a histogram along a ray holds around each of other bins, one thread per ray.

Letters: N rays, S bins, P bins of the histogram.
"""

from functools import cache
from types import SimpleNamespace

import taichi as ti
import torch

from msth_taichi.kernels.cells import TAICHI_DTYPE
from msth_taichi.kernels.launch import launchers


@cache
def outer_mass_kernels(dtype: torch.dtype) -> SimpleNamespace:
    """Kernels for float32 or float64; see `msth_taichi.ops.outer_mass`."""
    real = TAICHI_DTYPE[dtype]
    matrix = ti.types.ndarray(dtype=real, ndim=2)

    @ti.kernel
    def forward(
        s_edges: matrix,  # (N, S+1)
        histogram_s_edges: matrix,  # (N, P+1)
        weights: matrix,  # (N, P)
        mass: matrix,  # (N, S)
    ):
        for ray in range(mass.shape[0]):
            last = weights.shape[1] - 1
            first = 0
            for i in range(mass.shape[1]):
                # both rows of edges are sorted: the first overlap only moves forward
                while first < last and histogram_s_edges[ray, first + 1] <= s_edges[ray, i]:
                    first += 1
                j = first
                total = weights[ray, j]
                while j < last and histogram_s_edges[ray, j + 1] < s_edges[ray, i + 1]:
                    j += 1
                    total += weights[ray, j]
                mass[ray, i] = total

    return launchers(forward=forward)
