"""Camera poses and lenses of a scene.

Letters: C cameras.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from msth_taichi.errors import DataError
from msth_taichi.lenses import PINHOLE


@dataclass(frozen=True, eq=False)
class Cameras:
    """C calibrated cameras.

    Args:
        camera_to_world: (C, 3, 4) float32, OpenGL axes (x right, y up, looks along -z).
        intrinsics: (C, 4) float32 fx, fy, cx, cy in pixels; pixel (r, c) is centred at (c + 0.5, r + 0.5).
        distortion: (C, 8) float32 k1 to k6, p1, p2, see `msth_taichi.ops.rays`.
        lens: (C,) int32, a code of `msth_taichi.lenses`.
        sizes: (C, 2) int64 width and height in pixels; stays on the host.
        names: C names, unique within a scene.

    Example:
        >>> load_scene("synthetic").cameras.select([0]).scaled(0.5).size(0)
        (64, 48)
    """

    camera_to_world: torch.Tensor
    intrinsics: torch.Tensor
    distortion: torch.Tensor
    lens: torch.Tensor
    sizes: torch.Tensor
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def size(self, i: int) -> tuple[int, int]:
        """Width and height of camera i, pixels."""
        width, height = self.sizes[i].tolist()
        return width, height

    def to(self, device: torch.device | str) -> "Cameras":
        """The same cameras with their tensors on `device`."""
        return replace(
            self,
            camera_to_world=self.camera_to_world.to(device),
            intrinsics=self.intrinsics.to(device),
            distortion=self.distortion.to(device),
            lens=self.lens.to(device),
        )

    def select(self, indices: Sequence[int] | torch.Tensor) -> "Cameras":
        """The cameras at `indices`, in that order."""
        rows = torch.as_tensor(indices, dtype=torch.int64, device=self.camera_to_world.device)
        return replace(
            self,
            camera_to_world=self.camera_to_world[rows],
            intrinsics=self.intrinsics[rows],
            distortion=self.distortion[rows],
            lens=self.lens[rows],
            sizes=self.sizes[rows.cpu()],
            names=tuple(self.names[i] for i in rows.tolist()),
        )

    def scaled(self, factor: float) -> "Cameras":
        """The same views with `factor` times the pixels per axis, rounded to whole pixels."""
        sizes = (self.sizes * factor).round().long().clamp(min=1)
        ratio = (sizes / self.sizes).repeat(1, 2).to(self.intrinsics)
        return replace(self, intrinsics=self.intrinsics * ratio, sizes=sizes)

    def with_poses(self, camera_to_world: torch.Tensor) -> "Cameras":
        """The same lenses at other poses, (C, 3, 4)."""
        return replace(self, camera_to_world=camera_to_world)

    def describe(self) -> dict[str, Any]:
        """Plain values that `from_description` turns back into equal cameras."""
        return {
            "camera_to_world": self.camera_to_world.tolist(),
            "intrinsics": self.intrinsics.tolist(),
            "distortion": self.distortion.tolist(),
            "lens": self.lens.tolist(),
            "sizes": self.sizes.tolist(),
            "names": list(self.names),
        }

    @staticmethod
    def from_description(values: dict[str, Any]) -> "Cameras":
        return make_cameras(**values)


def make_cameras(
    camera_to_world: Any,
    intrinsics: Any,
    distortion: Any,
    lens: Any,
    sizes: Any,
    names: Sequence[str],
) -> Cameras:
    """Cameras from nested lists or numpy arrays of the shapes that `Cameras` documents."""
    count = len(names)
    return Cameras(
        torch.from_numpy(np.asarray(camera_to_world, np.float32).reshape(count, 3, 4)),
        torch.from_numpy(np.asarray(intrinsics, np.float32).reshape(count, 4)),
        torch.from_numpy(np.asarray(distortion, np.float32).reshape(count, 8)),
        torch.from_numpy(np.asarray(lens, np.int32).reshape(count)),
        torch.from_numpy(np.asarray(sizes, np.int64).reshape(count, 2)),
        tuple(names),
    )


def perspective_camera(camera_to_world: Any, fov: float, size: tuple[int, int], name: str = "camera") -> Cameras:
    """One pinhole camera.

    Args:
        camera_to_world: (3, 4) pose, OpenGL axes, scene units; `scene.transform.apply_poses` makes it of the user's.
        fov: vertical field of view, degrees.
        size: width and height, pixels.
        name: what to call it.
    Raises:
        DataError: a field of view or size of no camera.

    Example:
        >>> pose = scene.transform.apply_poses(np.eye(4)[:3])
        >>> perspective_camera(pose, fov=50, size=(640, 360)).size(0)
        (640, 360)
    """
    width, height = size
    if not 0 < fov < 180:
        raise DataError(f"fov {fov}: no vertical field of view; use degrees above 0 and below 180, such as 50")
    if min(size) < 1:
        raise DataError(f"size {width} x {height}: no image; use whole numbers of pixels, such as (640, 360)")
    focal = 0.5 * height / math.tan(math.radians(fov) / 2)
    lens = [focal, focal, width / 2, height / 2]
    return make_cameras([camera_to_world], [lens], [[0.0] * 8], [PINHOLE], [size], (name,))
