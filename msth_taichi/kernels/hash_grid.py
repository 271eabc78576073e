"""N-D multi-resolution hash grid: lookup, and its gradients to the table and to positions.

Levels are the outer loop, so that a level's table stays in the cache; a thread takes several samples of one. Outputs
are feature-major, so that neighbouring threads write neighbouring addresses.
"""

from functools import cache
from types import SimpleNamespace

import taichi as ti
import torch

from msth_taichi.kernels.cells import (
    GRAIN,
    LANES,
    RUN,
    TAICHI_DTYPE,
    Sums,
    cell_functions,
    pair_functions,
    real_of,
    sums_type,
    table_type,
)
from msth_taichi.kernels.launch import launchers


@cache
def hash_grid_kernels(
    axes: int, features: int, dtype: torch.dtype, sums: Sums, block: int, gpu: bool = False
) -> SimpleNamespace:
    """Kernels for tables of `dtype`; see `msth_taichi.ops.hash_grid` for what they compute.

    `block` is the number of samples that one thread of the forward kernel takes at a level, far apart on a GPU.
    """
    real = real_of(dtype)
    stored = TAICHI_DTYPE[dtype]
    lanes = LANES if gpu else 1
    grid = cell_functions(axes, features, dtype, False, sums, lanes)
    pairs = pair_functions()
    real_matrix = ti.types.ndarray(dtype=real, ndim=2)
    stored_matrix = ti.types.ndarray(dtype=stored, ndim=2)
    level_rows = ti.types.ndarray(dtype=ti.i32, ndim=2)
    vector = ti.types.ndarray(dtype=ti.f32, ndim=1)

    @ti.func
    def whole_share(mask: ti.template(), sample):
        return ti.cast(1.0, real)

    @ti.func
    def parts(positions: ti.template()):
        """Threads that share the samples of a level."""
        return (positions.shape[0] + block - 1) // block

    @ti.func
    def write(level, sample, value, out: ti.template()):
        for f in ti.static(range(features)):
            out[level * features + f, sample] = ti.cast(value[f], stored)

    @ti.kernel
    def forward(
        positions: real_matrix,  # (M, D)
        table: table_type(dtype, features),
        scales: real_matrix,  # (L, D)
        integers: level_rows,  # (L, 3 + D)
        out: stored_matrix,  # (L*F, M)
    ):
        for level, part in ti.ndrange(scales.shape[0], parts(positions)):
            constants = grid.read_level(scales, integers, level)
            if ti.static(block == 1):  # without a loop, so that Taichi's adjoint holds
                x = grid.load_point(positions, positions, part, 1)
                write(level, part, grid.interpolate(x, table, constants), out)
            else:
                for k in range(block):
                    sample = part * block + k
                    if ti.static(gpu):
                        sample = part + k * parts(positions)
                    if sample < positions.shape[0]:
                        x = grid.load_point(positions, positions, sample, 1)
                        write(level, sample, grid.interpolate(x, table, constants), out)

    @ti.kernel
    def backward_table(
        positions: real_matrix,
        scales: real_matrix,
        integers: level_rows,
        out_gradient: stored_matrix,  # (L*F, M)
        table_sums: sums_type(sums, real),  # zero on entry
        sum_scales: vector,  # (L,) fixed-point units per one; not read by other sums
    ):
        if ti.static(sums == "serial"):
            for item in range(scales.shape[0] * GRAIN):  # a thread owns its levels
                if item % GRAIN == 0:
                    level = item // GRAIN
                    grid.scatter_span(
                        level * features, grid.read_level(scales, integers, level), 0, 0, positions.shape[0], 1,
                        positions, positions, whole_share, positions, out_gradient, table_sums, 0.0,
                    )  # fmt: skip
        else:
            for level, item in ti.ndrange(scales.shape[0], lanes * ((positions.shape[0] + RUN - 1) // RUN)):
                grid.scatter_span(
                    level * features, grid.read_level(scales, integers, level), item % lanes, item // lanes * RUN,
                    RUN, 1, positions, positions, whole_share, positions, out_gradient, table_sums, sum_scales[level],
                )  # fmt: skip

    @ti.kernel
    def floats(
        table_sums: ti.types.ndarray(dtype=ti.i64, ndim=2),  # (E, 1) of fixed point
        integers: level_rows,
        largest: ti.i32,  # entries of the largest level
        sum_scales: vector,
        table_gradient: real_matrix,  # (E, F)
    ):
        for level, k in ti.ndrange(integers.shape[0], largest):
            if k <= integers[level, 1]:
                entry = integers[level, 0] + k
                pair = pairs.unpack_fixed(table_sums[entry, 0])
                for f in ti.static(range(features)):
                    table_gradient[entry, f] = ti.cast(pair[f] / sum_scales[level], real)

    @ti.kernel
    def backward_positions(
        positions: real_matrix,
        table: table_type(dtype, features),
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
                total += grid.position_gradient(x, gradient, table, grid.read_level(scales, integers, level))
            for d in ti.static(range(axes)):
                position_gradient[sample, d] = total[d]

    return launchers(
        forward=forward, backward_table=backward_table, floats=floats, backward_positions=backward_positions
    )
