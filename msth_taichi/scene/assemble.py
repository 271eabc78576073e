"""From what a format says about its cameras and files to a scene.

Letters: V views, K images, T times.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from msth_taichi.config import DataConfig
from msth_taichi.errors import DataError
from msth_taichi.lenses import FISHEYE, OPENCV, ORTHOGRAPHIC, PINHOLE
from msth_taichi.scene.cameras import Cameras, make_cameras
from msth_taichi.scene.normalize import SceneTransform, normalize_poses
from msth_taichi.scene.scene import FrameSource, Scene, make_images
from msth_taichi.scene.sources import DepthMap, ImageSource, VideoSource, probe_image

RIGID_TOLERANCE = 1e-3
LARGEST = 1e30
"""No setting of a camera is near this, and float32 holds it."""

STEEPEST = 1e3
"""Tangent of the angle to the axis, or that angle, of no ray of an image; and no distortion bends it by this factor."""

_POWERS = {OPENCV: (2, 4, 6, 2, 4, 6, 1, 1), FISHEYE: (2, 4, 6, 8, 0, 0, 0, 0)}
"""Of the radius, by which each coefficient is multiplied."""


@dataclass(frozen=True, eq=False)
class View:
    """A calibrated camera of a data set, in the user's coordinates and in pixels of its files.

    Args:
        name: what to call it; unique names are made of equal ones.
        pose: (3, 4) camera-to-world, OpenGL axes.
        intrinsics: fx, fy, cx, cy; the first pixel's centre is (0.5, 0.5). Pixels per unit where orthographic.
        width: pixels.
        height: pixels.
        lens: a code of `msth_taichi.lenses`.
        distortion: eight coefficients, see `msth_taichi.lenses.DISTORTION`.

    Example:
        >>> View("left", np.eye(4)[:3], (500.0, 500.0, 320.0, 180.0), 640, 360)
    """

    name: str
    pose: np.ndarray
    intrinsics: Sequence[float]
    width: int
    height: int
    lens: int = PINHOLE
    distortion: Sequence[float] = (0.0,) * 8


def video_scene(
    folder: Path,
    config: DataConfig,
    *,
    format: str,
    views: Sequence[View],
    files: Sequence[Path],
    splits: Mapping[str, Sequence[int]],
    num_frames: int,
    fps: float,
    starts: Sequence[int] | None = None,
    rates: Sequence[float] | None = None,
    bounds: tuple[float, float] | None = None,
) -> Scene:
    """Cameras that stand still, one video a view; frame t of T is at time t / T.

    Args:
        folder: the data set.
        config: what is loaded, and where it is put.
        format: see `Scene`.
        views: V cameras.
        files: their videos.
        splits: rows of `views`.
        num_frames: T, without `config.num_frames`.
        fps: frames per second.
        starts: frame of each file that shows time 0; default 0.
        rates: frames of each file for one of the scene, see `file_frames`; default 1.
        bounds: nearest and farthest distance of what is seen, the user's units.
    Raises:
        DataError: a pose or an intrinsic is not one, or nothing is left of the images.
    """
    frames = min(num_frames, config.num_frames or num_frames)
    first = np.zeros(len(views), np.int64) if starts is None else np.asarray(starts, np.int64)
    rate = np.ones(len(views)) if rates is None else np.asarray(rates, np.float64)
    stride = int(max(file_frames(frames, int(s), r)[-1] for s, r in zip(first, rate, strict=True))) + 1
    source = VideoSource(tuple(files), stride, _sizes(views), config.downscale)
    cameras, transform = place(folder, views, config)
    images = {}
    for split, rows in splits.items():
        camera = np.repeat(np.asarray(rows, np.int64), frames)
        frame = np.tile(np.arange(frames), len(rows))
        keys = [v * stride + file_frames(frames, int(first[v]), rate[v]) for v in rows]
        images[split] = make_images(camera, frame / frames, frame, np.concatenate(keys or [frame]), source)
    return Scene(
        name=folder.resolve().name,
        path=folder,
        cameras=cameras,
        splits={split: table for split, table in images.items() if len(table)},
        transform=transform,
        box=config.box,
        num_frames=frames,
        fps=fps,
        format=format,
        static_cameras=True,
        bounds=_scaled(bounds, transform),
    )


def file_frames(count: int, start: int, rate: float) -> np.ndarray:
    """(T,) frames of a file that show the T = `count` times of a scene: round(start + t rate), the nearest in time.

    Example:
        >>> file_frames(4, start=3, rate=2.0)
        array([3, 5, 7, 9])
    """
    return np.floor(start + rate * np.arange(count) + 0.5).astype(np.int64)


def image_scene(
    folder: Path,
    config: DataConfig,
    *,
    format: str,
    views: Sequence[View],
    files: Sequence[Path],
    camera: Sequence[int],
    times: Sequence[float],
    splits: Mapping[str, Sequence[int]],
    fps: float = 30.0,
    masks: Sequence[Path | None] | None = None,
    depths: Sequence[DepthMap | None] | None = None,
    bounds: tuple[float, float] | None = None,
) -> Scene:
    """One file an image, of a camera that moves or of a rig.

    Args:
        folder: the data set.
        config: what is loaded, and where it is put.
        format: see `Scene`.
        views: V cameras; one that moves has a view for each image.
        files: K images.
        camera: K rows of `views`.
        times: K times in [0, 1].
        splits: rows of `files`.
        fps: frames per second.
        masks: grey images, 0 where a pixel is to be ignored; None for an image without.
        depths: depth maps; None for an image without.
        bounds: nearest and farthest distance of what is seen, the user's units.
    Raises:
        DataError: a pose, an intrinsic or a time is not one, an image cannot be read, or nothing is left of it.
    """
    time = np.asarray(times, np.float64)
    if not ((time >= 0) & (time <= 1)).all():  # NaN is neither
        bad = int(np.flatnonzero(~((time >= 0) & (time <= 1)))[0])
        raise DataError(f"{files[bad]}: time is {time[bad]:g}; scale all times into [0, 1]")
    row = np.asarray(camera, np.int64)
    distinct, frame = np.unique(time, return_inverse=True)
    if config.num_frames is not None and config.num_frames < len(distinct):
        splits = {split: [k for k in rows if frame[k] < config.num_frames] for split, rows in splits.items()}
        distinct = distinct[: config.num_frames]
    source: FrameSource = ImageSource(
        tuple(files),
        tuple((views[v].width, views[v].height) for v in row),
        max((probe_image(file).channels for file in files), default=3),
        config.downscale,
        tuple(masks) if masks and any(masks) else (),
        tuple(depths) if depths and any(depths) else (),
    )
    tables = {split: np.asarray(rows, np.int64) for split, rows in splits.items() if len(rows)}
    if "train" not in tables:
        raise DataError(f"{folder}: no image to train on within data.num_frames={config.num_frames}; raise it")
    cameras, transform = place(folder, views, config)
    keys = np.arange(len(files))
    _, seen = np.unique(row, return_counts=True)
    return Scene(
        name=folder.resolve().name,
        path=folder,
        cameras=cameras,
        splits={split: make_images(row[k], time[k], frame[k], keys[k], source) for split, k in tables.items()},
        transform=transform,
        box=config.box,
        num_frames=len(distinct),
        fps=fps,
        format=format,
        static_cameras=bool(len(distinct) > 1 and seen.min() > 1),
        bounds=_scaled(bounds, transform),
    )


def place(folder: Path, views: Sequence[View], config: DataConfig) -> tuple[Cameras, SceneTransform]:
    """Cameras in the scene's coordinates, for files divided by `config.downscale`, and the way there.

    Raises:
        DataError: names the view, what is wrong with it, and the remedy.
    """
    if not views:
        raise DataError(f"{folder}: no camera; add at least one")
    for view in views:
        _check(folder, view, config)
    poses = np.stack([np.asarray(view.pose, np.float64)[:3] for view in views])
    transform = normalize_poses(poses, config)
    intrinsics = np.array([view.intrinsics for view in views], np.float64) / config.downscale
    lens = np.array([view.lens for view in views])
    # orthographic cameras count pixels per unit of length, and the unit changes
    intrinsics[lens == ORTHOGRAPHIC, :2] /= transform.scale
    cameras = make_cameras(
        transform.apply_poses(poses),
        intrinsics,
        [view.distortion for view in views],
        lens,
        np.array(_sizes(views)) // config.downscale,
        _unique([view.name for view in views]),
    )
    return cameras, transform


def _check(folder: Path, view: View, config: DataConfig) -> None:
    where = f"{folder}: camera {view.name}"
    pose, intrinsics = np.asarray(view.pose, np.float64), np.asarray(view.intrinsics, np.float64)
    if pose.shape != (3, 4) or not (np.abs(pose) < LARGEST).all():
        raise DataError(f"{where}: its pose is not finite; correct it or remove the camera")
    error = np.abs(pose[:, :3] @ pose[:, :3].T - np.eye(3)).max()
    if error > RIGID_TOLERANCE or np.linalg.det(pose[:, :3]) < 0:
        found = f"it differs from a rotation by {error:.2g}" if error > RIGID_TOLERANCE else "it mirrors"
        raise DataError(f"{where}: its pose is not rigid ({found}); remove scale, shear and mirroring")
    if not (np.abs(intrinsics) < LARGEST).all() or min(intrinsics[:2]) <= 0:
        raise DataError(f"{where}: focal length {intrinsics[0]:g}; write a positive number of pixels")
    fx, fy, cx, cy = intrinsics.tolist()
    x, y = max(abs(cx), abs(view.width - cx)) / fx, max(abs(cy), abs(view.height - cy)) / fy
    if max(x, y) > (LARGEST if view.lens == ORTHOGRAPHIC else STEEPEST):
        raise DataError(
            f"{where}: focal length {fx:g}, {fy:g} and centre {cx:g}, {cy:g} are of no image of "
            f"{view.width}x{view.height}; write them in pixels"
        )
    powers = _POWERS.get(view.lens, (0,) * 8)
    bends = [abs(k) * math.hypot(x, y) ** power for k, power in zip(view.distortion, powers, strict=True)]
    if not all(bend < STEEPEST for bend in bends):  # NaN is not
        raise DataError(f"{where}: its distortion bends the image out of all bounds; correct it or leave it out")
    if min(view.width, view.height) < config.downscale:
        raise DataError(
            f"data.downscale={config.downscale}: images of {view.width}x{view.height} have no pixel left; use less"
        )


def _sizes(views: Sequence[View]) -> tuple[tuple[int, int], ...]:
    return tuple((view.width, view.height) for view in views)


def _scaled(bounds: tuple[float, float] | None, transform: SceneTransform) -> tuple[float, float] | None:
    return None if bounds is None else (bounds[0] * transform.scale, bounds[1] * transform.scale)


def _unique(names: Sequence[str]) -> list[str]:
    """Names with a number after those that repeat."""
    seen: dict[str, int] = {}
    unique: list[str] = []
    for name in names:
        new = name
        while new in seen:
            seen[name] += 1
            new = f"{name}#{seen[name]}"
        seen[new] = 1
        unique.append(new)
    return unique
