"""What all pixel samplers have in common.

Letters: N pixels.
"""

from collections.abc import Mapping

import torch

from msth_taichi.sampling.pixels import PixelBatch


class Sampler:
    """Draws pixels of a table of images; all randomness comes from the generator that it is made with.

    A sampler that `learns` is told the error of every ray it has chosen, and has a state that a checkpoint keeps.
    One that does not learn ignores errors and has no state: what it draws depends on generator and step alone.
    """

    learns = False
    """Whether `update` does anything, so that somebody has to work the errors out."""

    def sample(self, step: int, count: int, batches: int = 1) -> PixelBatch:
        """`batches` batches of N = `count` pixels, one after the other: those of `step` and the steps after it."""
        raise NotImplementedError

    def update(self, image: torch.Tensor, row: torch.Tensor, column: torch.Tensor, error: torch.Tensor) -> None:
        """What came of one step's N pixels: called once after each step, in their order, by a sampler that `learns`.

        Args:
            image: (N,) int64, row of the images.
            row: (N,) int64 pixel row.
            column: (N,) int64 pixel column.
            error: (N,) float32 squared error, mean over channels; 0 where a pixel does not count.
        """

    def state(self) -> dict[str, torch.Tensor]:
        """Copies of all that a resumed training needs beside the generator's state; empty where nothing is learnt."""
        return {}

    def load_state(self, values: Mapping[str, torch.Tensor]) -> None:
        """Go on from `state()`.

        Raises:
            KeyError: an entry is missing.
            RuntimeError: an entry has another shape, that of other images or settings.
        """
