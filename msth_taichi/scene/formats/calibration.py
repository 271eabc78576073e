"""What the readers of calibrated rigs share: values out of files that may hold anything, axes, sizes, splits.

Every problem is a DataError of one line that names the file and the remedy.
"""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from msth_taichi.config import DataConfig
from msth_taichi.errors import DataError
from msth_taichi.scene.assemble import LARGEST, RIGID_TOLERANCE
from msth_taichi.scene.sources import FileInfo, probe_video

_ASPECT_TOLERANCE = 0.01


def read_json(path: Path) -> Any:
    """What a json file holds.

    Raises:
        DataError: missing or unreadable.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        raise DataError(f"{path}: missing; restore it") from error
    except (OSError, ValueError, RecursionError) as error:  # ValueError: not UTF-8, not json, endless digits
        raise DataError(f"{path}: not readable json ({error}); restore or correct it") from error


def numbers(value: Any, shape: tuple[int, ...], where: str) -> np.ndarray:
    """Finite float64 numbers of a shape; () for a single number.

    Args:
        value: what a file holds, of any type.
        shape: what it has to be.
        where: file and key, for the error.
    Raises:
        DataError: not numbers, not of that shape, not finite.
    """
    try:
        # without the check numpy would also take "1" and true for numbers
        array = np.array(value, object)
        if not all(isinstance(item, int | float) and not isinstance(item, bool) for item in array.flat):
            raise TypeError
        array = array.astype(np.float64)
    except (TypeError, ValueError, OverflowError, RecursionError):
        array = np.empty(0)
    if array.shape != shape:
        wanted = "a number" if shape == () else f"{' x '.join(map(str, shape))} numbers"
        raise DataError(f"{where} is not {wanted}; correct or restore the file")
    if not (np.abs(array) < LARGEST).all():
        raise DataError(f"{where} is not finite; correct or restore the file")
    return array


def positive(value: Any, where: str) -> float:
    """A finite number above 0."""
    number = float(numbers(value, (), where))
    if number <= 0:
        raise DataError(f"{where} is {number:g}; write a positive number")
    return number


def opengl_from_opencv(world_to_camera: np.ndarray) -> np.ndarray:
    """(3, 4) camera-to-world, x right, y up, looking along -z, from world-to-camera with y down and z forward."""
    rotation, translation = world_to_camera[:3, :3], world_to_camera[:3, 3]
    turned = rotation.T * [1.0, -1.0, -1.0]
    return np.concatenate([turned, -(rotation.T @ translation)[:, None]], 1)


def is_rotation(matrix: np.ndarray) -> bool:
    """Whether a (3, 3) matrix neither stretches nor mirrors."""
    return bool(np.abs(matrix @ matrix.T - np.eye(3)).max() < RIGID_TOLERANCE and np.linalg.det(matrix) > 0)


def resized(
    intrinsics: Sequence[float], calibrated: tuple[float, float], info: FileInfo, file: Path, calibration: Path
) -> tuple[float, ...]:
    """fx, fy, cx, cy in pixels of a file that may be a smaller or larger copy of what was calibrated.

    Args:
        intrinsics: fx, fy, cx, cy for images of the calibrated size.
        calibrated: width and height that the calibration is for.
        info: the file's size.
        file: the file, for the error.
        calibration: the file that holds the calibration, for the error.
    Raises:
        DataError: the proportions differ, as after cropping.
    """
    x, y = (size / float(whole) for size, whole in zip((info.width, info.height), calibrated, strict=True))
    if not abs(x / y - 1) <= _ASPECT_TOLERANCE:  # NaN is neither
        raise DataError(
            f"{file}: {info.width}x{info.height}, but {calibration.name} is for "
            f"{calibrated[0]:g}x{calibrated[1]:g}; resize without cropping, or restore the file"
        )
    fx, fy, cx, cy = intrinsics
    return fx * x, fy * y, cx * x, cy * y


def hold_out(count: int, row: int) -> dict[str, list[int]]:
    """Splits of a rig that tests on one camera and trains on the others; a lone camera trains."""
    if count == 1:
        return {"train": [0]}
    return {"train": [k for k in range(count) if k != row], "test": [row]}


@dataclass(frozen=True)
class Videos:
    """What the files of a synchronised rig say.

    Args:
        infos: one a file.
        num_frames: frames to use of each.
        fps: frames a second.
    """

    infos: tuple[FileInfo, ...]
    num_frames: int
    fps: float


def probe_videos(files: Sequence[Path], config: DataConfig, stated: int | None = None) -> Videos:
    """Look into every video of a rig, several at a time.

    Args:
        files: one a camera.
        config: `num_frames` of it is what the user asks for.
        stated: frames that a calibration promises; default: those of the longest video.
    Raises:
        DataError: a video is missing, unreadable, or too short.
    """
    with ThreadPoolExecutor() as pool:
        infos = tuple(pool.map(probe_video, files))
    longest = max(range(len(infos)), key=lambda k: infos[k].frames)
    num_frames = config.num_frames or stated or infos[longest].frames
    for file, info in zip(files, infos, strict=True):
        if info.frames < num_frames:
            wanted = (
                f"num_frames is {num_frames}"
                if config.num_frames or stated
                else f"{files[longest].name} has {num_frames}"
            )
            raise DataError(
                f"{file}: {info.frames} frames, but {wanted}; use data.num_frames={info.frames} or restore the video"
            )
    return Videos(infos, num_frames, infos[0].fps or 30.0)
