"""The keys of a camera path while they are edited, and the file that `msth render --path` reads."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from msth_taichi.errors import RunError
from msth_taichi.rendering.path_files import PathFile, PathKey, write_path
from msth_taichi.rendering.splines import pose_spline

MOST_KEYS = 500

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_MOST_FILES = 1000  # in a folder of paths, so that no client fills a disk


class Keys:
    """Keys in the order of the video, evenly spaced in its time.

    Example:
        >>> keys = Keys()
        >>> keys.add(np.eye(4)[:3], time=0.0, fov=50.0)
        >>> len(keys)
        1
    """

    def __init__(self) -> None:
        self._keys: list[PathKey] = []

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[PathKey]:
        return iter(self._keys)

    def __getitem__(self, number: int) -> PathKey:
        return self._keys[number]

    def add(self, pose: np.ndarray, time: float, fov: float) -> None:
        """Append a key; pose (3, 4) in the user's coordinates, fov in degrees."""
        if len(self) >= MOST_KEYS:
            raise RunError(f"the path has {MOST_KEYS} keys; remove some, or save it and begin another")
        self._keys.append(_key(pose, time, fov))

    def replace(self, number: int, pose: np.ndarray, time: float, fov: float) -> None:
        """Put another key in the place of one."""
        self._keys[number] = _key(pose, time, fov)

    def remove(self, number: int) -> None:
        del self._keys[number]

    def path(self, step: float, closed: bool = False) -> PathFile:
        """The path through all keys.

        Args:
            step: seconds of the video from key to key.
            closed: it goes on from the last key to the first.
        Raises:
            RunError: there are no keys.
        """
        if not self._keys:
            raise RunError("the path has no keys; add one where the camera stands")
        closed = closed and len(self) > 1
        keys = tuple(key.model_copy(update={"seconds": k * step}) for k, key in enumerate(self._keys))
        return PathFile(keys=keys, closed=closed, seconds=len(self) * step if closed else None)

    def poses(self, per_key: int, closed: bool = False) -> np.ndarray:
        """(F, 3, 4) along the way that the camera takes, keys among them."""
        count, poses = len(self), np.array([key.pose for key in self._keys]).reshape(-1, 3, 4)
        if count < 2:
            return poses
        period = float(count) if closed else None
        length = count if closed else count - 1
        return pose_spline(np.arange(count), poses, np.linspace(0, length, length * per_key + 1), period)


def save_path(folder: Path, name: str, path: PathFile) -> Path:
    """Write a path into a folder under the first free name of NAME.json, NAME-2.json, ...; nothing is replaced.

    Raises:
        RunError: `name` is none, the folder is full, or the system refuses the write.
    """
    if not _NAME.fullmatch(name):
        raise RunError(f"path name {name!r:.40}: use letters, digits, '-' and '_', such as flight-1")
    taken = {file.name for file in folder.iterdir()} if folder.is_dir() else set()
    if len(taken) >= _MOST_FILES:
        raise RunError(f"{folder}: holds {_MOST_FILES} files; remove some")
    names = [f"{name}.json", *(f"{name}-{k}.json" for k in range(2, len(taken) + 3))]
    file = folder / next(name for name in names if name not in taken)
    write_path(file, path)
    return file


def _key(pose: np.ndarray, time: float, fov: float) -> PathKey:
    return PathKey(pose=pose.tolist(), time=time, fov=fov)
