"""Batches of rays with their pixels, drawn for several steps at once.

A step needs dozens of small operations to choose pixels and turn them into rays; done for many steps at a time they
cost the host next to nothing. What a step gets depends on the seed and the step alone, so a resumed training goes on
exactly.

Letters: N rays of a batch.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from msth_taichi.config import Config
from msth_taichi.model.rays import Rays
from msth_taichi.model.renderer import RadianceField
from msth_taichi.sampling import Sampler
from msth_taichi.sampling.pixels import PixelBatch
from msth_taichi.scene.cameras import Cameras
from msth_taichi.scene.depths import DepthStore
from msth_taichi.scene.frames import FrameStore
from msth_taichi.scene.scene import Images
from msth_taichi.training.team import Team

AHEAD = 16
"""Batches drawn at once at most; what a sampler changes over time, it changes every so many steps."""

_MOST_RAYS = 2**20  # drawn at once: 70 bytes each


@dataclass(frozen=True)
class Batch:
    """N rays and what they should see.

    Args:
        rays: N rays.
        target: (N, 3) colours.
        jitter: (samplers, N) in [0, 1).
        background: (N, 3) colour behind the samples; None for the colour of the last sample.
        image: (N,) int64, row of the images.
        row: (N,) int64 pixel row.
        column: (N,) int64 pixel column.
        kept: (N,) 1 where a ray counts, 0 where its pixel is to be ignored; None where all count.
        depth: (N,) where a ray meets the surface it sees, see `RadianceField.positions`; None where nobody asks.
        drawn: image, row and column of the pixels of all processes, in the order in which they were drawn, for a
            sampler that learns.
    """

    rays: Rays
    target: torch.Tensor
    jitter: torch.Tensor
    background: torch.Tensor | None
    image: torch.Tensor
    row: torch.Tensor
    column: torch.Tensor
    kept: torch.Tensor | None = None
    depth: torch.Tensor | None = None
    drawn: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None

    def split(self, parts: int) -> list["Batch"]:
        """Up to so many parts of as many rays each, but for the last; what was drawn stays with none of them."""
        if parts == 1:
            return [self]
        size = -(-len(self.target) // parts)
        rays = self.rays.split(size)
        columns = [self.target, self.background, self.image, self.row, self.column, self.kept, self.depth]
        cut = [[None] * len(rays) if x is None else x.split(size) for x in columns]
        target, background, image, row, column, kept, depth = cut
        jitter = [x.contiguous() for x in self.jitter.split(size, dim=1)]
        fields = zip(rays, target, jitter, background, image, row, column, kept, depth, strict=True)
        return [Batch(*part) for part in fields]  # type: ignore[arg-type]


class Batches:
    """Batches for every step of a training.

    Args:
        model: for the bounds of rays, and the background.
        config: all settings.
        cameras: on the device.
        images: that the sampler draws from.
        store: their frames.
        sampler: draws from `generator`.
        generator: of all randomness.
        depths: distances of the pixels of `images`; None where nobody asks.
        team: all draw the same pixels, and each takes its share.
    """

    def __init__(
        self,
        model: RadianceField,
        config: Config,
        cameras: Cameras,
        images: Images,
        store: FrameStore,
        sampler: Sampler,
        generator: torch.Generator,
        depths: DepthStore | None = None,
        team: Team | None = None,
    ):
        self._team = team or Team()
        self._model, self._config, self._cameras = model, config, cameras
        device = store.device
        self._camera, self._time = images.camera.to(device), images.time.to(device)
        self._store, self._sampler, self._generator = store, sampler, generator
        self._ahead = max(1, min(AHEAD, _MOST_RAYS // config.training.rays_per_step))
        self._masked = images.masked
        self._depths = depths
        self._block = -1
        self._batches: list[Batch] = []
        self._state = generator.get_state()  # before the present block was drawn
        # pixels that are not on the device are fetched while the block before theirs is trained on
        self._fetches = store.fetches
        self._next: tuple[int, torch.Tensor, Callable[[], list[Batch]]] | None = None

    def at(self, step: int) -> Batch:
        """The batch of a step; steps are asked for in order."""
        block = step // self._ahead
        if block != self._block:
            if self._next is None or self._next[0] != block:
                self._next = self._request(block)
            self._block, self._state, finish = self._next
            self._batches, self._next = finish(), None
            if self._fetches:
                self._next = self._request(block + 1)
        return self._batches[step % self._ahead]

    def aimed(self, batch: Batch) -> Rays:
        """The rays of a batch from where its cameras are found to stand; differentiable where poses are refined."""
        if self._model.poses is None:
            return batch.rays
        assert batch.rays.camera is not None
        cameras = self._model.refined(self._cameras)
        rays = self._model.rays(cameras, batch.rays.camera, batch.row, batch.column, batch.rays.times)
        return replace(rays, camera=batch.rays.camera)

    def random_state(self, step: int) -> torch.Tensor:
        """State of the generator from which a training resumed at `step` goes on as this one does."""
        if step // self._ahead == self._block:
            return self._state
        return self._generator.get_state() if self._next is None else self._next[1]

    def _request(self, block: int) -> tuple[int, torch.Tensor, Callable[[], list[Batch]]]:
        """A block with the generator's state before it, and a function that waits for its pixels."""
        return block, self._generator.get_state(), self._draw(block * self._ahead)

    def _draw(self, step: int) -> Callable[[], list[Batch]]:
        team, drawn = self._team, self._config.training.rays_per_step
        count = drawn // team.size
        whole = self._sampler.sample(step, drawn, self._ahead)
        # drawn divides by the processes, so that every R-th of all blocks is every R-th of each
        pixels = PixelBatch(*(team.share_of(x) for x in (whole.image, whole.row, whole.column, whole.dynamic)))
        camera = self._camera[pixels.image]
        rays = self._model.rays(self._cameras, camera, pixels.row, pixels.column, self._time[pixels.image])
        rays = replace(rays, camera=camera)
        jitter = team.share_of(self._random(self._ahead, len(self._model.proposals) + 1, drawn), dim=2)
        random = None
        if self._config.rays.background == "random":
            random = team.share_of(self._random(self._ahead * drawn, 3))
        background = self._model.background(self._ahead * count, random)
        fetched = self._store.request(pixels.image, pixels.row, pixels.column)
        measured = self._depths.request(pixels.image, pixels.row, pixels.column) if self._depths else None

        def finish() -> list[Batch]:
            target, kept, depth = fetched(), [None] * self._ahead, [None] * self._ahead
            if measured:
                depth = self._model.positions(rays, measured()).split(count)
            if self._masked:
                target, kept = target[:, :-1], target[:, -1].contiguous().split(count)
            if target.shape[1] == 4:
                alpha = target[:, 3:]
                target = target[:, :3] * alpha + (1 - alpha) * background  # type: ignore[operator] checked at the start
            backgrounds = [None] * self._ahead if background is None else background.split(count)
            targets = target.contiguous().split(count)
            places = (x.split(count) for x in (pixels.image, pixels.row, pixels.column))
            told = [None] * self._ahead
            if self._sampler.learns:
                told = list(zip(*(x.split(drawn) for x in (whole.image, whole.row, whole.column)), strict=True))
            parts = zip(rays.split(count), targets, jitter, backgrounds, *places, kept, depth, told, strict=True)
            return [Batch(*part) for part in parts]

        return finish

    def _random(self, *shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=self._generator, device=self._store.device)
