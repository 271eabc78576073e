"""Synchronised videos of cameras that stand still: one json entry a camera, `num_frames` at the top.

Letters: C cameras.
"""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from msth_taichi.config import DataConfig
from msth_taichi.errors import DataError
from msth_taichi.scene.assemble import video_scene
from msth_taichi.scene.formats.transforms import (
    Entry,
    first_file_path,
    frames_per_second,
    has_transforms,
    read_bounds,
    read_table,
)
from msth_taichi.scene.scene import Scene
from msth_taichi.scene.sources import VIDEO_SUFFIXES, probe_video

TRAIN_SHARE = 0.9


def detects(folder: Path) -> bool:
    """Whether the entries are videos."""
    return has_transforms(folder) and first_file_path(folder).lower().endswith(VIDEO_SUFFIXES)


def load(folder: Path, config: DataConfig) -> Scene:
    """Videos with transforms_train.json and transforms_test.json, or one transforms.json.

    One file that lists no splits: the first ceil(0.9 C) cameras train and the rest test, of two or more at
    least one. `start_frame` of an entry is the frame of its file that shows time 0, `camera_fps` its frames per
    second where they are not the scene's.

    Raises:
        DataError: names the file, what is wrong with it, and the remedy.
    """
    table = read_table(folder)
    entries = table.entries
    num_frames = config.num_frames or _stated_frames(entries)
    starts = [entry.whole("start_frame", 0, 0) for entry in entries]
    files = [entry.file() for entry in entries]
    with ThreadPoolExecutor() as pool:
        infos = list(pool.map(probe_video, files))
    fps = frames_per_second(entries[0], infos[0].fps or 30.0)
    rates = [entry.number("camera_fps", fps) / fps for entry in entries]
    for entry, file, info, start, rate in zip(entries, files, infos, starts, rates, strict=True):
        if not 1e-3 < rate < 1e3:
            raise DataError(f"{entry}: camera_fps is {rate * fps:g}; write the frames per second of its file")
        left = int((info.frames - start - 0.5) / rate) + 1 if info.frames > start else 0
        if left < num_frames:
            after = f" after start_frame {start}" if start else ""
            remedy = f"use data.num_frames={left}" if left > 0 else "lower its start_frame"
            raise DataError(
                f"{file}: {left} frames{after}, but num_frames is {num_frames}; {remedy} or restore the video"
            )
    # a name is part of messages of one line
    names = [
        " ".join(str(entry.values.get("camera", file.stem)).split()) for entry, file in zip(entries, files, strict=True)
    ]
    views = [entry.view(name, file, info) for entry, name, file, info in zip(entries, names, files, infos, strict=True)]
    return video_scene(
        folder,
        config,
        format="multiview",
        views=views,
        files=files,
        splits=table.splits or _first_cameras(len(entries)),
        num_frames=num_frames,
        fps=fps,
        starts=starts,
        rates=rates,
        bounds=read_bounds(entries[0]),
    )


def _first_cameras(count: int) -> dict[str, Sequence[int]]:
    train = min(math.ceil(TRAIN_SHARE * count), max(count - 1, 1))
    return {"train": range(train), "test": range(train, count)}


def _stated_frames(entries: list[Entry]) -> int:
    first = entries[0].whole("num_frames", 1)
    for entry in entries:
        count = entry.whole("num_frames", 1)
        if count != first:
            other = entries[0].json.name
            raise DataError(f"{entry.json}: num_frames is {count:g}, but {other} says {first:g}; make them equal")
    return first
