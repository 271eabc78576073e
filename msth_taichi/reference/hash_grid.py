"""N-D multi-resolution hash grid in plain PyTorch.

Letters: M samples, D axes, L levels, F features, E table entries.
"""

import itertools
import math

import torch

from msth_taichi.grids import PRIMES, GridSpec


def corner_slots(corner: torch.Tensor, spec: GridSpec, level: int) -> torch.Tensor:
    """Table rows (M,) of integer vertices (M, D) of a level, the level's offset included."""
    strides = spec.strides[level]
    if any(strides):
        index = (corner * torch.tensor(strides, device=corner.device)).sum(dim=1)
    else:
        index = torch.zeros_like(corner[:, 0])
        for d in range(spec.axes):
            index = index ^ ((corner[:, d] * PRIMES[d]) & 0xFFFFFFFF)
    return spec.offsets[level] + index % spec.entries[level]


def cells(x: torch.Tensor, spec: GridSpec, level: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cells (M, D) of points (M, D) of a level, integers, and how far into them the points lie, in [0, 1]."""
    p = x * torch.tensor(spec.scales[level], dtype=x.dtype, device=x.device)
    shift, last = torch.full((spec.axes,), 0.5), torch.full((spec.axes,), math.inf)
    if spec.aligned:
        shift[-1], last[-1] = 0, spec.scales[level][-1] - 1  # the upper end belongs to the last cell
    p = p + shift.to(p)
    cell = p.detach().floor().minimum(last.to(p))
    return cell.long(), p - cell


def hash_grid(positions: torch.Tensor, table: torch.Tensor, spec: GridSpec) -> torch.Tensor:
    """See `msth_taichi.ops.hash_grid`."""
    inside = ((positions >= 0) & (positions <= 1)).all(dim=1)
    x = torch.where(inside[:, None], positions, torch.zeros_like(positions))
    rows = []
    for level in range(spec.levels):
        cell, fraction = cells(x, spec, level)
        total = torch.zeros(len(x), spec.features, dtype=table.dtype, device=x.device)
        for bits in itertools.product((0, 1), repeat=spec.axes):
            upper = torch.tensor(bits, device=x.device)
            weight = torch.where(upper.bool(), fraction, 1 - fraction).prod(dim=1)
            total = total + weight[:, None] * table[corner_slots(cell + upper, spec, level)]
        rows.append(torch.where(inside[:, None], total, torch.zeros_like(total)))
    return torch.cat(rows, dim=1).T
