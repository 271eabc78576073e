"""Every pixel of every image with the same chance.

Letters: N pixels.
"""

import torch

from msth_taichi.sampling.pixels import PixelBatch
from msth_taichi.scene.cameras import Cameras
from msth_taichi.scene.scene import Images


class UniformSampler:
    """Draws pixels uniformly, with replacement.

    Args:
        images: the table to draw from.
        cameras: for the image size.
        device: where batches are made.
        generator: on `device`; all randomness comes from it.
    """

    def __init__(self, images: Images, cameras: Cameras, device: torch.device, generator: torch.Generator):
        self._pixels_per_image = cameras.height * cameras.width
        self._width = cameras.width
        self._total = len(images) * self._pixels_per_image
        self._device = device
        self._generator = generator

    def sample(self, step: int, count: int, batches: int = 1) -> PixelBatch:
        """`batches` batches of N = `count` pixels, one after the other; alike for every step."""
        count *= batches
        drawn = torch.randint(self._total, (count,), generator=self._generator, device=self._device)
        image, pixel = drawn // self._pixels_per_image, drawn % self._pixels_per_image
        dynamic = torch.zeros(count, dtype=torch.bool, device=self._device)
        return PixelBatch(image, pixel // self._width, pixel % self._width, dynamic)
