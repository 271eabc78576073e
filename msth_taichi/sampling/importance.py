"""Pixels drawn by how much they differ from their usual colour, or from nearby times: for cameras that stand still.

One weight for each pixel of each frame would take more memory than the frames, so weights are summed over squares of
B x B pixels, as fine as `sampler.map_memory` allows; a square is drawn by its sum, and in it every pixel alike. Where
B is 1, pixels are drawn by their own weights.

Letters: K images, B edge of a cell in pixels, M cells of all images, N pixels, w weight of a cell.
"""

from collections.abc import Sequence

import torch
from tqdm import tqdm

from msth_taichi.config import SamplerConfig
from msth_taichi.sampling.cells import Cells
from msth_taichi.sampling.pixels import PixelBatch, join
from msth_taichi.sampling.sampler import Sampler
from msth_taichi.sampling.uniform import UniformSampler
from msth_taichi.sampling.weights import UNIT, Weigh
from msth_taichi.scene.scene import Images

CELL_BYTES = 4
"""Of a map, for each cell."""

_MOST_WEIGHT = 2**30  # of one image: its running sum has to fit into an int32


def importance_map(images: Images, cells: Cells, weigh: Weigh, progress: bool = False) -> torch.Tensor:
    """Running sums over the cells of each image, (M,) int32: w_1, w_1 + w_2, ..., anew for each image.

    w is the sum of the weights in a cell, divided by a number that all cells have in common and rounded up: a cell
    with any weight keeps some.

    Args:
        images: of cameras that stand still.
        cells: of the images, row for row.
        weigh: the weights of one camera's frames.
        progress: show a bar.
    """
    found = torch.empty(cells.total, dtype=torch.int32, device=cells.device)
    divisor = -(-cells.most_pixels * UNIT // _MOST_WEIGHT)
    with tqdm(total=len(images), desc="importance", unit="frame", disable=not progress) as bar:
        for camera in images.camera.unique():
            rows = (images.camera == camera).nonzero()[:, 0]
            rows = rows[images.time[rows].argsort(stable=True)]
            for k, first, weights in weigh(rows, cells.edge):
                sums = cells.sums(weights)
                start = cells.starts[k] + first // cells.edge * sums.shape[1]
                found[start : start + sums.numel()] = (-(-sums // divisor)).flatten()
                bar.update(first == 0)
    for start, count in zip(cells.starts, cells.counts.tolist(), strict=True):
        part = found[start : start + count]
        part.copy_(part.cumsum(0))
    return found


class ImportanceSampler(Sampler):
    """Draws cells by a map and their pixels evenly, with replacement, beside a share of pixels of all images alike.

    Args:
        cells: of the images, row for row.
        maps: of `importance_map`: the one to draw by, or that and the one from `config.ist_step` on.
        even: draws the share of pixels that are drawn alike, and all where a map has no weight at all.
        config: `uniform` and `ist_step`.
        generator: on the device of `cells`; all randomness comes from it.
    """

    def __init__(
        self,
        cells: Cells,
        maps: Sequence[torch.Tensor],
        even: UniformSampler,
        config: SamplerConfig,
        generator: torch.Generator,
    ):
        self._cells, self._maps, self._even, self._config, self._generator = cells, maps, even, config, generator
        # weights of all images up to each
        self._ends = [sums[cells.ends - 1].long().cumsum(0) for sums in maps]
        self._totals = [int(ends[-1]) for ends in self._ends]

    def sample(self, step: int, count: int, batches: int = 1) -> PixelBatch:
        """`batches` batches of N = `count` pixels by the map of one step.

        In each, round(uniform N) pixels are drawn evenly and come first.
        """
        chosen = len(self._maps) - 1 if step >= self._config.ist_step else 0
        even = round(self._config.uniform * count) if self._totals[chosen] else count
        return join(self._even.sample(step, even, batches), self._weighted(chosen, batches * (count - even)), batches)

    def _weighted(self, chosen: int, count: int) -> PixelBatch:
        cells, sums, ends, device = self._cells, self._maps[chosen], self._ends[chosen], self._cells.device
        total = max(self._totals[chosen], 1)
        drawn = torch.randint(total, (count,), generator=self._generator, device=device)
        image = torch.searchsorted(ends, drawn, right=True)
        # what is left within its image; the first cell whose running sum exceeds it
        left = drawn - torch.where(image > 0, ends[(image - 1).clamp(min=0)], 0)
        low, high, start = torch.zeros_like(image), cells.counts[image] - 1, cells.first[image]
        for _ in range(cells.most.bit_length()):
            middle = (low + high) // 2
            below = sums[start + middle] <= left
            low = torch.where(below, torch.minimum(middle + 1, high), low)
            high = torch.where(below, high, middle)
        row, column = cells.place(image, low, self._generator)
        return PixelBatch(image, row, column, torch.zeros(count, dtype=torch.bool, device=device))
