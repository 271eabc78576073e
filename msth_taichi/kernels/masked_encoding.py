"""The masked space-time encoding in one launch: mask, 3D table, 4D table and their blend; and its adjoint.

Two GPU kernels forward: one thread per sample for the mask, then one per (level, sample) for both tables.
What the mask's gradient needs of the tables, d(features)/dm, is written forward: reading it back costs a
fiftieth of looking both tables up again.
"""

from functools import cache
from types import SimpleNamespace

import taichi as ti
import torch

from msth_taichi.kernels.cells import RUN, TAICHI_DTYPE, cell_functions, real_of
from msth_taichi.kernels.mask_grid import mask_functions


@cache
def masked_encoding_kernels(features: int, dtype: torch.dtype, blend: str) -> SimpleNamespace:
    """Kernels for tables of `dtype` and one blend; see `msth_taichi.ops.masked_encoding`.

    `blend` is "mst", "mt", "add", or "static" for the 3D table alone.
    """
    real = real_of(dtype)
    stored = TAICHI_DTYPE[dtype]
    space = cell_functions(3, features, real, False)
    spacetime = cell_functions(4, features, real, True)
    mask_field = mask_functions(real)
    has_dynamic = blend != "static"
    has_slope = blend in ("mst", "mt")
    matrix = ti.types.ndarray(dtype=real, ndim=2)
    vector = ti.types.ndarray(dtype=real, ndim=1)
    stored_matrix = ti.types.ndarray(dtype=stored, ndim=2)
    level_rows = ti.types.ndarray(dtype=ti.i32, ndim=2)

    @ti.func
    def static_share(mask: ti.template(), sample):
        share = ti.cast(1.0, real)
        if ti.static(blend == "mst"):
            share = mask[sample]
        return share

    @ti.func
    def dynamic_share(mask: ti.template(), sample):
        share = ti.cast(1.0, real)
        if ti.static(has_slope):
            share = 1 - mask[sample]
        return share

    @ti.kernel
    def forward(
        positions: matrix,  # (M, 3)
        times: vector,  # (N,), M a multiple of N
        mask_logits: matrix,  # (Em, 1)
        static_table: stored_matrix,  # (E3, F)
        dynamic_table: stored_matrix,  # (E4, F)
        mask_scales: matrix,
        mask_integers: level_rows,
        static_scales: matrix,  # (L, 3)
        static_integers: level_rows,
        dynamic_scales: matrix,  # (L, 4)
        dynamic_integers: level_rows,
        out: stored_matrix,  # (L*F, M)
        mask: vector,  # (M,)
        slope: stored_matrix,  # (L*F, M) d out / d mask, or empty where no gradient will be asked for
    ):
        for sample in range(positions.shape[0]):
            x = space.load_point(positions, times, sample, 1)
            mask[sample] = mask_field.mask_at(x, mask_logits, mask_scales, mask_integers)
        for level, sample in ti.ndrange(static_scales.shape[0], positions.shape[0]):
            x = space.load_point(positions, times, sample, 1)
            static = space.interpolate(x, static_table, static_scales, static_integers, level)
            value = static_share(mask, sample) * static
            change = static * 0
            if ti.static(has_dynamic):
                xt = spacetime.load_point(positions, times, sample, positions.shape[0] // times.shape[0])
                dynamic = spacetime.interpolate(xt, dynamic_table, dynamic_scales, dynamic_integers, level)
                value += dynamic_share(mask, sample) * dynamic
                change = -dynamic
                if ti.static(blend == "mst"):
                    change += static
            for f in ti.static(range(features)):
                out[level * features + f, sample] = ti.cast(value[f], stored)
                if ti.static(has_slope):
                    if slope.shape[1] > 0:
                        slope[level * features + f, sample] = ti.cast(change[f], stored)

    @ti.kernel
    def backward(
        positions: matrix,
        times: vector,
        mask: vector,
        slope: stored_matrix,
        mask_scales: matrix,
        mask_integers: level_rows,
        static_scales: matrix,
        static_integers: level_rows,
        dynamic_scales: matrix,
        dynamic_integers: level_rows,
        out_gradient: stored_matrix,  # (L*F, M)
        mask_gradient: vector,  # (M,)
        logit_gradient: vector,  # (M,) gradient of the mask's logit at each sample
        logits_gradient: matrix,  # (Em, 1), zero on entry
        static_gradient: matrix,  # (E3, F), zero on entry
        dynamic_gradient: matrix,  # (E4, F), zero on entry
    ):
        for sample in range(positions.shape[0]):
            total = mask_gradient[sample]
            if ti.static(has_slope):
                for k in range(out_gradient.shape[0]):
                    total += ti.cast(out_gradient[k, sample], real) * ti.cast(slope[k, sample], real)
            total *= mask[sample] * (1 - mask[sample])
            logit_gradient[sample] = total
            x = space.load_point(positions, times, sample, 1)
            mask_field.scatter_mask(x, total, mask_scales, mask_integers, logits_gradient)
        for level, run in ti.ndrange(static_scales.shape[0], (positions.shape[0] + RUN - 1) // RUN):
            space.scatter_run(
                level, run, 1, positions, times, static_share, mask,
                static_scales, static_integers, out_gradient, static_gradient,
            )  # fmt: skip
        if ti.static(has_dynamic):
            for level, run in ti.ndrange(dynamic_scales.shape[0], (positions.shape[0] + RUN - 1) // RUN):
                spacetime.scatter_run(
                    level, run, positions.shape[0] // times.shape[0], positions, times, dynamic_share, mask,
                    dynamic_scales, dynamic_integers, out_gradient, dynamic_gradient,
                )  # fmt: skip

    @ti.kernel
    def backward_positions(
        positions: matrix,
        times: vector,
        mask_logits: matrix,
        static_table: stored_matrix,
        dynamic_table: stored_matrix,
        mask: vector,
        mask_scales: matrix,
        mask_integers: level_rows,
        static_scales: matrix,
        static_integers: level_rows,
        dynamic_scales: matrix,
        dynamic_integers: level_rows,
        out_gradient: stored_matrix,
        logit_gradient: vector,
        position_gradient: matrix,  # (M, 3)
    ):
        for sample in range(positions.shape[0]):
            x = space.load_point(positions, times, sample, 1)
            total = mask_field.mask_position_gradient(
                x, logit_gradient[sample], mask_logits, mask_scales, mask_integers
            )
            for level in range(static_scales.shape[0]):
                gradient = space.value(0)
                for f in ti.static(range(features)):
                    gradient[f] = ti.cast(out_gradient[level * features + f, sample], real)
                share = static_share(mask, sample)
                total += share * space.position_gradient(
                    x, gradient, static_table, static_scales, static_integers, level
                )
                if ti.static(has_dynamic):
                    xt = spacetime.load_point(positions, times, sample, positions.shape[0] // times.shape[0])
                    change = spacetime.position_gradient(
                        xt, gradient, dynamic_table, dynamic_scales, dynamic_integers, level
                    )
                    for d in ti.static(range(3)):
                        total[d] += dynamic_share(mask, sample) * change[d]
            for d in ti.static(range(3)):
                position_gradient[sample, d] = total[d]

    return SimpleNamespace(forward=forward, backward=backward, backward_positions=backward_positions)
