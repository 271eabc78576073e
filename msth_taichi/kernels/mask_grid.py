"""Single-level mask grid: m = sigmoid(trilinear logit), and its gradients to logits and positions."""

from functools import cache
from types import SimpleNamespace

import taichi as ti
import torch

from msth_taichi.kernels.cells import TAICHI_DTYPE, cell_functions


@cache
def mask_functions(real) -> SimpleNamespace:
    """Device functions of the mask, shared with the masked encoding."""
    grid = cell_functions(3, 1, real, False)

    @ti.func
    def mask_at(x, logits: ti.template(), scales: ti.template(), integers: ti.template()):
        value = grid.interpolate(x, logits, scales, integers, 0)
        return 1 / (1 + ti.exp(-value[0]))

    @ti.func
    def scatter_mask(x, logit_gradient, scales: ti.template(), integers: ti.template(), logits_gradient: ti.template()):
        if logit_gradient != 0 and grid.is_inside(x):
            cell, fraction = grid.locate(x, scales, 0)
            offset, entries, strides = grid.read_level(integers, 0)
            for corner in ti.static(range(grid.corners)):
                entry = grid.slot(cell, corner, offset, entries, strides)
                ti.atomic_add(logits_gradient[entry, 0], grid.corner_weight(fraction, corner) * logit_gradient)

    @ti.func
    def mask_position_gradient(
        x, logit_gradient, logits: ti.template(), scales: ti.template(), integers: ti.template()
    ):
        return grid.position_gradient(x, grid.value(logit_gradient), logits, scales, integers, 0)

    return SimpleNamespace(
        load_point=grid.load_point,
        mask_at=mask_at,
        scatter_mask=scatter_mask,
        mask_position_gradient=mask_position_gradient,
    )


@cache
def mask_grid_kernels(dtype: torch.dtype) -> SimpleNamespace:
    """Kernels for logits of `dtype` (float32 or float64); see `msth_taichi.ops.mask_grid`."""
    real = TAICHI_DTYPE[dtype]
    grid = mask_functions(real)
    matrix = ti.types.ndarray(dtype=real, ndim=2)
    vector = ti.types.ndarray(dtype=real, ndim=1)
    level_rows = ti.types.ndarray(dtype=ti.i32, ndim=2)

    @ti.kernel
    def forward(positions: matrix, logits: matrix, scales: matrix, integers: level_rows, mask: vector):
        for sample in range(positions.shape[0]):
            x = grid.load_point(positions, positions, sample, 1)
            mask[sample] = grid.mask_at(x, logits, scales, integers)

    @ti.kernel
    def backward(
        positions: matrix,
        logits: matrix,
        scales: matrix,
        integers: level_rows,
        mask: vector,
        mask_gradient: vector,
        logits_gradient: matrix,  # (E, 1), zero on entry
        position_gradient: matrix,  # (M, 3), or empty where it is not wanted
    ):
        for sample in range(positions.shape[0]):
            x = grid.load_point(positions, positions, sample, 1)
            logit_gradient = mask_gradient[sample] * mask[sample] * (1 - mask[sample])
            grid.scatter_mask(x, logit_gradient, scales, integers, logits_gradient)
            if position_gradient.shape[0] > 0:
                slope = grid.mask_position_gradient(x, logit_gradient, logits, scales, integers)
                for d in ti.static(range(3)):
                    position_gradient[sample, d] = slope[d]

    return SimpleNamespace(forward=forward, backward=backward)
