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
def proposal_functions(
    features: int, hidden: int, dtype: torch.dtype, blend: str, mask_axes: int = 3
) -> SimpleNamespace:
    """Device functions of a proposal for tables of `dtype`."""
    real = real_of(dtype)
    fields = blend_functions(features, dtype, blend, mask_axes=mask_axes)
    layer = ti.types.vector(hidden, real)

    @ti.func
    def density_logit(
        x, times: ti.template(), ray, mask_logits: ti.template(), static_table: ti.template(),
        dynamic_table: ti.template(), scales: ti.template(), integers: ti.template(), hidden_weights: ti.template(),
        out_weights: ti.template(),
    ):  # fmt: skip
        """At a place of the grid, at the time of a ray."""
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

    return SimpleNamespace(density_logit=density_logit, is_inside=fields.space.is_inside)


@cache
def proposal_density_kernels(
    features: int, hidden: int, dtype: torch.dtype, blend: str, contraction: str, mask_axes: int = 3
) -> SimpleNamespace:
    """Kernels for tables of `dtype`; see `msth_taichi.ops.proposal_density`."""
    real = real_of(dtype)
    proposal = proposal_functions(features, hidden, dtype, blend, mask_axes)
    space = contract_functions(real, contraction)
    rays = ray_functions(real)
    matrix = ti.types.ndarray(dtype=real, ndim=2)
    vector = ti.types.ndarray(dtype=real, ndim=1)
    level_rows = ti.types.ndarray(dtype=ti.i32, ndim=2)
    table = table_type(dtype, features)
    logits = table_type(torch.float64 if dtype == torch.float64 else torch.float32, 1)

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
        density_logits: matrix,  # (N, P)
    ):
        for ray, i in ti.ndrange(density_logits.shape[0], density_logits.shape[1]):
            x = space.contracted(rays.centre(origins, directions, t_edges, ray, i), box)
            logit = proposal.density_logit(
                x, times, ray, mask_logits, static_table, dynamic_table, scales, integers, hidden_weights, out_weights
            )  # fmt: skip
            if ti.static(contraction == "none"):
                if proposal.is_inside(x) == 0:
                    logit = real(EMPTY_LOGIT)
            density_logits[ray, i] = logit

    return launchers(forward=forward)
