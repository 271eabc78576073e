"""Sums of two backward passes made one, where their fixed-point units differ.

Letters: L levels, E entries of a table.
"""

from functools import cache
from types import SimpleNamespace

import taichi as ti

from msth_taichi.kernels.cells import pair_functions
from msth_taichi.kernels.launch import launchers


@cache
def table_sums_kernels() -> SimpleNamespace:
    """See `msth_taichi.ops.table_sums`."""
    pairs = pair_functions()
    words = ti.types.ndarray(dtype=ti.i64, ndim=2)
    vector = ti.types.ndarray(dtype=ti.f32, ndim=1)

    @ti.kernel
    def take_over(
        sums: words,  # (E, 1)
        others: words,  # (E, 1), zero afterwards
        integers: ti.types.ndarray(dtype=ti.i32, ndim=2),  # `joined_constants`
        first: ti.i32,  # row of the table's first level in them
        ratio: vector,  # (L,) new units per unit of the sums
        other_ratio: vector,  # (L,)
        largest: ti.i32,  # entries of the largest level
    ):
        for level, k in ti.ndrange(ratio.shape[0], largest):
            if k <= integers[first + level, 1]:
                entry = integers[first + level, 0] + k
                mine, other = sums[entry, 0], others[entry, 0]
                if mine != 0 or other != 0:
                    total = pairs.unpack_fixed(mine) * ratio[level] + pairs.unpack_fixed(other) * other_ratio[level]
                    sums[entry, 0] = pairs.pack_fixed(pairs.nearest(total[0]), pairs.nearest(total[1]))
                    others[entry, 0] = 0

    return launchers(take_over=take_over)
