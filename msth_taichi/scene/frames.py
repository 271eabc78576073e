"""All frames of a split as one uint8 tensor.

Letters: K images, H image height, W image width, Ch channels, N pixels.
"""

import os
from pathlib import Path

import numpy as np
import torch

from msth_taichi.errors import DataError
from msth_taichi.scene.cameras import Cameras
from msth_taichi.scene.decoding import decode
from msth_taichi.scene.scene import Images

_GB = 1e9


class FrameStore:
    """K frames on the GPU where they fit, else in RAM.

    Frames in RAM are gathered there, and only the chosen pixels travel to the GPU. A third tier, mapped
    from disk, would be chosen in `from_images` and gather like RAM.

    Args:
        frames: (K, H, W, Ch) uint8, on the device that holds them.
        device: where `gather` and `image` put their results.

    Example:
        >>> scene, cpu = load_scene("synthetic"), torch.device("cpu")
        >>> store = FrameStore.from_images(scene.images("test"), scene.cameras, cpu, gpu_memory=1.0)
        >>> store.image(0).shape
        torch.Size([96, 128, 3])
    """

    def __init__(self, frames: torch.Tensor, device: torch.device):
        self.frames = frames
        self.device = device

    @staticmethod
    def estimate(images: Images, cameras: Cameras) -> int:
        """Bytes that the frames of `images` take."""
        return len(images) * cameras.height * cameras.width * images.channels

    @staticmethod
    def from_images(
        images: Images, cameras: Cameras, device: torch.device, gpu_memory: float, progress: bool = True
    ) -> "FrameStore":
        """Decode every frame.

        Args:
            images: the table to decode, in its order.
            cameras: for the image size.
            device: where training runs.
            gpu_memory: GB that frames may take on a GPU.
            progress: show a bar.
        Raises:
            DataError: a file cannot be decoded, or the frames fit neither GPU nor RAM.
        """
        needed = FrameStore.estimate(images, cameras)
        home = torch.device("cpu")
        if device.type == "cuda" and needed <= min(gpu_memory * _GB, _free_gpu_memory(device)):
            home = device
        elif needed > (free := _free_memory()):
            raise DataError(
                f"{len(images)} frames need {needed / _GB:.1f} GB of memory, {free / _GB:.1f} GB are free; "
                "use a larger data.downscale or a lower data.num_frames"
            )
        shape = (len(images), cameras.height, cameras.width, images.channels)
        frames = torch.empty(shape, dtype=torch.uint8, device=home)

        def keep(row: int, frame: np.ndarray) -> None:
            frames[row].copy_(torch.from_numpy(frame))

        decode(images, keep, "frames", progress)
        return FrameStore(frames, device)

    def __len__(self) -> int:
        return len(self.frames)

    def gather(self, image: torch.Tensor, row: torch.Tensor, column: torch.Tensor) -> torch.Tensor:
        """Colours of N pixels.

        Args:
            image: (N,) int64, row of the store.
            row: (N,) int64 pixel row.
            column: (N,) int64 pixel column.
        Returns:
            (N, Ch) float32 in [0, 1] on `device`.
        """
        _, height, width, channels = self.frames.shape
        pixel = (image * height + row) * width + column
        colors = self.frames.view(-1, channels)[pixel.to(self.frames.device)]
        return colors.to(self.device).float() / 255

    def image(self, k: int) -> torch.Tensor:
        """Frame k, (H, W, Ch) float32 in [0, 1] on `device`."""
        return self.frames[k].to(self.device).float() / 255


def _free_gpu_memory(device: torch.device) -> float:
    """Bytes that frames may take at most and leave the training some."""
    return 0.8 * torch.cuda.mem_get_info(device)[0]


def _free_memory() -> float:
    """Bytes of RAM that can be taken without swapping; infinite where the system does not say."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (OSError, ValueError, AttributeError):
        return float("inf")
