"""The masked space-time encoding in one launch: mask, 3D table, 4D table and their blend; and its adjoint.

Two GPU kernels forward: one thread per sample for the mask, then one per level and four samples for both tables.
Where the mask is saturated, the table without a share is not touched. What the mask's gradient needs of the
tables, d(features)/dm, is written forward: reading it back costs a fiftieth of looking both tables up again.
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
    real_of,
    sums_type,
    table_type,
)
from msth_taichi.kernels.contract import contract_functions
from msth_taichi.kernels.launch import launchers
from msth_taichi.kernels.mask_grid import mask_functions
from msth_taichi.kernels.sample_positions import ray_functions


@cache
def blend_functions(
    features: int, dtype: torch.dtype, blend: str, sums: Sums = "atomic", lanes: int = 1, mask_axes: int = 3
) -> SimpleNamespace:
    """Device functions of both grids, the mask, and each table's share, for tables of `dtype`.

    `blend` is "mst", "mt", "add", or "static" for the 3D table alone; a mask of 4 axes changes with time.
    """
    real = real_of(dtype)
    space = cell_functions(3, features, dtype, False, sums, lanes)
    spacetime = cell_functions(4, features, dtype, True, sums, lanes)
    masks = mask_functions(torch.float64 if dtype == torch.float64 else torch.float32, sums, mask_axes)
    has_dynamic = blend != "static"
    has_slope = blend in ("mst", "mt")
    # Taichi's autodiff fails on integers that change inside a branch; float64 is there to be held against it
    skips = dtype != torch.float64

    @ti.func
    def static_share(m):
        share = ti.cast(1.0, real)
        if ti.static(blend == "mst"):
            share = m
        return share

    @ti.func
    def dynamic_share(m):
        share = ti.cast(1.0, real)
        if ti.static(has_slope):
            share = 1 - m
        return share

    @ti.func
    def levels(scales: ti.template()):
        return (scales.shape[0] - 1) // 2

    @ti.func
    def static_level(scales: ti.template(), integers: ti.template(), level):
        """Constants of a level: the mask's row comes first, then those of the static grid, then of the dynamic one."""
        return space.read_level(scales, integers, 1 + level)

    @ti.func
    def dynamic_level(scales: ti.template(), integers: ti.template(), level):
        return spacetime.read_level(scales, integers, 1 + levels(scales) + level)

    @ti.func
    def lookup(x, t, m, static_table: ti.template(), dynamic_table: ti.template(), in_space, in_spacetime):
        """Blended features at one level of both grids, and their derivative to the mask."""
        static = space.value(0)
        if ti.static(skips and blend == "mst"):
            if m > 0:
                static = space.interpolate(x, static_table, in_space)
        else:
            static = space.interpolate(x, static_table, in_space)
        value = static_share(m) * static
        change = static * 0
        if ti.static(has_dynamic):
            xt = spacetime.point(x[0], x[1], x[2], t)
            dynamic = spacetime.value(0)
            if ti.static(skips and has_slope):
                if m < 1:
                    dynamic = spacetime.interpolate(xt, dynamic_table, in_spacetime)
            else:
                dynamic = spacetime.interpolate(xt, dynamic_table, in_spacetime)
            value += dynamic_share(m) * dynamic
            change = -dynamic
            if ti.static(blend == "mst"):
                change += static
        return value, change

    return SimpleNamespace(
        space=space,
        spacetime=spacetime,
        masks=masks,
        has_dynamic=has_dynamic,
        has_slope=has_slope,
        static_share=static_share,
        dynamic_share=dynamic_share,
        levels=levels,
        static_level=static_level,
        dynamic_level=dynamic_level,
        lookup=lookup,
    )


@cache
def masked_encoding_kernels(
    features: int,
    dtype: torch.dtype,
    blend: str,
    sums: Sums,
    block: int,
    contraction: str = "none",
    gpu: bool = False,
    mask_axes: int = 3,
) -> SimpleNamespace:
    """Kernels for tables of `dtype` and one blend; see `msth_taichi.ops.masked_encoding`.

    `block` is the number of samples that one thread of the forward kernel takes at a level, far apart on a GPU;
    `contraction` is that of `forward_along`.
    """
    real = real_of(dtype)
    stored = TAICHI_DTYPE[dtype]
    lanes = LANES if gpu else 1
    fields = blend_functions(features, dtype, blend, sums, lanes, mask_axes)
    space, spacetime, masks = fields.space, fields.spacetime, fields.masks
    scene = contract_functions(real, contraction)
    rays = ray_functions(real)
    matrix = ti.types.ndarray(dtype=real, ndim=2)
    vector = ti.types.ndarray(dtype=real, ndim=1)
    floats = ti.types.ndarray(dtype=ti.f32, ndim=1)
    stored_matrix = ti.types.ndarray(dtype=stored, ndim=2)
    level_rows = ti.types.ndarray(dtype=ti.i32, ndim=2)
    numbers = ti.types.ndarray(dtype=ti.i32, ndim=1)
    table = table_type(dtype, features)
    logits = table_type(torch.float64 if dtype == torch.float64 else torch.float32, 1)
    summed = sums_type(sums, real)

    @ti.func
    def static_share_of(mask: ti.template(), sample):
        return fields.static_share(mask[sample])

    @ti.func
    def dynamic_share_of(mask: ti.template(), sample):
        return fields.dynamic_share(mask[sample])

    @ti.func
    def read_mask(sample, x, mask_logits: ti.template(), scales: ti.template(), integers: ti.template(), static_from):
        # no branch, so that Taichi's adjoint holds
        m = masks.mask_at(x, mask_logits, scales, integers)
        return ti.select(sample < static_from, m, ti.cast(1, real))

    @ti.func
    def parts(positions: ti.template()):
        """Threads that share the samples of a level."""
        return (positions.shape[0] + block - 1) // block

    @ti.func
    def up_to(number: ti.template(), aligned):
        return (number[0] + aligned - 1) // aligned * aligned

    @ti.func
    def write(level, sample, value, change, out: ti.template(), slope: ti.template()):
        for f in ti.static(range(features)):
            out[level * features + f, sample] = ti.cast(value[f], stored)
            if ti.static(fields.has_slope):
                if slope.shape[1] > 0:
                    slope[level * features + f, sample] = ti.cast(change[f], stored)

    @ti.func
    def at(sample, positions: ti.template(), times: ti.template(), mask: ti.template(), static_table: ti.template(),
           dynamic_table: ti.template(), in_space, in_spacetime):  # fmt: skip
        """`lookup` of one sample."""
        x = space.load_point(positions, times, sample, 1)
        t = times[sample // (positions.shape[0] // times.shape[0])]
        return fields.lookup(x, t, mask[sample], static_table, dynamic_table, in_space, in_spacetime)

    @ti.func
    def encode(level, part, positions: ti.template(), times: ti.template(), static_table: ti.template(),
               dynamic_table: ti.template(), scales: ti.template(), integers: ti.template(), out: ti.template(),
               mask: ti.template(), slope: ti.template()):  # fmt: skip
        """A thread's samples at one level."""
        in_space = fields.static_level(scales, integers, level)
        in_spacetime = fields.dynamic_level(scales, integers, level)
        if ti.static(block == 1):  # without a loop, so that Taichi's adjoint holds
            value, change = at(part, positions, times, mask, static_table, dynamic_table, in_space, in_spacetime)
            write(level, part, value, change, out, slope)
        else:
            for k in range(block):
                sample = part * block + k
                if ti.static(gpu):
                    sample = part + k * parts(positions)
                if sample < positions.shape[0]:
                    value, change = at(
                        sample, positions, times, mask, static_table, dynamic_table, in_space, in_spacetime
                    )  # fmt: skip
                    write(level, sample, value, change, out, slope)

    @ti.kernel
    def forward(
        positions: matrix,  # (M, 3)
        times: vector,  # (N,), M a multiple of N
        mask_logits: logits,  # (Em, 1)
        static_table: table,  # (E3, F)
        dynamic_table: table,  # (E4, F)
        scales: matrix,  # (1+2L, 4) `joined_constants` of the three grids
        integers: level_rows,  # (1+2L, 7)
        out: stored_matrix,  # (L*F, M)
        mask: vector,  # (M,)
        slope: stored_matrix,  # (L*F, M) d out / d mask, or empty where no gradient will be asked for
        static_from: ti.i32,  # first sample whose mask counts as 1
    ):
        for sample in range(positions.shape[0]):
            x = masks.load_point(positions, times, sample)
            mask[sample] = read_mask(sample, x, mask_logits, scales, integers, static_from)
        for level, part in ti.ndrange(fields.levels(scales), parts(positions)):
            encode(
                level, part, positions, times, static_table, dynamic_table, scales, integers, out, mask, slope
            )  # fmt: skip

    @ti.kernel
    def forward_first(
        number: numbers,  # (1,) how many positions count; of the next ones up to a multiple of `aligned` too
        aligned: ti.i32,
        positions: matrix,  # (M, 3)
        times: vector,  # (N,), M a multiple of N
        mask_logits: logits,
        static_table: table,
        dynamic_table: table,
        scales: matrix,
        integers: level_rows,
        out: stored_matrix,  # (L*F, M)
        mask: vector,  # (M,)
    ):
        for sample in range(positions.shape[0]):
            if sample < ti.min(up_to(number, aligned), positions.shape[0]):
                x = masks.load_point(positions, times, sample)
                mask[sample] = masks.mask_at(x, mask_logits, scales, integers)
        for level, part in ti.ndrange(fields.levels(scales), parts(positions)):
            # as many samples a thread as if there were no others
            count = ti.min(up_to(number, aligned), positions.shape[0])
            threads = (count + block - 1) // block
            if part < threads:
                in_space = fields.static_level(scales, integers, level)
                in_spacetime = fields.dynamic_level(scales, integers, level)
                for k in range(block):
                    sample = part * block + k
                    if ti.static(gpu):
                        sample = part + k * threads
                    if sample < count:
                        value, _ = at(
                            sample, positions, times, mask, static_table, dynamic_table, in_space, in_spacetime
                        )  # fmt: skip
                        for f in ti.static(range(features)):
                            out[level * features + f, sample] = ti.cast(value[f], stored)

    @ti.kernel
    def forward_along(
        origins: matrix,  # (N, 3)
        directions: matrix,  # (N, 3)
        t_edges: matrix,  # (N, S+1)
        box: real,
        positions: matrix,  # (M, 3), M = N*S, overwritten
        times: vector,
        mask_logits: logits,
        static_table: table,
        dynamic_table: table,
        scales: matrix,
        integers: level_rows,
        out: stored_matrix,
        mask: vector,
        slope: stored_matrix,
        static_from: ti.i32,
    ):
        for ray, i in ti.ndrange(origins.shape[0], t_edges.shape[1] - 1):
            sample = ray * (t_edges.shape[1] - 1) + i
            x = scene.contracted(rays.centre(origins, directions, t_edges, ray, i), box)
            for d in ti.static(range(3)):
                positions[sample, d] = x[d]
            at = masks.point(x, times, ray)
            mask[sample] = read_mask(sample, at, mask_logits, scales, integers, static_from)
        for level, part in ti.ndrange(fields.levels(scales), parts(positions)):
            encode(
                level, part, positions, times, static_table, dynamic_table, scales, integers, out, mask, slope
            )  # fmt: skip

    @ti.func
    def gradient_of_logit(
        sample, mask: ti.template(), slope: ti.template(), out_gradient: ti.template(), mask_gradient: ti.template()
    ):
        total = ti.cast(0, real)
        m = mask[sample]
        if m * (1 - m) > 0:
            if mask_gradient.shape[0] > 0:
                total += mask_gradient[sample]
            if ti.static(fields.has_slope):
                for k in range(out_gradient.shape[0]):
                    total += ti.cast(out_gradient[k, sample], real) * ti.cast(slope[k, sample], real)
        return total * m * (1 - m)

    @ti.kernel
    def backward(
        positions: matrix,
        times: vector,
        mask: vector,
        slope: stored_matrix,
        scales: matrix,
        integers: level_rows,
        out_gradient: stored_matrix,  # (L*F, M)
        mask_gradient: vector,  # (M,), or empty for none
        logit_gradient: vector,  # (M,) gradient of the mask's logit at each sample
        mask_sums: summed,  # (Em, 1), zero on entry
        static_sums: summed,  # zero on entry
        dynamic_sums: summed,  # zero on entry
        sum_scales: floats,  # (L,) fixed-point units per one; not read by other sums
    ):
        for sample in range(positions.shape[0]):
            total = gradient_of_logit(sample, mask, slope, out_gradient, mask_gradient)
            logit_gradient[sample] = total
            if ti.static(sums != "serial"):
                x = masks.load_point(positions, times, sample)
                masks.scatter_mask(x, total, scales, integers, mask_sums)
        if ti.static(sums == "serial"):
            # a task owns what it adds to: a table's level, or the mask
            for item in range(scales.shape[0] * GRAIN):
                if item % GRAIN == 0:
                    task = item // GRAIN
                    if task == scales.shape[0] - 1:
                        for sample in range(positions.shape[0]):
                            x = masks.load_point(positions, times, sample)
                            masks.scatter_mask(x, logit_gradient[sample], scales, integers, mask_sums)
                    elif task % 2 == 0:
                        space.scatter_span(
                            task // 2 * features, fields.static_level(scales, integers, task // 2), 0, 0,
                            positions.shape[0], 1, positions, times, static_share_of, mask, out_gradient,
                            static_sums, 0.0,
                        )  # fmt: skip
                    elif ti.static(fields.has_dynamic):
                        spacetime.scatter_span(
                            task // 2 * features, fields.dynamic_level(scales, integers, task // 2), 0, 0,
                            positions.shape[0], positions.shape[0] // times.shape[0], positions, times,
                            dynamic_share_of, mask, out_gradient, dynamic_sums, 0.0,
                        )  # fmt: skip
        else:
            for level, item in ti.ndrange(fields.levels(scales), lanes * ((positions.shape[0] + RUN - 1) // RUN)):
                space.scatter_span(
                    level * features, fields.static_level(scales, integers, level), item % lanes, item // lanes * RUN,
                    RUN, 1, positions, times, static_share_of, mask, out_gradient, static_sums, sum_scales[level],
                )  # fmt: skip
            if ti.static(fields.has_dynamic):
                for level, item in ti.ndrange(fields.levels(scales), lanes * ((positions.shape[0] + RUN - 1) // RUN)):
                    spacetime.scatter_span(
                        level * features, fields.dynamic_level(scales, integers, level), item % lanes,
                        item // lanes * RUN, RUN, positions.shape[0] // times.shape[0], positions, times,
                        dynamic_share_of, mask, out_gradient, dynamic_sums, sum_scales[level],
                    )  # fmt: skip

    @ti.kernel
    def backward_positions(
        positions: matrix,
        times: vector,
        mask_logits: logits,
        static_table: table,
        dynamic_table: table,
        mask: vector,
        scales: matrix,
        integers: level_rows,
        out_gradient: stored_matrix,
        logit_gradient: vector,
        position_gradient: matrix,  # (M, 3)
    ):
        for sample in range(positions.shape[0]):
            x = space.load_point(positions, times, sample, 1)
            total = masks.mask_position_gradient(
                masks.load_point(positions, times, sample), logit_gradient[sample], mask_logits, scales, integers
            )
            for level in range(fields.levels(scales)):
                gradient = space.value(0)
                for f in ti.static(range(features)):
                    gradient[f] = ti.cast(out_gradient[level * features + f, sample], real)
                total += static_share_of(mask, sample) * space.position_gradient(
                    x, gradient, static_table, fields.static_level(scales, integers, level)
                )
                if ti.static(fields.has_dynamic):
                    xt = spacetime.load_point(positions, times, sample, positions.shape[0] // times.shape[0])
                    change = spacetime.position_gradient(
                        xt, gradient, dynamic_table, fields.dynamic_level(scales, integers, level)
                    )
                    for d in ti.static(range(3)):
                        total[d] += dynamic_share_of(mask, sample) * change[d]
            for d in ti.static(range(3)):
                position_gradient[sample, d] = total[d]

    return launchers(
        forward=forward,
        forward_first=forward_first,
        forward_along=forward_along,
        backward=backward,
        backward_positions=backward_positions,
    )
