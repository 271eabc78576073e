"""All pixels of a split: on the GPU where they fit, else in RAM, else in a file.

Letters: K images, H image height, W image width, Ch channels, P pixels of all images, N pixels.
"""

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Literal

import numpy as np
import torch
from tqdm import tqdm

from msth_taichi.config import DataConfig
from msth_taichi.errors import DataError
from msth_taichi.machine import free_memory, usable_cores
from msth_taichi.scene.cameras import Cameras
from msth_taichi.scene.damage import Damage, kept_rows
from msth_taichi.scene.decoding import decode
from msth_taichi.scene.frame_cache import cache_folder, cached_frames, free_disk
from msth_taichi.scene.mapped import MappedFile
from msth_taichi.scene.scene import Images

Tier = Literal["gpu", "ram", "disk"]
PLACES: dict[Tier, str] = {"gpu": "on the GPU", "ram": "in RAM", "disk": "on disk"}

_GB = 1e9
_RAM_SHARE = 0.7  # of free memory that frames may take: the system's cache of files must live too
_PIXELS = 8192  # that a thread fetches
_PAGES = 256  # pixels of a mapped file that it reads at once: the system may map two megabytes around each
_THREADS = 16


class FrameStore:
    """Pixels of K images, and where they are kept.

    Pixels in RAM or on disk are gathered by threads, and only those that are asked for travel to the GPU.

    Args:
        pixels: (P, Ch) uint8, image after image, row after row, on whatever holds them.
        sizes: (K, 2) int64 width and height of each image, on the host.
        device: where `gather` and `image` put their results.
        tier: what holds the pixels.
        file: that the pixels are mapped from; None where they are in memory.
        damage: what is wrong with images that could not be decoded, by row; their pixels mean nothing, see `whole`.

    Example:
        >>> scene, cpu = load_scene("synthetic"), torch.device("cpu")
        >>> store = FrameStore.from_images(scene.images("test"), scene.cameras, cpu, DataConfig())
        >>> store.image(0).shape
        torch.Size([96, 128, 3])
    """

    def __init__(
        self,
        pixels: torch.Tensor,
        sizes: torch.Tensor,
        device: torch.device,
        tier: Tier = "ram",
        file: MappedFile | None = None,
        damage: Damage | None = None,
    ):
        self.pixels, self.sizes, self.device, self.tier = pixels, sizes, device, tier
        self.damage = damage or {}
        self._file = file
        counts = sizes.prod(1)
        self._starts = (counts.cumsum(0) - counts).tolist()
        self._start, self._width = torch.tensor(self._starts).to(device), sizes[:, 0].to(device)

    def whole(self) -> "FrameStore":
        """The same pixels without the images that are damaged: those after one move up."""
        if not self.damage:
            return self
        rows = kept_rows(len(self), self.damage)
        store = copy.copy(self)
        store.damage, store.sizes = {}, self.sizes[rows]
        store._starts = [self._starts[row] for row in rows.tolist()]
        store._start, store._width = self._start[rows.to(self.device)], self._width[rows.to(self.device)]
        return store

    @staticmethod
    def of(frames: torch.Tensor, device: torch.device) -> "FrameStore":
        """A store of images of one size, (K, H, W, Ch) uint8."""
        count, height, width, channels = frames.shape
        tier: Tier = "gpu" if frames.is_cuda else "ram"
        return FrameStore(frames.view(-1, channels), torch.tensor([[width, height]] * count), device, tier)

    @staticmethod
    def estimate(images: Images, cameras: Cameras) -> int:
        """Bytes that the frames of `images` take."""
        return int(cameras.sizes.prod(1)[images.camera].sum()) * images.channels

    @staticmethod
    def from_images(
        images: Images, cameras: Cameras, device: torch.device, config: DataConfig, progress: bool = True
    ) -> "FrameStore":
        """Decode every frame, or find them decoded on disk.

        Args:
            images: the table to decode, in its order.
            cameras: for the sizes of images.
            device: where training runs.
            config: `gpu_memory`, `ram_memory` and `cache` decide about the tier.
            progress: show bars, and say where frames are kept if that is not the GPU.
        Raises:
            DataError: a file or too many frames cannot be decoded, or they fit nowhere.
        """
        sizes, channels = cameras.sizes[images.camera], images.channels
        needed = FrameStore.estimate(images, cameras)
        tier = choose_tier(needed, device, config)
        counts = sizes.prod(1)
        starts = (counts.cumsum(0) - counts).tolist()
        if progress and (tier == "disk" or (device.type == "cuda" and tier != "gpu")):
            where = f"; cache {cache_folder(config)}" if tier == "disk" else ""
            tqdm.write(f"frames: {needed / _GB:.1f} GB, kept {PLACES[tier]}{where}")
        if tier == "disk":
            path, damage = cached_frames(images, sizes, config, progress)
            file = MappedFile(path, free_memory())
            return FrameStore(file.bytes.view(-1, channels), sizes, device, tier, file, damage)
        pixels = torch.empty(int(counts.sum()), channels, dtype=torch.uint8, device=device if tier == "gpu" else "cpu")

        def keep(row: int, frame: np.ndarray) -> None:
            part = torch.from_numpy(np.ascontiguousarray(frame)).view(-1, channels)
            pixels[starts[row] : starts[row] + len(part)].copy_(part)

        damage = decode(images, keep, "frames", progress)
        return FrameStore(pixels, sizes, device, tier, damage=damage)

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def fetches(self) -> bool:
        """Whether pixels take a while to come, so that asking for them early pays."""
        return self.tier == "disk" or self.pixels.device.type != self.device.type

    @property
    def nbytes(self) -> int:
        """Bytes of all pixels, wherever they are."""
        return self.pixels.nbytes

    def gather(self, image: torch.Tensor, row: torch.Tensor, column: torch.Tensor) -> torch.Tensor:
        """Colours of N pixels.

        Args:
            image: (N,) int64, row of the store, on `device`.
            row: (N,) int64 pixel row.
            column: (N,) int64 pixel column.
        Returns:
            (N, Ch) float32 in [0, 1] on `device`.
        """
        return self.request(image, row, column)()

    def request(self, image: torch.Tensor, row: torch.Tensor, column: torch.Tensor) -> Callable[[], torch.Tensor]:
        """`gather`, begun now by threads where the pixels are not on the device; call the result to wait for it."""
        index = self._start[image] + row * self._width[image] + column
        if not self.fetches:
            found = self.pixels[index].float() / 255
            return lambda: found
        # in the order of memory: neighbours share pages
        index, order = index.sort()
        pinned = index.is_cuda
        wanted = torch.empty(index.shape, dtype=torch.int64, pin_memory=pinned).copy_(index, non_blocking=True)
        ready = torch.cuda.Event() if pinned else None
        if ready:
            ready.record()
        colors = torch.empty(len(index), self.pixels.shape[1], dtype=torch.uint8, pin_memory=pinned)

        def fetch(first: int) -> None:
            if ready:
                ready.synchronize()
            last = min(first + _PIXELS, len(wanted))
            step = _PAGES if self._file and self._file.large else _PIXELS
            for start in range(first, last, step):
                part = slice(start, min(start + step, last))
                torch.index_select(self.pixels, 0, wanted[part], out=colors[part])
                if self._file:
                    self._file.release()

        parts = [_pool().submit(fetch, first) for first in range(0, len(index), _PIXELS)]

        def collect() -> torch.Tensor:
            for part in parts:
                part.result()
            if self._file:
                self._file.require()
            found = torch.empty(colors.shape, device=self.device)
            found[order] = colors.to(self.device, non_blocking=True).float() / 255
            return found

        return collect

    def raw(self, k: int) -> torch.Tensor:
        """Frame k, (H, W, Ch) uint8 on `device`."""
        width, height = self.sizes[k].tolist()
        part = self.pixels[self._starts[k] : self._starts[k] + width * height]
        frame = part.view(height, width, -1).to(self.device, copy=self.tier == "disk")
        if self._file:
            self._file.release()
            self._file.require()
        return frame

    def image(self, k: int) -> torch.Tensor:
        """Frame k, (H, W, Ch) float32 in [0, 1] on `device`."""
        return self.raw(k).float() / 255


def choose_tier(needed: float, device: torch.device, config: DataConfig) -> Tier:
    """Where frames are kept: on the GPU, in RAM or on disk, whichever has room first.

    Args:
        needed: bytes.
        device: where training runs.
        config: `gpu_memory`, `ram_memory`, `cache`.
    Raises:
        DataError: the frames fit nowhere.
    """
    if device.type == "cuda" and needed <= min(config.gpu_memory * _GB, _free_gpu_memory(device)):
        return "gpu"
    memory = _RAM_SHARE * free_memory() if config.ram_memory is None else config.ram_memory * _GB
    if needed <= memory:
        return "ram"
    disk = free_disk(config)
    if needed <= disk:
        return "disk"
    raise DataError(
        f"frames need {needed / _GB:.1f} GB; RAM has {memory / _GB:.1f} GB for them and the disk of "
        f"{cache_folder(config)} {disk / _GB:.1f} GB; use a larger data.downscale, a lower data.num_frames, or "
        "data.cache on another disk"
    )


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(usable_cores(), _THREADS), "pixels")


def _free_gpu_memory(device: torch.device) -> float:
    """Bytes that frames may take at most and leave the training some."""
    return 0.8 * torch.cuda.mem_get_info(device)[0]
