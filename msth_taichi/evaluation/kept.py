"""Renders and frames that are looked at twice: fits over a whole view come before what they are fitted for.

Letters: H, W image size.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from msth_taichi.scene.scene import Images

LIMIT = 4_000_000_000
"""Bytes of memory for one view; the images beyond it are rendered and read again."""

_HALF = 2.0**15
_STEPS = 2.0**16 - 1  # 16 bits: rounding alone is 107 dB, beyond the 100 dB at which PSNR ends


class KeptFrames:
    """Renders in 16 bits and frames as they were read, on the CPU, up to a limit.

    Args:
        images: the table whose rows are kept.
        render: of a row, (H, W, 3) in [0, 1]; for what was not kept.
        limit: bytes.
    """

    def __init__(self, images: Images, render: Callable[[int], torch.Tensor], limit: int | None = None):
        self._images, self._render = images, render
        self._left = LIMIT if limit is None else limit
        self._kept: dict[int, tuple[torch.Tensor, np.ndarray]] = {}

    def add(self, row: int, image: torch.Tensor, frame: np.ndarray) -> None:
        """Keep a render (H, W, 3) in [0, 1] and the frame it belongs to, if there is room."""
        size = 2 * image.numel() + frame.nbytes
        if size <= self._left:
            self._left -= size
            self._kept[row] = ((image * _STEPS).round() - _HALF).to(torch.int16).cpu(), frame

    def again(self, rows: Sequence[int], device: torch.device) -> Iterator[tuple[torch.Tensor, np.ndarray]]:
        """Render (H, W, 3) float32 on a device, and frame, of each row in turn."""
        lost = [row for row in rows if row not in self._kept]
        read = self._images.select(lost).read() if lost else iter(())
        for row in rows:
            if row in self._kept:
                image, frame = self._kept[row]
                yield (image.to(device).float() + _HALF) / _STEPS, frame
            else:
                yield self._render(row), next(read)
