"""Measured distances of pixels: from depth maps, or from a scene that is known exactly.

Letters: K images, P pixels of the images that have a depth map, N pixels.
"""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import torch
from tqdm import tqdm

from msth_taichi.config import DataConfig
from msth_taichi.errors import DataError
from msth_taichi.lenses import OPENCV, PINHOLE
from msth_taichi.machine import usable_cores
from msth_taichi.ops.rays import generate_rays
from msth_taichi.scene.cameras import Cameras
from msth_taichi.scene.frames import choose_tier
from msth_taichi.scene.scene import Images, Scene

_DTYPE = torch.float16  # 0.05 % of a distance is less than what any sensor tells
_LARGEST = torch.finfo(_DTYPE).max
_TOGETHER = 32  # maps read before the first of them is used: bounds the memory
_LOOKED_AT = 100_000  # distances that the median is of
_GB = 1e9


class DepthStore:
    """Distances of the pixels of K images, on the GPU if they fit there, else in RAM.

    Args:
        values: (P,) float16 distance along the unit ray, scene units, 0 where unknown; image after image, row by row.
        starts: (K,) int64 of each image its first value, -1 for an image without.
        widths: (K,) int64 pixels.
        device: where `gather` puts its results.

    Example:
        >>> scene = load_scene("synthetic")
        >>> store = DepthStore.from_scene(scene, scene.images("train"), torch.device("cpu"), DataConfig())
        >>> zero = torch.zeros(1, dtype=torch.int64)
        >>> store.gather(zero, zero, zero).shape
        torch.Size([1])
    """

    def __init__(self, values: torch.Tensor, starts: torch.Tensor, widths: torch.Tensor, device: torch.device):
        self.values, self.device = values, device
        self._starts, self._widths = starts.to(device), widths.to(device)

    @staticmethod
    def from_scene(
        scene: Scene,
        images: Images,
        device: torch.device,
        config: DataConfig,
        near: float = 0.0,
        progress: bool = True,
    ) -> "DepthStore":
        """Read every depth map.

        Args:
            scene: for cameras and units.
            images: the table to read, in its order; some have depth maps.
            device: where training runs.
            config: `gpu_memory` and `ram_memory` decide where distances are kept.
            near: where rays start; if most surfaces are nearer, the maps' unit is wrong.
            progress: show a bar, and say how many maps there are and how far away what they show is.
        Raises:
            DataError: a map is missing, unreadable or of other proportions than its image; they fit nowhere; or
                nothing is known, or most of it is nearer than `near`.
        """
        rows, sizes = images.with_depth(), scene.cameras.sizes[images.camera]
        counts = torch.zeros(len(images), dtype=torch.int64)
        counts[rows] = sizes.prod(1)[rows]
        starts, needed = counts.cumsum(0) - counts, int(counts.sum()) * _DTYPE.itemsize
        tier = choose_tier(needed, device, config)
        if tier == "disk":
            raise DataError(
                f"depth maps need {needed / _GB:.1f} GB, more than memory has for them; use a larger data.downscale, "
                "a lower data.num_frames, more data.ram_memory or loss.depth=0"
            )
        values = torch.empty(int(counts.sum()), dtype=_DTYPE, device=device if tier == "gpu" else "cpu")
        bar = tqdm(desc="depth maps", total=len(rows), unit="map", leave=False, disable=None if progress else True)
        with bar:
            for row, distance in _distances(scene, images, rows, device):
                part = values[int(starts[row]) : int(starts[row] + counts[row])]
                part.copy_(distance.clamp(max=_LARGEST).flatten())
                bar.update()
        starts[counts == 0] = -1
        store = DepthStore(values, starts, sizes[:, 0], device)
        middle = store.median()
        if not middle > near:  # NaN where nothing is known is not
            what = "no distance at all" if math.isnan(middle) else f"distances around {middle:.2g} scene units"
            raise DataError(
                f"{scene.path}: its depth maps have {what}, but rays start at {near:g}; correct the maps or their "
                "depth_unit_scale_factor, or use loss.depth=0"
            )
        if progress:
            tqdm.write(f"depth maps: of {len(rows)} of {len(images)} images, {middle:.2g} scene units in the middle")
        return store

    @property
    def nbytes(self) -> int:
        """Bytes of all distances, wherever they are."""
        return self.values.nbytes

    def median(self) -> float:
        """Of distances that are known, scene units; NaN if none is."""
        some = self.values[:: max(len(self.values) // _LOOKED_AT, 1)].float()
        return some[some > 0].median().item() if (some > 0).any() else math.nan

    def gather(self, image: torch.Tensor, row: torch.Tensor, column: torch.Tensor) -> torch.Tensor:
        """Distances of N pixels.

        Args:
            image: (N,) int64, row of the table, on `device`.
            row: (N,) int64 pixel row.
            column: (N,) int64 pixel column.
        Returns:
            (N,) float32 along the unit ray, scene units, 0 where unknown; on `device`.
        """
        return self.request(image, row, column)()

    def request(self, image: torch.Tensor, row: torch.Tensor, column: torch.Tensor) -> Callable[[], torch.Tensor]:
        """`gather`, for which the host waits if values are not on the device; call the result to have it done."""
        start = self._starts[image]
        index = (start + row * self._widths[image] + column).where(start >= 0, 0)

        def collect() -> torch.Tensor:
            found = self.values[index.to(self.values.device)].to(self.device).float()
            return found.where(start >= 0, 0)

        return collect


def _distances(scene: Scene, images: Images, rows: list[int], device: torch.device):
    """Rows with their distances (H, W) along the unit ray, scene units, on any device."""
    if images.has_truth:  # in scene units as they are; kernels are launched from one thread
        for row in rows:
            yield row, torch.from_numpy(images.depth(row))
        return
    with ThreadPoolExecutor(usable_cores()) as pool:
        for first in range(0, len(rows), _TOGETHER):
            part = rows[first : first + _TOGETHER]
            # all at hand before a kernel is compiled: headers and kernels are both parsed by `ast`, see `DepthMap`
            for row, depth in zip(part, list(pool.map(images.depth_map, part)), strict=True):
                assert depth is not None
                stretch = along_rays(scene.cameras, int(images.camera[row]), device)
                yield row, torch.from_numpy(depth * np.float32(scene.transform.scale)).to(device) * stretch


def along_rays(cameras: Cameras, camera: int, device: torch.device) -> torch.Tensor:
    """(H, W) or (1,) distance along the unit ray through a pixel's centre, of what a camera's depth map says is at 1.

    Depth maps of perspective cameras hold distances along the optical axis: 1 / cos of the angle to it. Those of
    fisheyes and panoramas hold distances along the ray, as nerfstudio takes them; orthographic rays are all parallel.

    Args:
        cameras: of a scene.
        camera: which of them.
        device: of the kernels.

    Example:
        >>> along_rays(load_scene("synthetic").cameras, 0, torch.device("cpu"))[48, 64]  # next to the centre
        tensor(1.0000)
    """
    lens = int(cameras.lens[camera])
    if lens not in (PINHOLE, OPENCV):
        return torch.ones(1, device=device)
    settings = (*cameras.intrinsics[camera].tolist(), *cameras.distortion[camera].tolist())
    return _along_rays(lens, settings, cameras.size(camera), device)


@lru_cache(maxsize=8)
def _along_rays(lens: int, settings: tuple[float, ...], size: tuple[int, int], device: torch.device) -> torch.Tensor:
    width, height = size
    row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    pixels = torch.stack([column, row], dim=-1).view(-1, 2).float() + 0.5
    _, directions = generate_rays(
        pixels.to(device),
        torch.zeros(len(pixels), dtype=torch.int32, device=device),
        torch.eye(4, device=device)[None, :3].contiguous(),
        torch.tensor([settings[:4]], device=device),
        torch.tensor([settings[4:]], device=device),
        torch.tensor([lens], dtype=torch.int32, device=device),
    )
    return (-1 / directions[:, 2]).view(height, width)
