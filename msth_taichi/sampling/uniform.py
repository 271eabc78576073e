"""Every pixel of every image with the same chance.

Letters: N pixels.
"""

import torch

from msth_taichi.sampling.pixels import PixelBatch
from msth_taichi.sampling.sampler import Sampler
from msth_taichi.scene.cameras import Cameras
from msth_taichi.scene.scene import Images


class UniformSampler(Sampler):
    """Draws pixels uniformly, with replacement.

    Args:
        images: the table to draw from.
        cameras: for the sizes of images.
        device: where batches are made.
        generator: on `device`; all randomness comes from it.
    """

    def __init__(self, images: Images, cameras: Cameras, device: torch.device, generator: torch.Generator):
        sizes = cameras.sizes[images.camera]
        ends = sizes.prod(1).cumsum(0)
        self._total = int(ends[-1])
        self._ends, self._width = ends.to(device), sizes[:, 0].to(device)  # pixels of all images up to each
        self._first = self._ends - sizes.prod(1).to(device)
        self._device = device
        self._generator = generator

    def sample(self, step: int, count: int, batches: int = 1) -> PixelBatch:
        """`batches` batches of N = `count` pixels, one after the other; alike for every step."""
        count *= batches
        drawn = torch.randint(self._total, (count,), generator=self._generator, device=self._device)
        image = torch.searchsorted(self._ends, drawn, right=True)
        pixel, width = drawn - self._first[image], self._width[image]
        dynamic = torch.zeros(count, dtype=torch.bool, device=self._device)
        return PixelBatch(image, pixel // width, pixel % width, dynamic)
