"""Pixels drawn by how wrong the field was near them lately: for any cameras.

Errors are kept for squares of B x B pixels of each camera and for each of several spans of time. Sums of errors are
whole numbers, which threads may add in any order, and so is what a cell is drawn by: two runs are equal bit for bit.

What a block of steps draws must not depend on how early its pixels are asked for, which the place of the frames
decides. So the map is renewed once a block, after its last step, and a block is drawn from the map as of the block
before it began. A checkpoint has both maps and the errors of the block that has begun: a training that is resumed
draws the same blocks again, whatever they were drawn ahead.

Letters: G pictures (the images of one camera in one span of time), B edge of a cell in pixels, M cells of all
pictures, E error of a cell, d decay, N pixels.
Source: the error map of the released MSTH code, in spirit: there, cells keep the last ray's error.
"""

from collections.abc import Mapping

import torch

from msth_taichi.config import SamplerConfig
from msth_taichi.sampling.cells import Cells, finest_edge
from msth_taichi.sampling.pixels import PixelBatch, join
from msth_taichi.sampling.sampler import Sampler
from msth_taichi.sampling.uniform import UniformSampler
from msth_taichi.scene.cameras import Cameras
from msth_taichi.scene.scene import Images

CELL_BYTES = 64
"""For each cell: 28 that are kept, and what drawing and renewing take for a moment."""

_UNIT = 2**24  # whole numbers for errors between 0 and 1
_UNSEEN = -1.0


class ErrorMapSampler(Sampler):
    """Draws cells by E times the pixels and images that they stand for, and in a cell every pixel and image alike.

    E <- d E + (1 - d) mean error of the cell's rays in a block of steps. The first error that a cell sees replaces
    its E, and until then it is drawn as if it were 1, the largest, so that every cell is soon seen. A share of pixels
    of all images is drawn alike.

    Args:
        images: the table to draw from.
        cameras: for the sizes of images.
        config: `uniform`, `map_resolution`, `time_bins`, `map_decay`, `map_memory`.
        device: where batches are made.
        generator: on `device`; all randomness comes from it.
    Raises:
        ConfigError: `map_memory` is too small for a single cell of each picture.

    Example:
        >>> batch = sampler.sample(step, 4096, batches=16)  # then, after each of the 16 steps:
        >>> sampler.update(image, row, column, error)  # of the step's 4096 pixels
    """

    learns = True

    def __init__(
        self,
        images: Images,
        cameras: Cameras,
        config: SamplerConfig,
        device: torch.device,
        generator: torch.Generator,
    ):
        self._config, self._device, self._generator = config, device, generator
        self._even = UniformSampler(images, cameras, device, generator)
        span = (images.time.double() * config.time_bins).long().clamp(0, config.time_bins - 1)
        keys, picture, frames = (images.camera * config.time_bins + span).unique(
            return_inverse=True, return_counts=True
        )
        sizes = cameras.sizes.cpu()[keys // config.time_bins]
        edge = finest_edge(sizes, CELL_BYTES, config.map_memory, -(-int(sizes.max()) // config.map_resolution))
        self._cells = cells = Cells(sizes, edge, device)
        # images of picture g are order[first[g] : first[g] + frames[g]]
        self._picture = picture.to(device)
        self._order = picture.argsort(stable=True).to(device)
        self._first, self._frames = (frames.cumsum(0) - frames).to(device), frames.to(device)
        self._pixels = cells.pixels() * torch.repeat_interleave(self._frames, cells.counts)
        self._previous = torch.full((cells.total,), _UNSEEN, device=device)
        self._current = self._previous
        self._sum = torch.zeros(cells.total, dtype=torch.int64, device=device)
        self._count = torch.zeros(cells.total, dtype=torch.int32, device=device)
        self._updates, self._block = 0, 1

    def sample(self, step: int, count: int, batches: int = 1) -> PixelBatch:
        """A block of `batches` batches of N = `count` pixels, by the errors of all steps before `step - batches`.

        In each, round(uniform N) pixels are drawn evenly and come first. A block may be asked for once its last step
        but one block is known, or later; all blocks are of one length.
        """
        self._block = batches
        # the block of a step is asked for when it begins, or when the one before it does
        ahead = step // batches > self._updates // batches
        even = round(self._config.uniform * count)
        drawn = self._weighted(self._current if ahead else self._previous, batches * (count - even))
        return join(self._even.sample(step, even, batches), drawn, batches)

    @torch.no_grad()
    def update(self, image: torch.Tensor, row: torch.Tensor, column: torch.Tensor, error: torch.Tensor) -> None:
        """Note the errors of one step; errors outside [0, 1] count as the nearest in it, and NaN as 0."""
        cell = self._cells.index(self._picture[image], row, column)
        whole = (error.detach().float().nan_to_num(0).clamp(0, 1) * _UNIT).round().long()
        self._sum.index_add_(0, cell, whole)
        self._count.index_add_(0, cell, torch.ones_like(cell, dtype=torch.int32))
        self._updates += 1
        if self._updates % self._block == 0:
            self._renew()

    def state(self) -> dict[str, torch.Tensor]:
        """Both maps, what the block that has begun has seen, and the steps seen; takes 20 bytes for each cell."""
        state = {name: getattr(self, f"_{name}").clone() for name in _KEPT}
        return {**state, "updates": torch.tensor(self._updates)}

    def load_state(self, values: Mapping[str, torch.Tensor]) -> None:
        """Go on from `state()`, on any device."""
        for name in _KEPT:
            if values[name].shape != (self._cells.total,):
                found = tuple(values[name].shape)
                raise RuntimeError(f"error map '{name}' of {found} cells, expected {self._cells.total}")
        for name in _KEPT:
            setattr(self, f"_{name}", values[name].to(self._device, copy=True))
        self._updates = int(values["updates"])

    def _renew(self) -> None:
        mean = (self._sum.double() / (self._count.clamp(min=1) * float(_UNIT))).float()
        decay = self._config.map_decay
        mixed = torch.where(self._current < 0, mean, decay * self._current + (1 - decay) * mean)
        self._previous, self._current = self._current, torch.where(self._count > 0, mixed, self._current)
        self._sum.zero_()
        self._count.zero_()

    def _weighted(self, errors: torch.Tensor, count: int) -> PixelBatch:
        # at least 1, so that a map without errors is drawn from evenly
        weights = (torch.where(errors < 0, 1.0, errors) * _UNIT).round().long().clamp(min=1) * self._pixels
        ends = weights.cumsum(0)
        random = torch.rand(count, generator=self._generator, device=self._device, dtype=torch.float64)
        drawn = torch.minimum((random * ends[-1]).long(), ends[-1] - 1)
        cell = torch.searchsorted(ends, drawn, right=True)
        picture = torch.searchsorted(self._cells.ends, cell, right=True)
        row, column = self._cells.place(picture, cell - self._cells.first[picture], self._generator)
        frames = self._frames[picture]
        random = torch.rand(count, generator=self._generator, device=self._device)
        frame = torch.minimum((random * frames).long(), frames - 1)
        image = self._order[self._first[picture] + frame]
        return PixelBatch(image, row, column, torch.zeros(count, dtype=torch.bool, device=self._device))


_KEPT = ("previous", "current", "sum", "count")
