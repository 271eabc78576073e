"""Decoded frames on disk: written once, shared by processes, thrown away with `msth cache --clear`.

A file holds the pixels of a table of images and is named after all that they depend on: files with their sizes and
times, the frames that are used, and the downscale. A change of any gives another name.

Letters: K images.
"""

import hashlib
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock

from msth_taichi.config import DataConfig
from msth_taichi.errors import DataError, FrameError
from msth_taichi.files import replacing, write_json
from msth_taichi.scene.damage import Damage
from msth_taichi.scene.decoding import decode
from msth_taichi.scene.scene import Images

VERSION = 2
"""Of the layout; raised when older files can no longer be read."""

SUFFIX = ".frames"
STATISTICS_SUFFIX = ".statistics"
"""Of what `statistics_cache` keeps in the same folder."""

_OURS = re.compile(r"\.?[0-9a-f]{20}(\.\d+)?\.(frames|statistics|json|lock)")
"""Names of caches, of what belongs to one, and of what a killed process left of them."""


def cache_folder(config: DataConfig | None = None) -> Path:
    """Where caches are kept: `data.cache`, else $MSTH_CACHE, else ~/.cache/msth_taichi."""
    chosen = (config.cache if config else None) or os.environ.get("MSTH_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "msth_taichi"


def cache_key(description: dict[str, Any]) -> str:
    """Name for what depends on these plain values alone: another one if any changes."""
    return hashlib.sha256(json.dumps(description).encode()).hexdigest()[:20]


def cached_frames(
    images: Images, sizes: torch.Tensor, config: DataConfig, progress: bool = True
) -> tuple[Path, Damage]:
    """The file with the pixels of all images, one after the other, and what is wrong with those that could not be
    decoded, whose pixels mean nothing; it is written if it is not there.

    Args:
        images: a table of K images.
        sizes: (K, 2) width and height.
        config: for the folder.
        progress: show a bar.
    Raises:
        DataError: a file cannot be decoded, or the disk does not take the cache.
    """
    description = {"version": VERSION, "images": images.fingerprint(), "sizes": sizes.tolist()}
    path = cache_folder(config) / f"{cache_key(description)}{SUFFIX}"
    counts = sizes.prod(1) * images.channels
    starts, total = (counts.cumsum(0) - counts).tolist(), int(counts.sum())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):  # another process may be writing the same
            damage = _damage(path) if path.is_file() and path.stat().st_size == total else None
            if damage is None:
                damage = _write(path, images, starts, total, progress)
    except OSError as error:
        raise DataError(f"{path.parent}: {error.strerror or error}; choose another data.cache") from error
    return path, damage


def _damage(path: Path) -> Damage | None:
    """What was noted beside a file when it was written; None if that is lost, and with it what the pixels are worth."""
    try:
        noted = json.loads(path.with_suffix(".json").read_text())["damaged"]
        return {row: FrameError(message, Path(file), frame) for row, message, file, frame in noted}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(path: Path, images: Images, starts: list[int], total: int, progress: bool) -> Damage:
    with replacing(path) as temporary, temporary.open("wb") as file:
        # a full disk is better met now than after an hour
        if hasattr(os, "posix_fallocate") and total:
            os.posix_fallocate(file.fileno(), 0, total)

        def write(row: int, frame: np.ndarray) -> None:
            left, place = np.ascontiguousarray(frame).reshape(-1).data, starts[row]
            while len(left):
                done = os.pwrite(file.fileno(), left, place)
                left, place = left[done:], place + done

        damage = decode(images, write, "caching frames", progress)
        noted = [(row, str(error), str(error.file), error.frame) for row, error in damage.items()]
        # before the file has its name: there is none without its note
        about = {"images": len(images), "bytes": total, "source": images.origin, "damaged": noted}
        write_json(path.with_suffix(".json"), about)
    return damage


def caches(folder: Path) -> list[tuple[Path, int, str]]:
    """Files in a folder of caches, with their bytes and where their frames come from."""
    found = []
    for path in sorted(path for suffix in (SUFFIX, STATISTICS_SUFFIX) for path in folder.glob(f"*{suffix}")):
        try:
            origin = json.loads(path.with_suffix(".json").read_text())["source"]
        except (OSError, ValueError, KeyError, TypeError):
            origin = "?"
        found.append((path, path.stat().st_size, str(origin)))
    return found


def clear(folder: Path) -> int:
    """Remove all caches, and what a killed process left of one; returns the bytes that this gives back."""
    freed = 0
    for path in folder.iterdir() if folder.is_dir() else ():
        if _OURS.fullmatch(path.name):  # a user's folder may hold anything else
            freed += path.stat().st_size
            path.unlink()
    return freed


def free_disk(config: DataConfig) -> float:
    """Bytes that the disk of the cache has left."""
    folder = cache_folder(config).absolute()
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    return float(shutil.disk_usage(existing).free)
