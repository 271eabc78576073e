"""Reading and checking the json that all formats share: `frames`, poses, intrinsics.

Every problem is a DataError of one line that names the file and the remedy, found before a frame is decoded.

Letters: C cameras.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from msth_taichi.config import DataConfig
from msth_taichi.errors import DataError
from msth_taichi.lenses import DISTORTION, FISHEYE, OPENCV, PINHOLE
from msth_taichi.scene.cameras import Cameras, make_cameras
from msth_taichi.scene.normalize import SceneTransform, normalize_poses
from msth_taichi.scene.sources import FileInfo

SPLITS = ("train", "test", "val")
SINGLE = "all"
"""Key of the entries of a lone transforms.json, which names no split."""

RIGID_TOLERANCE = 1e-3
LARGEST = 1e30

_PERSPECTIVE = ("PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV")
_FISHEYE = ("OPENCV_FISHEYE", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE")


@dataclass(frozen=True, eq=False)
class Entry:
    """One element of a json's `frames`, with the keys of the top level laid over its own."""

    json: Path
    index: int
    values: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.json}: frame {self.index}"

    def file(self, suffix: str = "") -> Path:
        """The file it names, relative to its json."""
        return self.json.parent / (self.values["file_path"] + suffix)

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number."""
        value = self.values.get(key, default)
        if value is None:
            raise DataError(f"{self} has no '{key}'; add it")
        # no setting of a camera is near 1e30, and float32 holds it
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < LARGEST:
            raise DataError(f"{self}: {key} is {value!r:.40}; write a finite number")
        return float(value)

    def time(self) -> float:
        """In [0, 1]."""
        time = self.number("time")
        if not 0 <= time <= 1:
            raise DataError(f"{self}: time is {time:g}; scale all times into [0, 1]")
        return time

    def pose(self) -> np.ndarray:
        """(3, 4) float64 camera-to-world, rigid to 1e-3."""
        if "transform_matrix" not in self.values:
            raise DataError(f"{self} has no 'transform_matrix'; add its 4x4 camera-to-world matrix")
        try:
            matrix = np.asarray(self.values["transform_matrix"], np.float64)
        except (TypeError, ValueError):
            matrix = np.empty(0)
        if matrix.shape not in ((4, 4), (3, 4)):
            raise DataError(f"{self}: transform_matrix is not 4x4 numbers; write a camera-to-world matrix")
        if not (np.abs(matrix) < LARGEST).all():
            raise DataError(f"{self}: transform_matrix is not finite; correct the pose or remove the entry")
        if not np.allclose(matrix[3:], [0, 0, 0, 1], atol=RIGID_TOLERANCE):
            raise DataError(
                f"{self}: transform_matrix is not rigid (its last row is not 0 0 0 1); transpose or correct it"
            )
        rotation = matrix[:3, :3]
        error = np.abs(rotation @ rotation.T - np.eye(3)).max()
        if error > RIGID_TOLERANCE or np.linalg.det(rotation) < 0:
            found = f"it differs from a rotation by {error:.2g}" if error > RIGID_TOLERANCE else "it mirrors"
            raise DataError(f"{self}: transform_matrix is not rigid ({found}); remove scale, shear and mirroring")
        return matrix[:3]

    def intrinsics(self, width: int, height: int) -> list[float]:
        """fx, fy, cx, cy in pixels of a file of this size."""
        if "fl_x" in self.values:
            fx = self.number("fl_x")
        elif "camera_angle_x" in self.values:
            angle = self.number("camera_angle_x")
            if not 0 < angle < math.pi:
                raise DataError(f"{self}: camera_angle_x is {angle:g}; write the field of view in radians")
            fx = 0.5 * width / math.tan(0.5 * angle)
        else:
            raise DataError(f"{self} has neither 'fl_x' nor 'camera_angle_x'; add the focal length in pixels")
        fy = self.number("fl_y", fx)
        if min(fx, fy) <= 0:
            raise DataError(f"{self}: focal length is {min(fx, fy):g}; write a positive number of pixels")
        return [fx, fy, self.number("cx", width / 2), self.number("cy", height / 2)]

    def lens(self) -> tuple[int, list[float]]:
        """Lens code and distortion; perspective cameras without distortion are pinholes."""
        model = self.values.get("camera_model", "OPENCV")
        if model not in _PERSPECTIVE + _FISHEYE:
            raise DataError(f"{self}: unknown camera_model {model!r}; use one of {', '.join(_PERSPECTIVE + _FISHEYE)}")
        distortion = [self.number(key, 0.0) for key in DISTORTION]
        if model in _FISHEYE:
            return FISHEYE, distortion
        return (OPENCV if any(distortion) else PINHOLE), distortion


def has_transforms(folder: Path) -> bool:
    """Whether a folder has any json of this family."""
    return any(
        (folder / name).is_file() for name in ("transforms.json", "transforms_train.json", "transforms_test.json")
    )


def first_file_path(folder: Path) -> str:
    """`file_path` of the first entry, which tells the formats apart.

    Raises:
        DataError: a json is missing, cannot be read, or has no entry.
    """
    return next(iter(read_splits(folder).values()))[0].values["file_path"]


def read_splits(folder: Path) -> dict[str, list[Entry]]:
    """Entries of each split, or of `SINGLE` if there is one transforms.json; never empty.

    Raises:
        DataError: a json is missing or unreadable, or has no entry, or an entry names no file.
    """
    train, single = folder / "transforms_train.json", folder / "transforms.json"
    if single.is_file() and not train.is_file():
        return {SINGLE: _read_entries(single)}
    for split in ("train", "test"):
        path = folder / f"transforms_{split}.json"
        if not path.is_file():
            raise DataError(f"{path}: missing; restore it, or name a lone json transforms.json")
    paths = {split: folder / f"transforms_{split}.json" for split in SPLITS}
    return {split: _read_entries(path) for split, path in paths.items() if path.exists()}


def _read_entries(path: Path) -> list[Entry]:
    try:
        top = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:  # ValueError: not UTF-8, not json, endless digits
        raise DataError(f"{path}: not readable json ({error}); restore or correct it") from error
    frames = top.pop("frames", None) if isinstance(top, dict) else None
    if not isinstance(frames, list) or not all(isinstance(frame, dict) for frame in frames):
        raise DataError(f"{path}: no list 'frames' of objects; add one entry per image or camera")
    if not frames:
        raise DataError(f"{path}: zero images in 'frames'; add one entry per image or camera")
    # any distortion at the top level makes the whole of it global, so that two lenses never mix
    dropped = DISTORTION if any(key in top for key in DISTORTION) else ()
    entries = []
    for index, frame in enumerate(frames):
        own = {key: value for key, value in frame.items() if key not in dropped}
        entry = Entry(path, index, {**own, **top})
        if not isinstance(entry.values.get("file_path"), str) or not entry.values["file_path"]:
            raise DataError(f"{entry} has no 'file_path'; add the name of its file")
        entries.append(entry)
    return entries


def common_size(entries: Sequence[Entry], infos: Sequence[FileInfo], files: Sequence[Path]) -> tuple[int, int]:
    """The width and height that all files and all json agree on.

    Raises:
        DataError: two files differ, or a file differs from its json's w and h.
    """
    width, height = infos[0].width, infos[0].height
    for entry, info, file in zip(entries, infos, files, strict=True):
        size = f"{info.width}x{info.height}"
        if (info.width, info.height) != (width, height):
            raise DataError(f"{file}: {size}, but {files[0]} is {width}x{height}; bring all files to one size")
        w, h = entry.number("w", info.width), entry.number("h", info.height)
        if (w, h) != (info.width, info.height):
            raise DataError(
                f"{file}: {size}, but {entry} says w={w:g}, h={h:g}; "
                "correct w, h and the intrinsics, or restore the file"
            )
    return width, height


def build_cameras(
    entries: Sequence[Entry], names: Sequence[str], width: int, height: int, config: DataConfig
) -> tuple[Cameras, SceneTransform]:
    """Normalised cameras of all entries together, for files of this size divided by `config.downscale`."""
    if min(width, height) < config.downscale:
        raise DataError(f"data.downscale={config.downscale}: images of {width}x{height} have no pixel left; use less")
    poses = np.stack([entry.pose() for entry in entries])
    lenses = [entry.lens() for entry in entries]
    transform = normalize_poses(poses, config)
    cameras = make_cameras(
        transform.apply_poses(poses),
        np.array([entry.intrinsics(width, height) for entry in entries]) / config.downscale,
        [distortion for _, distortion in lenses],
        [lens for lens, _ in lenses],
        np.tile([width // config.downscale, height // config.downscale], (len(poses), 1)),
        _unique(names),
    )
    return cameras, transform


def frames_per_second(entry: Entry, default: float) -> float:
    """`fps` of the json, else `default`."""
    fps = entry.number("fps", default)
    if fps <= 0:
        raise DataError(f"{entry.json}: fps is {fps:g}; write a positive number")
    return fps


def _unique(names: Sequence[str]) -> list[str]:
    """Names with a number after those that repeat."""
    seen: dict[str, int] = {}
    unique = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        unique.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return unique
