"""Single-level mask grid: m = sigmoid(linear logit), and its gradients to logits and positions.

Letters: M samples, E vertices, D axes: 3 of space, and the fourth is time where the mask changes with it.
"""

from functools import cache
from types import SimpleNamespace

import taichi as ti
import torch

from msth_taichi.kernels.cells import Sums, cell_functions, real_of, sums_type, table_type
from msth_taichi.kernels.launch import launchers
from msth_taichi.thresholds import MASK_UNITS, SATURATED


@cache
def mask_functions(dtype: torch.dtype, sums: Sums = "atomic", axes: int = 3) -> SimpleNamespace:
    """Device functions of the mask for logits of `dtype`, shared with the fields' kernels; x is a point (D,)."""
    real = real_of(dtype)
    timed = axes == 4
    grid = cell_functions(axes, 1, dtype, timed, aligned=timed)
    space = ti.types.vector(3, real)

    @ti.func
    def point(place, times: ti.template(), ray):
        """A place (3,) at the time of a ray, which is only read where the mask wants it."""
        x = grid.point(0)
        for d in ti.static(range(3)):
            x[d] = place[d]
        if ti.static(timed):
            x[3] = times[ray]
        return x

    @ti.func
    def load_point(positions: ti.template(), times: ti.template(), sample):
        """Of sample `sample`, where rays have as many samples each."""
        samples_per_ray = 1
        if ti.static(timed):
            samples_per_ray = positions.shape[0] // times.shape[0]
        return grid.load_point(positions, times, sample, samples_per_ray)

    @ti.func
    def mask_at(x, logits: ti.template(), scales: ti.template(), integers: ti.template()):
        value = grid.interpolate(x, logits, grid.read_level(scales, integers, 0))
        mask = 1 / (1 + ti.exp(-value[0]))
        mask = ti.select(mask < real(SATURATED), ti.cast(0, real), mask)
        return ti.select(mask > real(1 - SATURATED), ti.cast(1, real), mask)

    @ti.func
    def scatter_mask(x, logit_gradient, scales: ti.template(), integers: ti.template(), mask_sums: ti.template()):
        if logit_gradient != 0 and grid.is_inside(x):
            level = grid.read_level(scales, integers, 0)
            cell, fraction = grid.locate(x, level)
            for corner in ti.static(range(grid.corners)):
                entry = grid.slot(cell, corner, level)
                value = grid.corner_weight(fraction, corner) * logit_gradient
                if ti.static(sums == "fixed"):
                    units = ti.cast(ti.floor(value * real(MASK_UNITS) + 0.5), ti.i64)
                    if units != 0:
                        ti.atomic_add(mask_sums[entry, 0], units)
                elif ti.static(sums == "serial"):
                    mask_sums[entry, 0] = mask_sums[entry, 0] + value
                else:
                    ti.atomic_add(mask_sums[entry, 0], value)

    @ti.func
    def mask_position_gradient(
        x, logit_gradient, logits: ti.template(), scales: ti.template(), integers: ti.template()
    ):
        """Of the place alone, (3,)."""
        slope = grid.position_gradient(x, grid.value(logit_gradient), logits, grid.read_level(scales, integers, 0))
        return space(slope[0], slope[1], slope[2])

    return SimpleNamespace(
        point=point,
        load_point=load_point,
        mask_at=mask_at,
        scatter_mask=scatter_mask,
        mask_position_gradient=mask_position_gradient,
    )


@cache
def mask_grid_kernels(dtype: torch.dtype, axes: int = 3) -> SimpleNamespace:
    """Kernels for logits of `dtype` (float32 or float64); see `msth_taichi.ops.mask_grid`."""
    real = real_of(dtype)
    masks = mask_functions(dtype, "atomic", axes)
    # a sample's time lies beside its position
    load_point = cell_functions(axes, 1, dtype, False).load_point
    matrix = ti.types.ndarray(dtype=real, ndim=2)
    vector = ti.types.ndarray(dtype=real, ndim=1)
    level_rows = ti.types.ndarray(dtype=ti.i32, ndim=2)

    @ti.kernel
    def forward(
        positions: matrix,  # (M, D)
        logits: table_type(dtype, 1),
        scales: matrix,
        integers: level_rows,
        mask: vector,  # (M,)
    ):
        for sample in range(positions.shape[0]):
            x = load_point(positions, positions, sample, 1)
            mask[sample] = masks.mask_at(x, logits, scales, integers)

    @ti.kernel
    def backward(
        positions: matrix,
        logits: table_type(dtype, 1),
        scales: matrix,
        integers: level_rows,
        mask: vector,
        mask_gradient: vector,
        logits_gradient: sums_type("atomic", real),  # (E, 1), zero on entry
        position_gradient: matrix,  # (M, 3), or empty where it is not wanted
    ):
        for sample in range(positions.shape[0]):
            x = load_point(positions, positions, sample, 1)
            logit_gradient = mask_gradient[sample] * mask[sample] * (1 - mask[sample])
            masks.scatter_mask(x, logit_gradient, scales, integers, logits_gradient)
            if position_gradient.shape[0] > 0:
                slope = masks.mask_position_gradient(x, logit_gradient, logits, scales, integers)
                for d in ti.static(range(3)):
                    position_gradient[sample, d] = slope[d]

    return launchers(forward=forward, backward=backward)
