"""A batch of pixels.

Letters: N pixels.
"""

from dataclasses import dataclass, fields

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


def join(first: PixelBatch, second: PixelBatch, batches: int) -> PixelBatch:
    """Batches of both: the first's pixels of a batch, then the second's, batch after batch.

    Args:
        first: `batches` batches, one after the other.
        second: as many.
        batches: at least 1.
    """
    parts = [[getattr(b, field.name).view(batches, -1) for b in (first, second)] for field in fields(PixelBatch)]
    return PixelBatch(*(torch.cat(part, dim=1).flatten() for part in parts))
