"""A batch of pixels.

Letters: N pixels.
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True, eq=False)
class PixelBatch:
    """N pixels of a table of images.

    Args:
        image: (N,) int64, row of the images.
        row: (N,) int64 pixel row.
        column: (N,) int64 pixel column.
        dynamic: (N,) bool, the pixel's colour changes over time; False where the sampler does not know.
    """

    image: torch.Tensor
    row: torch.Tensor
    column: torch.Tensor
    dynamic: torch.Tensor

    def __len__(self) -> int:
        return len(self.image)
