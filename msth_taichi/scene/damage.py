"""Frames that cannot be decoded: told, counted and left out, unless they are too many.

Letters: K images of a table.
"""

import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from msth_taichi.errors import DataError, FrameError
from msth_taichi.scene.scene import Images, Scene

MOST_DAMAGED = 0.1
"""Share of a table's frames beyond which something else is wrong."""

Damage = dict[int, FrameError]
"""What is wrong with a frame, by its row of the table."""

_LINES = 8  # files that are told, of more files the number alone


def require_few(damage: Mapping[int, FrameError], count: int) -> None:
    """Raise DataError if too many of K = `count` frames are damaged."""
    if len(damage) > MOST_DAMAGED * count:
        first = damage[min(damage)]
        raise DataError(f"{first} ({len(damage)} of {count} frames cannot be decoded)")


def damage_lines(damage: Iterable[FrameError]) -> list[str]:
    """One line for each file.

    Example:
        >>> damage_lines([FrameError("...", Path("a.mp4"), frame) for frame in (3, 4, 5, 9)])
        ['a.mp4: frames 3-5, 9 are damaged and left out; restore the file or encode it again']
    """
    files: dict[Path, list[FrameError]] = {}
    for error in damage:
        files.setdefault(error.file, []).append(error)
    lines = []
    for file, errors in files.items():
        frames = sorted({error.frame for error in errors if error.frame is not None})
        what = "frames" if len(frames) > 1 else "frame"
        verb = "are" if len(frames) > 1 else "is"
        named = f" {what} {_ranges(frames)} {verb} damaged and left out" if frames else " is damaged and left out"
        lines.append(f"{file}:{named}; restore the file or encode it again")
    return lines


def warn_of_damage(damage: Mapping[int, FrameError]) -> None:
    """A line on stderr for each file, of the first few."""
    lines = damage_lines(damage.values())
    for line in lines[:_LINES]:
        tqdm.write(f"warning: {line}", file=sys.stderr)
    if len(lines) > _LINES:
        tqdm.write(f"warning: and frames of {len(lines) - _LINES} other files, {len(damage)} in all", file=sys.stderr)


def kept_rows(count: int, damage: Mapping[int, FrameError]) -> torch.Tensor:
    """(K - damaged,) int64 rows of K = `count` that are whole."""
    return torch.tensor([row for row in range(count) if row not in damage], dtype=torch.int64)


def without_damage(scene: Scene, split: str, damage: Mapping[int, FrameError]) -> Scene:
    """The same scene without the damaged frames of a split."""
    if not damage:
        return scene
    images = scene.images(split)
    return replace(scene, splits={**scene.splits, split: images.select(kept_rows(len(images), damage))})


def without_what_was_left_out(scene: Scene, saved: Scene) -> Scene:
    """A data set without the frames that the scene of a run, of the same cameras, does not have."""
    splits = {}
    for name, images in scene.splits.items():
        if name in saved.splits:
            rows = np.flatnonzero(np.isin(_places(images), _places(saved.splits[name])))
            images = images if len(rows) == len(images) else images.select(torch.from_numpy(rows))
        splits[name] = images
    return replace(scene, splits={name: images for name, images in splits.items() if len(images)})


def _places(images: Images) -> np.ndarray:
    """(K,) int64, one number for camera and time."""
    return (images.camera << 32 | images.frame).numpy()


def _ranges(numbers: list[int]) -> str:
    """Example: _ranges([3, 4, 5, 9]) is "3-5, 9"."""
    parts = []
    for _, group in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
        run = [number for _, number in group]
        parts.append(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}")
    return ", ".join(parts)
