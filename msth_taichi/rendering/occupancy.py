"""Which cells of space hold anything, for spans of time: what is empty need not be looked up.

Letters: C cells per axis, T spans of time.
"""

import math
from functools import partial

import torch

from msth_taichi.model.encoding import MaskedEncoding
from msth_taichi.model.field import ProposalField
from msth_taichi.model.parts import in_parts
from msth_taichi.model.space import Space
from msth_taichi.ops.marching import pack_cells

EMPTY_DEPTH = 1e-3
"""Optical depth across a cell below which it counts as empty."""

_VERTICES = 2  # of the proposal's time axis in one span: fewer leave more cells empty, and cost as much in all
_SLAB = 2**22  # corners looked up at once


class Occupancy:
    """Cells that a proposal finds something in, worked out as they are asked for.

    A proposal's density is looked up at the corners of C^3 cells, and at all vertices of its time axis within a span.
    Between corners it is close to linear where cells are no larger than those of its finest level, so the largest
    corner stands for the cell.

    Args:
        proposal: the last one, which decides where the samples of the field lie.
        compute: dtype of features and MLPs.
        cells: C, a multiple of 4.
        static_only: read the static table alone; there is one span then.
        least: optical depth across a cell below which it counts as empty.

    Example:
        >>> Occupancy(model.proposals[-1], model.compute, 128).at(0.5).shape
        torch.Size([65536])
    """

    def __init__(
        self,
        proposal: ProposalField,
        compute: torch.dtype,
        cells: int,
        static_only: bool = False,
        least: float = EMPTY_DEPTH,
    ):
        self._proposal, self._compute, self._static_only = proposal, compute, static_only
        self.cells = cells
        steps = proposal.encoding.dynamic_spec.scales[-1][3]
        self.spans = 1 if static_only else max(1, math.ceil(steps / _VERTICES))
        self._steps = steps
        self._bits: dict[int, torch.Tensor] = {}
        self._emptiest = self._least_logits(least)

    def at(self, time: float) -> torch.Tensor:
        """(C^3 / 32,) bits for `marched_density`, of the span that a time lies in."""
        span = self.span(time)
        if span not in self._bits:
            self._bits[span] = pack_cells(self.occupied(span))
        return self._bits[span]

    def span(self, time: float) -> int:
        """The span that a time lies in."""
        return min(int(time * self.spans), self.spans - 1)

    @torch.no_grad()
    def occupied(self, span: int) -> torch.Tensor:
        """(C, C, C) bool along x, y and z."""
        most: torch.Tensor | None = None
        for time in self.times(span):
            found = self._corner_logits(time)
            most = found if most is None else torch.maximum(most, found)
        assert most is not None
        return _over_corners(most) > self._emptiest

    @torch.no_grad()
    def least_mask(self, encoding: MaskedEncoding) -> torch.Tensor:
        """(C, C, C) the most moving mask at the corners of each cell, at any time, of this encoding."""
        steps = encoding.mask_spec.scales[0][3] if encoding.mask_spec.axes == 4 else 0
        times = torch.linspace(0, 1, round(steps) + 1).to(self._emptiest)
        corners = self._corners()
        masks = [torch.cat(in_parts(corners, _SLAB, partial(encoding.mask, times=time[None]))) for time in times]
        return -_over_corners(-torch.stack(masks).amin(0).view((self.cells + 1,) * 3))

    def times(self, span: int) -> list[float]:
        """Where a span begins and ends, and the vertices of time in it."""
        if self._static_only:
            return [0.5]
        first, last = span / self.spans, (span + 1) / self.spans
        # vertex k of a grid lies at (k - 1/2) / scale
        vertices = range(math.ceil(first * self._steps + 0.5), math.floor(last * self._steps + 0.5) + 1)
        inner = [(k - 0.5) / self._steps for k in vertices] if self._steps else []
        return [first, *(t for t in inner if first < t < last), last]

    def _corner_logits(self, time: float) -> torch.Tensor:
        """(C+1, C+1, C+1) at one time."""
        times = torch.full((1,), time, device=self._emptiest.device)

        def logits(part: torch.Tensor) -> torch.Tensor:
            return self._proposal.at(part, times, self._compute, self._static_only).density_logits.float()

        return torch.cat(in_parts(self._corners(), _SLAB, logits)).view((self.cells + 1,) * 3)

    def _corners(self) -> torch.Tensor:
        """((C+1)^3, 3) grid positions."""
        axis = torch.linspace(0, 1, self.cells + 1, device=self._proposal.encoding.mask_logits.device)
        return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).view(-1, 3)

    def _least_logits(self, least: float) -> torch.Tensor:
        """(C, C, C) density logits that a cell is not empty from: log of an optical depth over its longest side."""
        device = self._proposal.encoding.mask_logits.device
        centre = (torch.arange(self.cells, device=device) + 0.5) / self.cells
        grid = torch.stack(torch.meshgrid(centre, centre, centre, indexing="ij"))
        # of its outermost corner, where a contracted cell reaches farthest
        grid = grid + torch.sign(grid - 0.5) * 0.5 / self.cells
        return math.log(least) - torch.log(side_lengths(grid, self._proposal.space) / self.cells)


def side_lengths(places: torch.Tensor, space: Space) -> torch.Tensor:
    """(...) scene units that a step across the whole grid would cover at the slope found at places (3, ...).

    Where space is contracted, y = 2 - 1 / r at distance r from the origin, of which dr/dy = r^2 = 1 / (2 - y)^2; beyond
    r = 1000 as there.
    """
    if space.contraction == "none":
        return torch.full_like(places[0], 2 * space.box)
    y = 4 * places - 2
    radius = y.norm(dim=0) if space.contraction == "l2" else y.abs().amax(0)
    return 4 / (2 - radius.clamp(1, 2 - 1e-3)).square()


def _over_corners(values: torch.Tensor) -> torch.Tensor:
    """(C, C, C) largest value at the corners of each cell, of (C+1, C+1, C+1)."""
    for axis in range(3):
        count = values.shape[axis] - 1
        values = torch.maximum(values.narrow(axis, 0, count), values.narrow(axis, 1, count))
    return values
