"""N-D multi-resolution hash grid: lookup, and its gradients to the table and to positions.

One thread takes one level of one sample, level-major, so that a warp shares a level and that level's table stays in
the cache; outputs are feature-major, so that neighbouring threads write neighbouring addresses.
"""

from functools import cache
from types import SimpleNamespace

import taichi as ti
import torch

from msth_taichi.kernels.cells import RUN, TAICHI_DTYPE, cell_functions, real_of


@cache
def hash_grid_kernels(axes: int, features: int, dtype: torch.dtype) -> SimpleNamespace:
    """Kernels for tables of `dtype`; see `msth_taichi.ops.hash_grid` for what they compute."""
    real = real_of(dtype)
    stored = TAICHI_DTYPE[dtype]
    grid = cell_functions(axes, features, real, False)
    real_matrix = ti.types.ndarray(dtype=real, ndim=2)
    stored_matrix = ti.types.ndarray(dtype=stored, ndim=2)
    level_rows = ti.types.ndarray(dtype=ti.i32, ndim=2)

    @ti.func
    def whole_share(mask: ti.template(), sample):
        return ti.cast(1.0, real)

    @ti.kernel
    def forward(
        positions: real_matrix,  # (M, D)
        table: stored_matrix,  # (E, F)
        scales: real_matrix,  # (L, D)
        integers: level_rows,  # (L, 2 + D)
        out: stored_matrix,  # (L*F, M)
    ):
        for level, sample in ti.ndrange(scales.shape[0], positions.shape[0]):
            x = grid.load_point(positions, positions, sample, 1)
            value = grid.interpolate(x, table, scales, integers, level)
            for f in ti.static(range(features)):
                out[level * features + f, sample] = ti.cast(value[f], stored)

    @ti.kernel
    def backward_table(
        positions: real_matrix,
        scales: real_matrix,
        integers: level_rows,
        out_gradient: stored_matrix,  # (L*F, M)
        table_gradient: real_matrix,  # (E, F), zero on entry
    ):
        for level, run in ti.ndrange(scales.shape[0], (positions.shape[0] + RUN - 1) // RUN):
            grid.scatter_run(
                level, run, 1, positions, positions, whole_share, positions,
                scales, integers, out_gradient, table_gradient,
            )  # fmt: skip

    @ti.kernel
    def backward_positions(
        positions: real_matrix,
        table: stored_matrix,
        scales: real_matrix,
        integers: level_rows,
        out_gradient: stored_matrix,
        position_gradient: real_matrix,  # (M, D)
    ):
        for sample in range(positions.shape[0]):
            x = grid.load_point(positions, positions, sample, 1)
            total = grid.point(0)
            for level in range(scales.shape[0]):
                gradient = grid.value(0)
                for f in ti.static(range(features)):
                    gradient[f] = ti.cast(out_gradient[level * features + f, sample], real)
                total += grid.position_gradient(x, gradient, table, scales, integers, level)
            for d in ti.static(range(axes)):
                position_gradient[sample, d] = total[d]

    return SimpleNamespace(forward=forward, backward_table=backward_table, backward_positions=backward_positions)
