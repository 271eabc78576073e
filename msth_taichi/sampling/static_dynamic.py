"""Few pixels that never change, many times of those that do: for cameras that stand still.

The published ratio of 50 : 1 suits a kitchen in which hands move. Where more moves it would look less often at what
changes than chance does; so dynamic pixels have no fewer rays than they would have by chance.

Letters: N rays of a batch, r static : dynamic ratio, n times of a dynamic pixel, S repeat_steps, U cameras.
"""

import math
from collections.abc import Sequence

import torch

from msth_taichi.config import SamplerConfig
from msth_taichi.sampling.pixels import PixelBatch
from msth_taichi.sampling.sampler import Sampler
from msth_taichi.scene.scene import Images

REPEAT_START = 1000
"""Step up to which a dynamic pixel is drawn at one time only (released MSTH code)."""

MOST_EXTRA_REPEATS = 5


def dynamic_pixels(step: int, count: int, config: SamplerConfig) -> int:
    """Dynamic among `count` distinct pixels: N - floor(N r / (1 + r)), r from ratio to ratio_end, linearly.

    Example:
        >>> config = SamplerConfig(ratio=50, ratio_end=30, ratio_steps=20000)
        >>> dynamic_pixels(0, 16384, config), dynamic_pixels(20000, 16384, config)
        (322, 529)
    """
    progress = min(step / config.ratio_steps, 1.0)
    ratio = config.ratio + (config.ratio_end - config.ratio) * progress
    return count - math.floor(count * ratio / (1 + ratio))


def dynamic_repeats(step: int, config: SamplerConfig) -> int:
    """Times n at which a dynamic pixel is seen: floor(1 + 5 sin((step - 1000) pi / (2 (S - 1000)))).

    1 up to step 1000, and always where S is 0; after S it stays at its peak of 6, where the sine would fall

    Example:
        >>> [dynamic_repeats(step, SamplerConfig(repeat_steps=20000)) for step in (0, 5000, 20000)]
        [1, 2, 6]
    """
    if config.repeat_steps == 0 or step <= REPEAT_START:
        return 1
    progress = min((step - REPEAT_START) / max(config.repeat_steps - REPEAT_START, 1), 1.0)
    return math.floor(1 + MOST_EXTRA_REPEATS * math.sin(progress * math.pi / 2))


def dynamic_rays(step: int, count: int, config: SamplerConfig) -> int:
    """Dynamic among the N = `count` rays of a batch.

    Of N distinct pixels D = `dynamic_pixels` are dynamic and seen n times, (N - D) + n D rays in all; a batch
    of N has their share, rounded.
    """
    dynamic = dynamic_pixels(step, count, config)
    seen = dynamic * dynamic_repeats(step, config)
    return round(count * seen / max(count - dynamic + seen, 1))


class StaticDynamicSampler(Sampler):
    """Draws static pixels at one time each and dynamic pixels at n independent times, with replacement.

    Dynamic are as many rays as `dynamic_rays` says, or their share of all pixels if that is more. The number of rays
    of either kind is fixed by step and count, and each ray carries its own flag. Where no pixel is dynamic all rays
    are static, and the other way round.

    Args:
        images: the table to draw from, of cameras that stand still.
        cameras: (U,) int64 ascending, rows of the scene's cameras.
        dynamic: of each camera, (H, W) bool, pixels that change.
        config: ratio and repeats.
        device: where batches are made.
        generator: on `device`; all randomness comes from it.
    Source: "spatio" sampler of the released MSTH code; the lower bound is ours.
    """

    def __init__(
        self,
        images: Images,
        cameras: torch.Tensor,
        dynamic: Sequence[torch.Tensor],
        config: SamplerConfig,
        device: torch.device,
        generator: torch.Generator,
    ):
        # rows of the images grouped by camera: those of camera u are order[start[u] : start[u] + frames[u]]
        frames = (images.camera[None] == cameras.cpu()[:, None]).sum(1)
        self._order = images.camera.argsort(stable=True).to(device)
        self._start = (frames.cumsum(0) - frames).to(device)
        self._frames = frames.to(device)
        self._width = torch.tensor([d.shape[1] for d in dynamic], device=device)
        counts = torch.tensor([d.numel() for d in dynamic])
        self._ends = counts.cumsum(0).to(device)  # pixels of all cameras up to each
        self._first = self._ends - counts.to(device)
        self._dynamic = torch.cat([d.to(device).flatten() for d in dynamic]).nonzero()[:, 0]
        # static pixels are too many to list: the k-th is k plus the number of dynamic ones before it
        self._static_before = self._dynamic - torch.arange(len(self._dynamic), device=device)
        self._statics = int(counts.sum()) - len(self._dynamic)
        self._share = len(self._dynamic) / max(int(counts.sum()), 1)
        self._config = config
        self._device = device
        self._generator = generator

    def sample(self, step: int, count: int, batches: int = 1) -> PixelBatch:
        """`batches` batches of N = `count` pixels, one after the other, by the ratio and repeats of one step.

        In each, static pixels come first, then dynamic ones, a pixel's times together.
        """
        dynamic, repeats = dynamic_rays(step, count, self._config), dynamic_repeats(step, self._config)
        dynamic = max(dynamic, round(count * self._share))
        if len(self._dynamic) == 0:
            dynamic = 0
        elif self._statics == 0:
            dynamic = count
        static = count - dynamic
        resting = self._draw(self._statics, batches, static)
        resting = resting + torch.searchsorted(self._static_before, resting, right=True)
        moving = self._draw(len(self._dynamic), batches, -(-dynamic // repeats))
        moving = self._dynamic[moving].repeat_interleave(repeats, dim=1)[:, :dynamic]
        cell = torch.cat([resting, moving], dim=1).flatten()

        camera = torch.searchsorted(self._ends, cell, right=True)
        pixel, width = cell - self._first[camera], self._width[camera]
        frames = self._frames[camera]
        uniform = torch.rand(len(cell), generator=self._generator, device=self._device)
        # float32 rounding may reach the upper end
        frame = torch.minimum((uniform * frames).long(), frames - 1)
        flags = torch.zeros(batches, count, dtype=torch.bool, device=self._device)
        flags[:, static:] = True
        image = self._order[self._start[camera] + frame]
        return PixelBatch(image, pixel // width, pixel % width, flags.flatten())

    def _draw(self, pixels: int, batches: int, count: int) -> torch.Tensor:
        """(batches, count) numbers below `pixels`."""
        shape = (batches, count)
        if count == 0:
            return torch.empty(shape, dtype=torch.int64, device=self._device)
        return torch.randint(pixels, shape, generator=self._generator, device=self._device)
