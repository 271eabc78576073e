"""The built-in scene: a room, cameras on an arc that look into it, and exact colour, depth and motion.

Letters: C cameras, T frames, H image height, W image width.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from msth_taichi.config import Config, DataConfig
from msth_taichi.errors import ConfigError
from msth_taichi.kernels import runtime
from msth_taichi.kernels.room import room
from msth_taichi.lenses import PINHOLE
from msth_taichi.scene.cameras import Cameras, make_cameras
from msth_taichi.scene.normalize import SceneTransform
from msth_taichi.scene.scene import Scene, rig_images

ARC = math.radians(120)
"""Angle that the cameras span, seen from the centre of the room."""

RADIUS = 0.9
HEIGHTS = (0.1, 0.4)
"""Training cameras alternate between the two; test cameras stand half way."""

TARGET = (0.0, 0.1, -0.1)
FIELD_OF_VIEW = math.radians(70)
FPS = 12.0

_LIMITS = {
    "cameras": (2, 1000),
    "test_cameras": (1, 999),
    "frames": (1, 10000),
    "width": (4, 8192),
    "height": (4, 8192),
}


def synthetic_scene(
    cameras: int = 8,
    test_cameras: int = 2,
    frames: int = 12,
    width: int = 128,
    height: int = 96,
    config: DataConfig | None = None,
) -> Scene:
    """A static room with texture; a ball hops around and a crate slides and turns, one loop in T frames.

    Frames are traced when they are read, in seconds altogether. The scene is made in scene units: `box`,
    `downscale` and `num_frames` are all that applies of `config`.

    Args:
        cameras: training cameras, on an arc.
        test_cameras: held-out cameras, each half way between two training cameras.
        frames: T, times of every camera.
        width: pixels.
        height: pixels.
        config: default: every setting's default.
    Raises:
        ConfigError: a number is out of range.

    Example:
        >>> images = synthetic_scene(frames=2).images("test")
        >>> images.depth(0).shape, bool(images.moving(0).any())
        ((96, 128), True)
    """
    config = config or Config().data
    given = (cameras, test_cameras, frames, width, height)
    for value, (name, (low, high)) in zip(given, _LIMITS.items(), strict=True):
        if not low <= value <= high:
            raise ConfigError(f"synthetic: {name}={value} is out of range; use {low} to {high}")
    if test_cameras >= cameras:
        raise ConfigError(f"synthetic: test_cameras={test_cameras} is too many for cameras={cameras}; use fewer")
    width, height = max(width // config.downscale, 1), max(height // config.downscale, 1)
    frames = min(frames, config.num_frames or frames)

    rig = _rig(cameras, test_cameras, width, height)
    source = RoomSource(rig, frames)
    rows = np.arange(cameras + test_cameras)
    return Scene(
        name="synthetic",
        path=None,
        cameras=rig,
        splits={
            "train": rig_images(rows[:cameras], frames, source),
            "test": rig_images(rows[cameras:], frames, source),
        },
        transform=SceneTransform.identity(),
        box=config.box,
        num_frames=frames,
        fps=FPS,
        format="synthetic",
        static_cameras=True,
    )


@dataclass(frozen=True, eq=False)
class RoomSource:
    """Frames of the room, traced when read; the key of a frame is camera * num_frames + frame."""

    cameras: Cameras
    num_frames: int
    channels: int = 3
    masked: bool = False

    def read(self, keys: np.ndarray) -> Iterator[np.ndarray]:
        """Frames (H, W, 3) uint8 in the order of `keys`."""
        for key in keys.tolist():
            yield self._trace(key)[0].cpu().numpy()

    def parts(self, keys: np.ndarray) -> list[np.ndarray]:
        """One: kernels are launched from one thread."""
        return [np.arange(len(keys))]

    def fingerprint(self) -> list[Any]:
        """What the frames depend on."""
        return ["room", self.num_frames, self.cameras.describe()]

    def depth(self, key: int) -> np.ndarray:
        """(H, W) float32, distance along the unit ray through the pixel centre."""
        return self._trace(key)[1].cpu().numpy()

    def moving(self, key: int) -> np.ndarray:
        """(H, W) bool, the pixel centre sees the ball or the crate."""
        return self._trace(key)[2].cpu().numpy().astype(bool)

    def _trace(self, key: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        camera, frame = divmod(key, self.num_frames)
        device = runtime.device()
        size = self.cameras.size(camera)[::-1]
        color = torch.empty((*size, 3), dtype=torch.uint8, device=device)
        depth = torch.empty(size, dtype=torch.float32, device=device)
        moving = torch.empty(size, dtype=torch.uint8, device=device)
        pose, lens = self.cameras.camera_to_world.to(device), self.cameras.intrinsics.to(device)
        room().render(pose, lens, camera, frame / self.num_frames, color, depth, moving)
        return color, depth, moving


def _rig(cameras: int, test_cameras: int, width: int, height: int) -> Cameras:
    """Training cameras, then test cameras in gaps spread evenly over the arc."""
    gaps = cameras - 1
    positions = [(i / gaps, HEIGHTS[i % 2]) for i in range(cameras)]
    held_out = [(2 * k + 1) * gaps // (2 * test_cameras) for k in range(test_cameras)]
    positions += [((gap + 0.5) / gaps, sum(HEIGHTS) / 2) for gap in held_out]
    focal = 0.5 * width / math.tan(0.5 * FIELD_OF_VIEW)
    count = len(positions)
    return make_cameras(
        np.stack([_pose((along - 0.5) * ARC, z) for along, z in positions]),
        np.tile([focal, focal, width / 2, height / 2], (count, 1)),
        np.zeros((count, 8)),
        np.full(count, PINHOLE),
        np.tile([width, height], (count, 1)),
        [f"cam{i:02d}" for i in range(cameras)] + [f"test{i:02d}" for i in range(test_cameras)],
    )


def _pose(angle: float, z: float) -> np.ndarray:
    """(3, 4) camera-to-world at `angle` about z from -y, looking at the target."""
    position = np.array([RADIUS * math.sin(angle), -RADIUS * math.cos(angle), z])
    back = position - np.array(TARGET)
    back /= np.linalg.norm(back)
    right = np.cross([0.0, 0.0, 1.0], back)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(back, right), back, position], 1)
