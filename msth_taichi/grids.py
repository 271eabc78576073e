"""Sizes and index constants of the hash grids, shared by the kernels and their references so that they cannot drift.

Letters: D axes, L levels, F features per entry, T log2 of the largest level, E entries of all levels.
"""

import math
from dataclasses import dataclass
from functools import cached_property

# one large prime per axis x, y, z, time (Instant-NGP, section 3; the fourth from the released MSTH code)
PRIMES = (1, 2654435761, 805459861, 3674653429)

# the released code computes scales in float32, where 2047.00002 must not become one more vertex
_SCALE_TOLERANCE = 1e-4


@dataclass(frozen=True)
class GridSpec:
    """An N-D multi-resolution grid with its own resolution on each axis; levels too large for the table are hashed.

    With growth b_d = (max_d / base_d)^(1 / (L - 1)) and level l, axis d:

        scale[l][d] = base_d b_d^l - 1          position p = x scale + 0.5, cell floor(p)
        resolution  = ceil(scale) + 1
        entries[l]  = min(2^T, prod_d (resolution + 1)), rounded up to a multiple of 8

    Where `aligned`, the last axis stands on its vertices instead: position p = x scale, its vertex k at k / scale, and
    none beyond its ends.

    A level is dense (index = sum_d c_d stride_d) where all its vertices fit, else hashed as a whole
    (index = XOR_d c_d prime_d mod 2^32); either is taken modulo entries[l].

    Args:
        base: vertices per axis at the coarsest level.
        max: vertices per axis at the finest level.
        levels: L.
        features: F, values per entry.
        log2_entries: T; None for no limit (every level dense).
        aligned: whether the last axis begins and ends on a vertex; of grids with one level.
    Source: method of the released MSTH code; hash of Müller et al. 2022, Instant-NGP.

    Example:
        >>> GridSpec((16, 16, 16), (2048, 2048, 2048), 16, 2, 19).num_entries
        6119864
    """

    base: tuple[int, ...]
    max: tuple[int, ...]
    levels: int
    features: int
    log2_entries: int | None
    aligned: bool = False

    @property
    def axes(self) -> int:
        return len(self.base)

    @cached_property
    def growth(self) -> tuple[float, ...]:
        steps = max(self.levels - 1, 1)
        return tuple(
            (m / b) ** (1 / steps) if self.levels > 1 else 1.0 for b, m in zip(self.base, self.max, strict=True)
        )

    @cached_property
    def scales(self) -> tuple[tuple[float, ...], ...]:
        """[L][D] cells along each axis."""
        return tuple(
            tuple(b * g**level - 1 for b, g in zip(self.base, self.growth, strict=True)) for level in range(self.levels)
        )

    @cached_property
    def resolutions(self) -> tuple[tuple[int, ...], ...]:
        """[L][D] vertices that the upper end of each axis can reach."""
        last = self.axes - 1 if self.aligned else None
        return tuple(
            tuple(math.ceil(s - _SCALE_TOLERANCE) + (axis != last) for axis, s in enumerate(scale))
            for scale in self.scales
        )

    @cached_property
    def entries(self) -> tuple[int, ...]:
        """[L] slots of each level."""
        sizes = (math.prod(r + 1 for r in resolution) for resolution in self.resolutions)
        if self.log2_entries is not None:
            sizes = (min(size, 2**self.log2_entries) for size in sizes)
        return tuple(-(-size // 8) * 8 for size in sizes)

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """[L] first slot of each level in the table."""
        return tuple(sum(self.entries[:level]) for level in range(self.levels))

    @cached_property
    def strides(self) -> tuple[tuple[int, ...], ...]:
        """[L][D] slot strides of a dense level; all zero where the level is hashed."""
        rows = []
        for res, count in zip(self.resolutions, self.entries, strict=True):
            stride, row = 1, []
            for r in res:
                row.append(stride)
                stride *= r + 1
            rows.append(tuple(row) if stride <= count else (0,) * self.axes)
        return tuple(rows)

    @cached_property
    def num_entries(self) -> int:
        """E, slots of all levels together."""
        return sum(self.entries)

    @property
    def num_outputs(self) -> int:
        """L * F."""
        return self.levels * self.features


def mask_spec(resolution: int, times: int = 1) -> GridSpec:
    """One dense level with one value a vertex: `resolution` + 1 vertices per axis of space, none of which wraps.

    With more than one of `times`, time is a fourth axis of that many vertices, number k at time k / (times - 1).

    The released code capped this table at 2^21 entries, fewer than its 129^3 vertices, so that opposite faces of
    the scene shared some of them.
    """
    if times == 1:
        return GridSpec((resolution,) * 3, (resolution,) * 3, 1, 1, None)
    vertices = resolution, resolution, resolution, times
    return GridSpec(vertices, vertices, 1, 1, None, aligned=True)
