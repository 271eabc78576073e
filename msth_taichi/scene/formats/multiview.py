"""Synchronised videos of cameras that stand still: one json entry a camera, `num_frames` at the top.

Letters: C cameras, T frames.
"""

import math
from pathlib import Path

import numpy as np

from msth_taichi.config import DataConfig
from msth_taichi.errors import DataError
from msth_taichi.scene.formats.transforms import (
    SINGLE,
    Entry,
    build_cameras,
    common_size,
    first_file_path,
    frames_per_second,
    has_transforms,
    read_splits,
)
from msth_taichi.scene.scene import Scene, rig_images
from msth_taichi.scene.sources import VIDEO_SUFFIXES, VideoSource, probe_video

TRAIN_SHARE = 0.9


def detects(folder: Path) -> bool:
    """Whether the entries are videos."""
    return has_transforms(folder) and first_file_path(folder).lower().endswith(VIDEO_SUFFIXES)


def load(folder: Path, config: DataConfig) -> Scene:
    """Videos with transforms_train.json and transforms_test.json, or one transforms.json.

    One file: the first ceil(0.9 C) cameras train and the rest test, of two or more at least one.

    Raises:
        DataError: names the file, what is wrong with it, and the remedy.
    """
    splits = read_splits(folder)
    entries = [entry for split in splits.values() for entry in split]
    num_frames = config.num_frames or _stated_frames(entries)
    files = [entry.file() for entry in entries]
    infos = [probe_video(file) for file in files]
    for file, info in zip(files, infos, strict=True):
        if info.frames < num_frames:
            raise DataError(
                f"{file}: {info.frames} frames, but num_frames is {num_frames}; "
                f"use data.num_frames={info.frames} or restore the video"
            )
    width, height = common_size(entries, infos, files)
    names = [str(entry.values.get("camera", file.stem)) for entry, file in zip(entries, files, strict=True)]
    cameras, transform = build_cameras(entries, names, width, height, config)

    sizes = {name: len(split) for name, split in splits.items()}
    if SINGLE in sizes:
        count = sizes.pop(SINGLE)
        train = min(math.ceil(TRAIN_SHARE * count), max(count - 1, 1))
        sizes = {"train": train, "test": count - train}
    rows = np.split(np.arange(len(entries)), np.cumsum(list(sizes.values()))[:-1])
    members = {name: cameras for name, cameras in zip(sizes, rows, strict=True) if len(cameras)}
    source = VideoSource(tuple(files), num_frames, ((width, height),) * len(files), config.downscale)
    return Scene(
        name=folder.resolve().name,
        path=folder,
        cameras=cameras,
        splits={name: rig_images(rows, num_frames, source) for name, rows in members.items()},
        transform=transform,
        box=config.box,
        num_frames=num_frames,
        fps=frames_per_second(entries[0], infos[0].fps or 30.0),
        format="multiview",
        static_cameras=True,
    )


def _stated_frames(entries: list[Entry]) -> int:
    first = entries[0].number("num_frames")
    for entry in entries:
        count = entry.number("num_frames")
        if count != int(count) or count < 1:
            raise DataError(f"{entry.json}: num_frames is {count:g}; write a whole number of at least 1")
        if count != first:
            other = entries[0].json.name
            raise DataError(f"{entry.json}: num_frames is {count:g}, but {other} says {first:g}; make them equal")
    return int(first)
