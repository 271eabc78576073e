"""Gradients of an encoding's tables, summed in fixed point. Letters: L levels, F features, E entries of a table."""

from collections.abc import Callable, Iterable

import torch

from msth_taichi.errors import TensorError
from msth_taichi.grids import GridSpec
from msth_taichi.kernels.cells import joined_constants
from msth_taichi.kernels.table_sums import table_sums_kernels
from msth_taichi.thresholds import FIXED_LIMIT, MASK_UNITS


class TableSums:
    """Where `masked_encoding` adds the gradients of its tables, for an optimiser to take.

    Both features of an entry share one 64-bit integer, so that one atomic adds them, and integers give the same
    bits in any order. A level's unit is the largest with which no sum can overflow: all of the level's incoming
    gradients could meet in one entry, so it is the sum of their magnitudes over 2^30.

    Args:
        mask: grid of the mask.
        static: grid of the static table.
        dynamic: grid of the dynamic table.
        device: a GPU; a CPU sums faster without atomics.

    Example:
        >>> sums = TableSums(mask_spec(4), static_spec, dynamic_spec, torch.device("cuda"))
        >>> features, mask = masked_encoding(..., sums=sums)
        >>> features.sum().backward()
        >>> static_gradient = sums.gradients()[1]
    """

    def __init__(self, mask: GridSpec, static: GridSpec, dynamic: GridSpec, device: torch.device):
        self.specs = (mask, static, dynamic)
        sizes = [spec.num_entries for spec in (static, dynamic, mask)]
        # in one piece: what several GPUs add up costs them time for each tensor, however small
        self.all = torch.zeros(sum(sizes), 1, dtype=torch.int64, device=device)
        self.static, self.dynamic, self.mask = self.all.split(sizes)
        self.bounds = torch.zeros(static.levels, device=device)
        """(L,) no sum of a level is larger; not finite where a gradient was not."""
        self.scales = torch.zeros(static.levels, device=device)
        """(L,) units per one."""
        self.pending = False
        """Whether there is something to take."""
        self.add: Callable[[Iterable[torch.Tensor]], None] = lambda tensors: None
        """Adds tensors up over the processes that train together: they must agree on the units."""
        self._beside: TableSums | None = None

    def open(self, out_gradient: torch.Tensor) -> None:
        """Choose the units for features' gradients (L*F, M).

        Raises:
            TensorError: earlier sums were not taken; those have other units.
        """
        if self.pending:
            raise TensorError("sums: of an earlier backward pass; open beside() and take it over, or call clear()")
        rows = out_gradient.view(len(self.bounds), -1)
        torch.linalg.vector_norm(rows, 1, dim=1, dtype=torch.float32, out=self.bounds)
        self.add([self.bounds])
        torch.div(FIXED_LIMIT, self.bounds.clamp(min=1e-25), out=self.scales)
        self.pending = True

    def beside(self) -> "TableSums":
        """Empty sums of the same tables, for a second backward pass before the first was taken."""
        if self._beside is None:
            self._beside = TableSums(*self.specs, self.mask.device)
            self._beside.add = self.add
        return self._beside

    def take_over(self, other: "TableSums") -> None:
        """Add the sums of another, which is empty then; units become those of both together."""
        bounds = self.bounds + other.bounds
        scales = torch.div(FIXED_LIMIT, bounds.clamp(min=1e-25))
        integers = joined_constants(self.specs, self.mask.device, torch.float32)[1]
        row = 1
        for mine, others in ((self.static, other.static), (self.dynamic, other.dynamic)):
            largest = int(max(self.specs[1 if mine is self.static else 2].entries))
            ratios = scales / self.scales, scales / other.scales
            table_sums_kernels().take_over(mine, others, integers, row, *ratios, largest)
            row += len(bounds)
        self.mask += other.mask
        other.mask.zero_()
        self.bounds.copy_(bounds)
        self.scales.copy_(scales)
        other.pending = False

    def clear(self) -> None:
        """Forget all sums."""
        self.all.zero_()
        self.pending = False
        if self._beside is not None:
            self._beside.clear()

    def gradients(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Gradients of mask logits (E, 1), static and dynamic table (E, F), in float32."""
        static, dynamic = (
            self._unpacked(sums, spec) for sums, spec in zip((self.static, self.dynamic), self.specs[1:], strict=True)
        )
        return self.mask.float() / MASK_UNITS, static, dynamic

    def _unpacked(self, sums: torch.Tensor, spec: GridSpec) -> torch.Tensor:
        low = sums.to(torch.int32).to(torch.int64)  # keeps the low 32 bits, sign included
        pairs = torch.cat([low, (sums - low) >> 32], dim=1).float()
        entries = torch.tensor(spec.entries, device=sums.device)
        return pairs / self.scales.repeat_interleave(entries)[:, None]
