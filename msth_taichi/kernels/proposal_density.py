"""Density of a proposal at the samples of rays in one launch: positions, mask, both tables, blend and MLP.

One thread per sample. Features never leave its registers: as each level is read, its part of the hidden layer is
added. For gradients the encoding and the MLP run apart, with what the adjoints need.

Letters: N rays, P samples per ray, L levels, F features, H hidden width.
"""

from functools import cache
from types import SimpleNamespace

import taichi as ti
import torch

from msth_taichi.kernels.cells import real_of, table_type
from msth_taichi.kernels.contract import contract_functions
from msth_taichi.kernels.launch import launchers
from msth_taichi.kernels.masked_encoding import blend_functions
from msth_taichi.kernels.sample_positions import ray_functions
from msth_taichi.thresholds import EMPTY_LOGIT


@cache
def proposal_density_kernels(
    features: int,
    hidden: int,
    dtype: torch.dtype,
    blend: str,
    contraction: str,
    mask_axes: int = 3,
    skips_empty: bool = False,
) -> SimpleNamespace:
    """Kernels for tables of `dtype`; see `msth_taichi.ops.proposal_density`. Bits are read with `skips_empty` alone."""
    real = real_of(dtype)
    fields = blend_functions(features, dtype, blend, mask_axes=mask_axes)
    space = contract_functions(real, contraction)
    rays = ray_functions(real)
    layer = ti.types.vector(hidden, real)
    matrix = ti.types.ndarray(dtype=real, ndim=2)
    vector = ti.types.ndarray(dtype=real, ndim=1)
    level_rows = ti.types.ndarray(dtype=ti.i32, ndim=2)
    table = table_type(dtype, features)
    logits = table_type(torch.float64 if dtype == torch.float64 else torch.float32, 1)
    bits = ti.types.ndarray(dtype=ti.i32, ndim=1)

    @ti.func
    def density_logit(
        x, times: ti.template(), ray, mask_logits: ti.template(), static_table: ti.template(),
        dynamic_table: ti.template(), scales: ti.template(), integers: ti.template(), hidden_weights: ti.template(),
        out_weights: ti.template(),
    ):  # fmt: skip
        m = fields.masks.mask_at(fields.masks.point(x, times, ray), mask_logits, scales, integers)
        sums = layer(0)
        for level in range(fields.levels(scales)):
            value, _ = fields.lookup(
                x, times[ray], m, static_table, dynamic_table,
                fields.static_level(scales, integers, level), fields.dynamic_level(scales, integers, level),
            )  # fmt: skip
            for h in ti.static(range(hidden)):
                for f in ti.static(range(features)):
                    sums[h] += hidden_weights[h, level * features + f] * value[f]
        total = ti.cast(0, real)
        for h in ti.static(range(hidden)):
            total += out_weights[0, h] * ti.max(sums[h], 0)
        return total

    @ti.func
    def is_occupied(x, occupied: ti.template(), cells):
        """Whether the cell of a place within the grid has its bit set."""
        index = 0
        for d in ti.static(range(3)):
            index = index * cells + ti.min(ti.cast(x[d] * cells, ti.i32), cells - 1)
        return (occupied[index >> 5] >> (index & 31)) & 1

    @ti.kernel
    def forward(
        origins: matrix,  # (N, 3)
        directions: matrix,  # (N, 3)
        times: vector,  # (N,)
        t_edges: matrix,  # (N, P+1)
        box: real,
        mask_logits: logits,
        static_table: table,
        dynamic_table: table,
        scales: matrix,  # (1+2L, 4) `joined_constants` of the three grids
        integers: level_rows,  # (1+2L, 7)
        hidden_weights: matrix,  # (H, L*F)
        out_weights: matrix,  # (1, H)
        occupied: bits,  # (cells^3 / 32,), or empty
        cells: ti.i32,
        density_logits: matrix,  # (N, P)
    ):
        for ray, i in ti.ndrange(density_logits.shape[0], density_logits.shape[1]):
            x = space.contracted(rays.centre(origins, directions, t_edges, ray, i), box)
            seen = 1
            if ti.static(contraction == "none"):
                seen = fields.space.is_inside(x)
            if ti.static(skips_empty):
                if seen == 1:
                    seen = is_occupied(x, occupied, cells)
            total = real(EMPTY_LOGIT)
            if seen == 1:
                total = density_logit(
                    x, times, ray, mask_logits, static_table, dynamic_table, scales, integers, hidden_weights,
                    out_weights,
                )  # fmt: skip
            density_logits[ray, i] = total

    return launchers(forward=forward)
