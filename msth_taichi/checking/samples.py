"""The frames that the checks look at: a stretch of every video made small and grey, and a few in colour.

Letters: C cameras looked at, T frames of the stretch, S stills, H image height, W image width.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from msth_taichi.errors import DataError, FrameError
from msth_taichi.machine import usable_cores
from msth_taichi.scene.scene import Images, Scene

STRETCH = 150
"""Frames of each video that are looked at for motion."""

STILLS = 5
GREY_WIDTH = 160
STILL_WIDTH = 640

ANCHORS = 20
"""Of more images than three times this, so many are compared with their neighbours."""


@dataclass(frozen=True, eq=False)
class View:
    """What was decoded of one camera.

    Args:
        camera: row of the scene's cameras.
        grey: (T, H, W) float32 in 0..255, reduced; fewer frames where the file ends early.
        stills: (S, H, W, 3) uint8, larger.
        failure: why decoding stopped; empty where it did not.
        damaged: frames that training would leave out; the one before stands for each in `grey`, which keeps time.
    """

    camera: int
    grey: np.ndarray
    stills: np.ndarray
    failure: str = ""
    damaged: tuple[FrameError, ...] = ()


def read_views(scene: Scene, progress: bool = True) -> list[View]:
    """Decode what the checks need, camera by camera; a file that fails is noted and does not stop the others."""
    tables = [part for part in (_of_camera(scene, camera) for camera in _cameras(scene)) if part is not None]
    bar = tqdm(desc="frames", total=len(tables), unit="camera", leave=False, disable=None if progress else True)

    def read(part: tuple[int, Images]) -> View:
        view = _read(*part)
        with bar.get_lock():
            bar.update()
        return view

    with bar:
        # the built-in scene launches kernels, which is for the main thread
        if any(images.has_truth for _, images in tables):
            return [read(part) for part in tables]
        with ThreadPoolExecutor(usable_cores()) as pool:
            return list(pool.map(read, tables))


def _cameras(scene: Scene) -> Sequence[int]:
    """All cameras, or of many single images some and their neighbours."""
    count = len(scene.cameras)
    if scene.static_cameras or count <= 3 * ANCHORS:
        return range(count)
    position = scene.cameras.camera_to_world[:, :, 3]
    look = scene.cameras.camera_to_world[:, :, 2]
    chosen: set[int] = set()
    for anchor in np.linspace(0, count - 1, ANCHORS).astype(int).tolist():
        far = torch.linalg.vector_norm(position - position[anchor], dim=1) / position.std().clamp(min=1e-9)
        apart = far + 2 * (1 - look @ look[anchor])
        chosen |= {anchor, *apart.argsort()[:3].tolist()}
    return sorted(chosen)


def _of_camera(scene: Scene, camera: int) -> tuple[int, Images] | None:
    """The first images of a camera in the order of time, from whatever splits they are in."""
    parts = [
        images.select((images.camera == camera).nonzero()[:, 0])
        for images in scene.splits.values()
        if (images.camera == camera).any()
    ]
    if not parts:
        return None
    images = replace(
        parts[0],
        camera=torch.cat([part.camera for part in parts]),
        time=torch.cat([part.time for part in parts]),
        frame=torch.cat([part.frame for part in parts]),
        keys=np.concatenate([part.keys for part in parts]),
    )
    return camera, images.select(images.frame.argsort()[:STRETCH])


def _read(camera: int, images: Images) -> View:
    wanted = set(np.linspace(0, len(images) - 1, min(STILLS, len(images))).astype(int).tolist())
    grey, stills, damaged, failure = [], [], [], ""
    try:
        for row, frame in enumerate(images.attempt()):
            if isinstance(frame, FrameError):
                damaged.append(frame)
                grey += grey[-1:]
                continue
            color = _opaque(frame)
            grey.append(_shrink(color, GREY_WIDTH))
            if row in wanted:
                stills.append(_resize(color, STILL_WIDTH))
    except DataError as error:
        failure = str(error)
    return View(
        camera,
        np.stack(grey) if grey else np.zeros((0, 1, 1), np.float32),
        np.stack(stills) if stills else np.zeros((0, 1, 1, 3), np.uint8),
        failure,
        tuple(damaged),
    )


def _opaque(frame: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8; what is transparent or masked is black."""
    if frame.shape[2] == 3:
        return np.ascontiguousarray(frame)
    return (frame[..., :3] * (frame[..., 3:] / 255.0).prod(-1, keepdims=True)).astype(np.uint8)


def _shrink(color: np.ndarray, width: int) -> np.ndarray:
    """(H, W) float32 brightness, averaged over blocks; what fills no block is cut off."""
    factor = max(color.shape[1] // width, 1)
    box = (0, 0, color.shape[1] // factor * factor, max(color.shape[0] // factor, 1) * factor)
    return np.asarray(Image.fromarray(color).convert("L").reduce(factor, box), np.float32)


def _resize(color: np.ndarray, width: int) -> np.ndarray:
    if color.shape[1] <= width:
        return color.copy()
    size = (width, max(round(color.shape[0] * width / color.shape[1]), 1))
    return np.asarray(Image.fromarray(color).resize(size, Image.Resampling.BOX))
