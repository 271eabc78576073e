"""Device functions shared by the grid kernels: the cell of a position, the slots of its corners, interpolation, and
the scatter of gradients.

Letters: D axes, C = 2^D corners of a cell (bit d of a corner says whether it is the upper one along axis d),
L levels, F features, M samples, E table entries.
"""

from functools import cache
from types import SimpleNamespace
from typing import Literal

import taichi as ti
import torch

from msth_taichi.grids import PRIMES, GridSpec

TAICHI_DTYPE = {torch.float16: ti.f16, torch.float32: ti.f32, torch.float64: ti.f64}

Sums = Literal["fixed", "atomic", "serial"]
"""How gradients that meet in one entry are added.

    fixed   both features as 32-bit integers in one 64-bit atomic: half the atomics, and any order gives the same bits
    atomic  one float atomic per feature
    serial  plain additions, for a loop that owns its level: what a CPU does best
"""

# neighbouring samples of a ray that one GPU thread takes: their gradients are summed in registers while the cell
# stays the same, which halves the atomics near surfaces
RUN = 8
# GPU threads that share the samples of a scatter, see `cell_functions`
LANES = 2
# samples of one level that a thread looks up: what depends on the level alone is then read once. A CPU takes
# neighbours; a GPU takes them far apart, so that neighbouring threads still read neighbouring samples
BLOCK = 64
BLOCK_APART = 4
# Taichi gives a CPU thread at least 512 iterations of a loop, so a long task is spread over as many
GRAIN = 512

# PRIMES as the signed 32-bit integers with the same bits; products wrap alike
_SIGNED_PRIMES = tuple((p + 2**31) % 2**32 - 2**31 for p in PRIMES)


def real_of(dtype: torch.dtype):
    """The type that arithmetic is done in: float16 tables are summed in float32."""
    return ti.f64 if dtype == torch.float64 else ti.f32


def word_of(dtype: torch.dtype, features: int) -> torch.dtype | None:
    """Integer dtype of a whole entry, so that its two features come in one load; None where they do not fit."""
    words = {torch.float16: torch.int32, torch.float32: torch.int64}
    return words.get(dtype) if features == 2 else None


def as_words(table: torch.Tensor) -> torch.Tensor:
    """(E, F) table as the kernels of its dtype read it: (E, 1) words where an entry fits into one."""
    word = word_of(table.dtype, table.shape[1])
    return table.view(word) if word else table


def table_type(dtype: torch.dtype, features: int):
    """Taichi type of an argument that holds `as_words` of a table."""
    word = word_of(dtype, features)
    return ti.types.ndarray(dtype={None: TAICHI_DTYPE[dtype], torch.int32: ti.i32, torch.int64: ti.i64}[word], ndim=2)


def sums_type(sums: Sums, real):
    """Taichi type of an argument that table gradients are added to: (E, 1) packed, or (E, F)."""
    return ti.types.ndarray(dtype=ti.i64 if sums == "fixed" else real, ndim=2)


@cache
def level_constants(spec: GridSpec, device: torch.device, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """What a kernel reads about each level: scales (L, D), and int32 rows (L, 3 + D).

    A row holds offset, entries - 1, whether the level is dense, and a factor per axis: its stride where the
    level is dense, else its prime.
    """
    primes = _SIGNED_PRIMES[: spec.axes]
    rows = [
        [offset, entries - 1, int(any(strides)), *(strides if any(strides) else primes)]
        for offset, entries, strides in zip(spec.offsets, spec.entries, spec.strides, strict=True)
    ]
    scales = torch.tensor(spec.scales, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
    return scales.to(device), torch.tensor(rows, dtype=torch.int32, device=device)


@cache
def joined_constants(
    specs: tuple[GridSpec, ...], device: torch.device, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """`level_constants` of several grids, one below the other: each argument of a launch costs microseconds."""
    parts = [level_constants(spec, device, dtype) for spec in specs]
    widest = max(spec.axes for spec in specs)
    scales, integers = (
        torch.cat([torch.nn.functional.pad(x, (0, extra + widest - x.shape[1])) for x in column]).contiguous()
        for column, extra in zip(zip(*parts, strict=True), (0, 3), strict=True)
    )
    return scales, integers


@cache
def pair_functions() -> SimpleNamespace:
    """Device functions for two floats in one integer word, the first in its low half."""

    @ti.func
    def unpack16(word):
        low = ti.bit_cast(ti.cast(word & 0xFFFF, ti.u16), ti.f16)
        high = ti.bit_cast(ti.cast((word >> 16) & 0xFFFF, ti.u16), ti.f16)
        return ti.Vector([ti.cast(low, ti.f32), ti.cast(high, ti.f32)])

    @ti.func
    def unpack32(word):
        low, high = ti.cast(word, ti.i32), ti.cast(word >> 32, ti.i32)
        return ti.Vector([ti.bit_cast(low, ti.f32), ti.bit_cast(high, ti.f32)])

    @ti.func
    def pack16(pair):
        low = ti.cast(ti.bit_cast(ti.cast(pair[0], ti.f16), ti.u16), ti.i32)
        high = ti.cast(ti.bit_cast(ti.cast(pair[1], ti.f16), ti.u16), ti.i32)
        return (high << 16) | low

    @ti.func
    def pack32(pair):
        low = ti.cast(ti.bit_cast(ti.cast(pair[0], ti.f32), ti.u32), ti.i64)
        high = ti.cast(ti.bit_cast(ti.cast(pair[1], ti.f32), ti.i32), ti.i64)
        return (high << 32) | low

    @ti.func
    def pack_fixed(a, b):
        """Two integers of 32 bits whose sums can be added as one: the low one borrows from the high one."""
        return (ti.cast(b, ti.i64) << 32) + ti.cast(a, ti.i64)

    @ti.func
    def unpack_fixed(word):
        low = ti.cast(ti.cast(word, ti.i32), ti.i64)
        return ti.Vector([ti.cast(low, ti.f32), ti.cast((word - low) >> 32, ti.f32)])

    @ti.func
    def nearest(x):
        return ti.cast(ti.floor(x + 0.5), ti.i32)

    return SimpleNamespace(
        unpack16=unpack16,
        unpack32=unpack32,
        pack16=pack16,
        pack32=pack32,
        pack_fixed=pack_fixed,
        unpack_fixed=unpack_fixed,
        nearest=nearest,
    )


@cache
def cell_functions(
    axes: int,
    features: int,
    dtype: torch.dtype,
    timed: bool,
    sums: Sums = "atomic",
    lanes: int = 1,
    aligned: bool = False,
) -> SimpleNamespace:
    """Device functions for grids of D = `axes` axes.

    Args:
        features: F.
        dtype: of the table, which they take as `as_words`.
        timed: the last axis is a ray's time, read from an array of its own.
        sums: how the scatter adds.
        lanes: threads that share the samples of a scatter: 2 gives each the corners of one `side` along x. A hash keeps
            neighbours along x close together, so neighbouring threads then add to the same sectors of memory.
        aligned: whether the last axis stands on its vertices, see `GridSpec`.
    """
    corners = 2**axes
    real = real_of(dtype)
    word = word_of(dtype, features)
    point = ti.types.vector(axes, real)
    cell_type = ti.types.vector(axes, ti.i32)
    value_type = ti.types.vector(features, real)
    corner_sums = ti.types.matrix(corners // lanes, features, real)
    # entries of a level begin at offset; a hashed one has last + 1, a power of two
    level_type = ti.types.struct(scale=point, offset=ti.i32, last=ti.i32, dense=ti.i32, factors=cell_type)
    space_axes = axes - 1 if timed else axes
    pairs = pair_functions()

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
    def read_level(scales: ti.template(), integers: ti.template(), row):
        level = level_type(offset=integers[row, 0], last=integers[row, 1], dense=integers[row, 2])
        for d in ti.static(range(axes)):
            level.scale[d] = scales[row, d]
            level.factors[d] = integers[row, 3 + d]
        return level

    @ti.func
    def locate(x, level):
        cell = cell_type(0)
        fraction = point(0)
        for d in ti.static(range(axes)):
            if ti.static(aligned and d == axes - 1):
                p = x[d] * level.scale[d]
                # the upper end belongs to the last cell: there is no vertex beyond it
                cell[d] = ti.min(ti.cast(ti.floor(p), ti.i32), ti.cast(level.scale[d], ti.i32) - 1)
                fraction[d] = p - ti.cast(cell[d], real)
            else:
                p = x[d] * level.scale[d] + ti.cast(0.5, real)
                cell[d] = ti.cast(ti.floor(p), ti.i32)
                fraction[d] = p - ti.floor(p)
        return cell, fraction

    @ti.func
    def slot(cell, corner: ti.template(), level):
        """Entry of a cell's corner. The compiler shares what corners have in common."""
        total = 0
        mixed = 0
        for d in ti.static(range(axes)):
            part = cell[d] * level.factors[d]
            if ti.static((corner >> d) & 1):
                part += level.factors[d]
            total += part
            mixed ^= part
        # no branch: Taichi's autodiff reads its integers before they are written
        return level.offset + ti.select(level.dense != 0, total, mixed & level.last)

    @ti.func
    def entry_value(table: ti.template(), entry):
        value = value_type(0)
        if ti.static(word == torch.int32):
            value = pairs.unpack16(table[entry, 0])
        elif ti.static(word == torch.int64):
            value = pairs.unpack32(table[entry, 0])
        else:
            for f in ti.static(range(features)):
                value[f] = ti.cast(table[entry, f], real)
        return value

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
    def interpolate(x, table: ti.template(), level):
        inside = is_inside(x) == 1
        cell, fraction = locate(ti.select(inside, x, point(0)), level)
        total = value_type(0)
        for corner in ti.static(range(corners)):
            weight = ti.select(inside, corner_weight(fraction, corner), ti.cast(0, real))
            total += weight * entry_value(table, slot(cell, corner, level))
        return total

    @ti.func
    def position_gradient(x, gradient, table: ti.template(), level):
        """Gradient of <gradient, interpolate(x)> to x."""
        total = point(0)
        if is_inside(x):
            cell, fraction = locate(x, level)
            for corner in ti.static(range(corners)):
                value = gradient.dot(entry_value(table, slot(cell, corner, level)))
                for d in ti.static(range(axes)):
                    total[d] += value * corner_slope(fraction, corner, d) * level.scale[d]
        return total

    @ti.func
    def own_side(cell, fraction, side):
        """Cell and fraction as if the corners of this lane's side along x were the lower ones."""
        own_cell, own_fraction = cell, fraction
        if ti.static(lanes == 2):
            own_cell[0] += side
            own_fraction[0] = ti.select(side == 1, 1 - fraction[0], fraction[0])
        return own_cell, own_fraction

    @ti.func
    def add_to_entry(table_sums: ti.template(), entry, corner: ti.template(), values, scale):
        """Add row `corner` of `values` (C, F) to an entry; `scale` is fixed-point units per one."""
        if ti.static(sums == "fixed"):
            a = pairs.nearest(values[corner, 0] * scale)
            b = pairs.nearest(values[corner, 1] * scale)
            if a != 0 or b != 0:
                ti.atomic_add(table_sums[entry, 0], pairs.pack_fixed(a, b))
        else:
            for f in ti.static(range(features)):
                if ti.static(sums == "serial"):
                    # an augmented assignment would become an atomic
                    table_sums[entry, f] = table_sums[entry, f] + values[corner, f]
                else:
                    ti.atomic_add(table_sums[entry, f], values[corner, f])

    @ti.func
    def scatter_span(
        outputs,  # first of the level's rows in out_gradient
        level,
        side,
        first,
        count,  # samples first to first + count - 1, a whole thread's work
        samples_per_ray,
        positions: ti.template(),
        times: ti.template(),
        share: ti.template(),  # device function of (mask, sample): the factor between the output and this table
        mask: ti.template(),
        out_gradient: ti.template(),  # (L*F, M)
        table_sums: ti.template(),
        sum_scale,
    ):
        """Add the table gradient of neighbouring samples at one level."""
        cell = cell_type(0)
        pending_sums = corner_sums(0)
        pending = 0
        for k in range(count + 1):  # the last round only empties the registers
            sample = first + k
            gradient = value_type(0)
            fraction = point(0)
            next_cell = cell
            some = 0
            if k < count and sample < positions.shape[0]:
                factor = share(mask, sample)
                if factor != 0:
                    for f in ti.static(range(features)):
                        gradient[f] = factor * ti.cast(out_gradient[outputs + f, sample], real)
                        if gradient[f] != 0:
                            some = 1
                if some == 1:
                    x = load_point(positions, times, sample, samples_per_ray)
                    if is_inside(x):
                        next_cell, fraction = locate(x, level)
                    else:
                        some = 0
            if pending == 1 and (k == count or (some == 1 and any(next_cell != cell))):
                own_cell, _ = own_side(cell, fraction, side)
                for c in ti.static(range(corners // lanes)):
                    entry = slot(own_cell, lanes * c, level)
                    add_to_entry(table_sums, entry, c, pending_sums, sum_scale)
                pending_sums = corner_sums(0)
                pending = 0
            if some == 1:
                cell = next_cell
                pending = 1
                _, own_fraction = own_side(cell, fraction, side)
                for c in ti.static(range(corners // lanes)):
                    weight = corner_weight(own_fraction, lanes * c)
                    for f in ti.static(range(features)):
                        pending_sums[c, f] += weight * gradient[f]

    return SimpleNamespace(
        point=point,
        value=value_type,
        corners=corners,
        load_point=load_point,
        is_inside=is_inside,
        locate=locate,
        read_level=read_level,
        slot=slot,
        entry_value=entry_value,
        corner_weight=corner_weight,
        interpolate=interpolate,
        position_gradient=position_gradient,
        scatter_span=scatter_span,
    )
