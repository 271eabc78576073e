"""Rigs of cameras, and scenes that have nothing but those."""

import numpy as np

from msth_taichi.rendering.rigs import look_at
from msth_taichi.scene.cameras import make_cameras
from msth_taichi.scene.normalize import SceneTransform
from msth_taichi.scene.scene import Scene, make_images

UP = np.array([0.0, 0.0, 1.0])


def ring(count: int, target: np.ndarray, span: float = 2 * np.pi) -> np.ndarray:
    """Cameras on an arc of `span` around `target`, with uneven heights and distances."""
    noise = np.random.default_rng(0).uniform(-0.2, 0.2, (count, 3))
    angle = np.arange(count) / count * span
    position = target + 2.0 * np.stack([np.cos(angle), np.sin(angle), 0.3 + 0 * angle], axis=1) + noise
    return np.stack([look_at(p, target, UP) for p in position])


def grid(target: np.ndarray) -> np.ndarray:
    """A flat wall of cameras that face forward."""
    places = [np.array([x, -2.0, z]) for x in (-0.5, 0, 0.5) for z in (-0.2, 0.1, 0.3)]
    return np.stack([look_at(place, target, UP) for place in places])


TARGET = np.array([0.3, -0.2, 0.1])
RIGS = {
    "ring": ring(12, TARGET),
    "arc": ring(7, TARGET, span=1.2),
    "grid": grid(TARGET),
    "pair": ring(2, TARGET, span=0.5),
    "single": ring(1, TARGET),
}


def scene(poses: np.ndarray, frames: int = 5, static: bool = True) -> Scene:
    """The last camera is held out; each static camera sees every frame, each moving one a single frame."""
    count = len(poses)
    names = [f"cam{k}" for k in range(count)]
    lenses = [[50.0, 50, 16, 12]] * count, [[0.1] + [0.0] * 7] * count, [1] * count, [[32, 24]] * count
    cameras = make_cameras(poses, *lenses, names)
    if static:
        train = (np.repeat(np.arange(count - 1), frames), np.tile(np.arange(frames), count - 1))
        test = (np.full(frames, count - 1), np.arange(frames)[::-1].copy())
    else:
        frames, train, test = (
            count,
            (np.arange(count - 3),) * 2,
            (np.arange(count - 3, count)[::-1].copy(),) * 2,
        )
    splits = {
        name: make_images(camera, frame / frames, frame, frame, None)
        for name, (camera, frame) in {"train": train, "test": test}.items()
    }
    identity = SceneTransform.identity()
    return Scene("rig", None, cameras, splits, identity, 1.0, frames, 30.0, "multiview", static)
