"""Device functions shared by the grid kernels: the cell of a position, the slots of its corners, interpolation,
and the scatter of gradients.

Letters: D axes, C = 2^D corners of a cell (bit d of a corner says whether it is the upper one along axis d),
L levels, F features, M samples, E table entries.
"""

from functools import cache
from types import SimpleNamespace

import taichi as ti
import torch

from msth_taichi.grids import PRIMES, GridSpec

TAICHI_DTYPE = {torch.float16: ti.f16, torch.float32: ti.f32, torch.float64: ti.f64}

# neighbouring samples of a ray that one thread takes: their gradients are summed in registers while the cell stays
# the same, which halves the atomics near surfaces
RUN = 8

# PRIMES as the signed 32-bit integers with the same bits; products wrap alike
_SIGNED_PRIMES = tuple((p + 2**31) % 2**32 - 2**31 for p in PRIMES)


def real_of(dtype: torch.dtype):
    """The type that arithmetic is done in: float16 tables are summed in float32."""
    return ti.f64 if dtype == torch.float64 else ti.f32


@cache
def level_constants(spec: GridSpec, device: torch.device, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """What a kernel reads about each level: scales (L, D), and int32 rows (L, 2 + D) of offset, entries, strides.

    The strides of a hashed level are all zero.
    """
    rows = [[o, n, *s] for o, n, s in zip(spec.offsets, spec.entries, spec.strides, strict=True)]
    scales = torch.tensor(spec.scales, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
    return scales.to(device), torch.tensor(rows, dtype=torch.int32, device=device)


@cache
def cell_functions(axes: int, features: int, real, timed: bool) -> SimpleNamespace:
    """Device functions for grids of D = `axes` axes.

    Args:
        features: F.
        real: Taichi float type of the arithmetic.
        timed: the last axis is a ray's time, read from an array of its own.
    """
    corners = 2**axes
    point = ti.types.vector(axes, real)
    cell_type = ti.types.vector(axes, ti.i32)
    value_type = ti.types.vector(features, real)
    corner_sums = ti.types.matrix(corners, features, real)
    space_axes = axes - 1 if timed else axes

    @ti.func
    def load_point(positions: ti.template(), times: ti.template(), sample, samples_per_ray):
        x = point(0)
        for d in ti.static(range(space_axes)):
            x[d] = positions[sample, d]
        if ti.static(timed):
            x[axes - 1] = times[sample // samples_per_ray]
        return x

    @ti.func
    def is_inside(x):
        inside = 1
        for d in ti.static(range(axes)):
            # written so that NaN counts as outside
            if not (x[d] >= 0 and x[d] <= 1):
                inside = 0
        return inside

    @ti.func
    def locate(x, scales: ti.template(), level):
        cell = cell_type(0)
        fraction = point(0)
        for d in ti.static(range(axes)):
            p = x[d] * scales[level, d] + ti.cast(0.5, real)
            cell[d] = ti.cast(ti.floor(p), ti.i32)
            fraction[d] = p - ti.floor(p)
        return cell, fraction

    @ti.func
    def read_level(integers: ti.template(), level):
        strides = cell_type(0)
        for d in ti.static(range(axes)):
            strides[d] = integers[level, 2 + d]
        return integers[level, 0], integers[level, 1], strides

    @ti.func
    def slot(cell, corner: ti.template(), offset, entries, strides):
        dense = 0
        hashed = 0
        for d in ti.static(range(axes)):
            vertex = cell[d] + ((corner >> d) & 1)
            dense += vertex * strides[d]
            hashed ^= vertex * ti.static(_SIGNED_PRIMES[d])
        # a hashed level has 2^T entries. No branch: Taichi's autodiff reads its integers before they are written
        return offset + ti.select(strides[0] != 0, dense, hashed & (entries - 1))

    @ti.func
    def corner_weight(fraction, corner: ti.template()):
        weight = ti.cast(1.0, real)
        for d in ti.static(range(axes)):
            if ti.static((corner >> d) & 1):
                weight *= fraction[d]
            else:
                weight *= 1 - fraction[d]
        return weight

    @ti.func
    def corner_slope(fraction, corner: ti.template(), axis: ti.template()):
        """Derivative of the corner's weight to the fraction along one axis."""
        weight = ti.cast(1.0, real)
        for d in ti.static(range(axes)):
            if ti.static(d == axis):
                weight *= ti.static(1.0 if (corner >> d) & 1 else -1.0)
            elif ti.static((corner >> d) & 1):
                weight *= fraction[d]
            else:
                weight *= 1 - fraction[d]
        return weight

    @ti.func
    def interpolate(x, table: ti.template(), scales: ti.template(), integers: ti.template(), level):
        inside = is_inside(x) == 1
        cell, fraction = locate(ti.select(inside, x, point(0)), scales, level)
        offset, entries, strides = read_level(integers, level)
        total = value_type(0)
        for corner in ti.static(range(corners)):
            weight = ti.select(inside, corner_weight(fraction, corner), ti.cast(0, real))
            entry = slot(cell, corner, offset, entries, strides)
            for f in ti.static(range(features)):
                total[f] += weight * ti.cast(table[entry, f], real)
        return total

    @ti.func
    def position_gradient(x, gradient, table: ti.template(), scales: ti.template(), integers: ti.template(), level):
        """Gradient of <gradient, interpolate(x)> to x."""
        total = point(0)
        if is_inside(x):
            cell, fraction = locate(x, scales, level)
            offset, entries, strides = read_level(integers, level)
            for corner in ti.static(range(corners)):
                entry = slot(cell, corner, offset, entries, strides)
                value = ti.cast(0.0, real)
                for f in ti.static(range(features)):
                    value += gradient[f] * ti.cast(table[entry, f], real)
                for d in ti.static(range(axes)):
                    total[d] += value * corner_slope(fraction, corner, d) * scales[level, d]
        return total

    @ti.func
    def scatter_run(
        level,
        run,
        samples_per_ray,
        positions: ti.template(),
        times: ti.template(),
        share: ti.template(),  # device function of (mask, sample): the factor between the output and this table
        mask: ti.template(),
        scales: ti.template(),
        integers: ti.template(),
        out_gradient: ti.template(),  # (L*F, M)
        table_gradient: ti.template(),  # (E, F)
    ):
        """Add the table gradient of RUN neighbouring samples at one level."""
        offset, entries, strides = read_level(integers, level)
        cell = cell_type(0)
        sums = corner_sums(0)
        pending = 0
        for k in range(RUN + 1):  # the last round only empties the registers
            sample = run * RUN + k
            gradient = value_type(0)
            fraction = point(0)
            next_cell = cell
            some = 0
            if k < RUN and sample < positions.shape[0]:
                factor = share(mask, sample)
                for f in ti.static(range(features)):
                    gradient[f] = factor * ti.cast(out_gradient[level * features + f, sample], real)
                    if gradient[f] != 0:
                        some = 1
                if some == 1:
                    x = load_point(positions, times, sample, samples_per_ray)
                    if is_inside(x):
                        next_cell, fraction = locate(x, scales, level)
                    else:
                        some = 0
            if pending == 1 and (k == RUN or (some == 1 and any(next_cell != cell))):
                for corner in ti.static(range(corners)):
                    entry = slot(cell, corner, offset, entries, strides)
                    for f in ti.static(range(features)):
                        ti.atomic_add(table_gradient[entry, f], sums[corner, f])
                sums = corner_sums(0)
                pending = 0
            if some == 1:
                cell = next_cell
                pending = 1
                for corner in ti.static(range(corners)):
                    weight = corner_weight(fraction, corner)
                    for f in ti.static(range(features)):
                        sums[corner, f] += weight * gradient[f]

    return SimpleNamespace(
        point=point,
        value=value_type,
        corners=corners,
        load_point=load_point,
        is_inside=is_inside,
        locate=locate,
        read_level=read_level,
        slot=slot,
        corner_weight=corner_weight,
        interpolate=interpolate,
        position_gradient=position_gradient,
        scatter_run=scatter_run,
    )
