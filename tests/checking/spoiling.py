"""The built-in scene as a rig in memory, and ways to spoil one of its cameras."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from msth_taichi.scene.scene import Scene, load_scene


@dataclass(frozen=True, eq=False)
class ArraySource:
    """Frames (C, T, H, W, 3) uint8; the key of a frame is camera * T + frame."""

    frames: np.ndarray
    channels: int = 3
    masked: bool = False

    def fingerprint(self) -> list[Any]:
        return []

    def read(self, keys: np.ndarray) -> Iterator[np.ndarray]:
        yield from self.frames.reshape(-1, *self.frames.shape[2:])[keys]

    def parts(self, keys: np.ndarray) -> list[np.ndarray]:
        return [np.arange(len(keys))]


def room(cameras: int = 8, frames: int = 36, width: int = 128, height: int = 96) -> Scene:
    """A rig of `cameras` and a held-out one; traced once, so that spoiling is cheap."""
    options = f"cameras={cameras},test_cameras=1,frames={frames},width={width},height={height}"
    scene = load_scene(f"synthetic:{options}")
    pictures = np.stack([frame for images in scene.splits.values() for frame in images.read()])
    return with_frames(scene, pictures.reshape(cameras + 1, frames, height, width, 3))


def frames_of(scene: Scene) -> np.ndarray:
    """(C, T, H, W, 3), a copy to spoil."""
    source: Any = scene.images("train").source
    return source.frames.copy()


def with_frames(scene: Scene, frames: np.ndarray) -> Scene:
    source = ArraySource(frames)
    return replace(scene, splits={name: replace(images, source=source) for name, images in scene.splits.items()})


def with_signs(scene: Scene, cameras: Sequence[int], *signs: int) -> Scene:
    """The axes of some cameras' poses multiplied by 1 or -1."""
    poses = scene.cameras.camera_to_world.clone()
    poses[list(cameras), :, :3] *= torch.tensor(signs)
    return replace(scene, cameras=scene.cameras.with_poses(poses))


def turned(scene: Scene, camera: int, degrees: float) -> Scene:
    """One camera's pose turned about its x axis."""
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    poses = scene.cameras.camera_to_world.clone()
    poses[camera, :, :3] @= torch.tensor([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]], dtype=torch.float32)
    return replace(scene, cameras=scene.cameras.with_poses(poses))


def delayed(scene: Scene, camera: int, frames: int) -> Scene:
    """One camera shows everything so many frames late."""
    pictures = frames_of(scene)
    order = np.clip(np.arange(pictures.shape[1]) - frames, 0, pictures.shape[1] - 1)
    pictures[camera] = pictures[camera][order]
    return with_frames(scene, pictures)


def tinted(scene: Scene, camera: int, *gains: float) -> Scene:
    """One camera's red, green and blue multiplied."""
    pictures = frames_of(scene)
    pictures[camera] = (pictures[camera] * np.array(gains)).clip(0, 255).round()
    return with_frames(scene, pictures)
