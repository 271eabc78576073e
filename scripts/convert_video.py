"""A folder of one's own videos and a calibration to the project's format."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from conversion import PLACED, Copy, Output, is_converted, require_apart, write
from program import Overwrite, run
from videos import find_videos

from msth_taichi.errors import DataError
from msth_taichi.scene.assemble import View, video_scene
from msth_taichi.scene.formats import colmap, immersive, multiview, n3v
from msth_taichi.scene.formats.calibration import read_json, resized
from msth_taichi.scene.formats.colmap_model import read_model
from msth_taichi.scene.scene import Scene, make_images
from msth_taichi.scene.sources import VideoSource, probe_video

PROBE = PLACED.model_copy(update={"num_frames": 1})
"""Reads cameras of videos that start at different frames and have different lengths."""


def convert_video(
    source: Annotated[Path, typer.Argument(help="Folder with a video of each camera.")],
    calibration: Annotated[
        Path, typer.Option(help="transforms.json, poses_bounds.npy or models.json, or the folder of a COLMAP model.")
    ],
    output: Output,
    test: Annotated[
        list[str] | None, typer.Option(help="Camera to hold out, by its video's name without suffix; may be repeated.")
    ] = None,
    start: Annotated[
        list[str] | None, typer.Option(help="CAMERA=FRAME: the frame of its file that shows time 0; may be repeated.")
    ] = None,
    frames: Annotated[
        int | None, typer.Option(min=1, help="Frames to use; default: as many as all videos have.")
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Leave out videos without a pose, and poses without a video.")
    ] = False,
    copy: Copy = False,
    overwrite: Overwrite = False,
) -> None:
    """A folder of one's own videos and a calibration to transforms_train.json, transforms_test.json and videos/.

    Videos and poses are matched by name: cam03.mp4 has the pose of cam03.png, of images/cam03.mp4, or of
    cam03/0000.png. The rows of a poses_bounds.npy belong to the videos in the order of their names. Without --test the
    first camera by name is held out.
    """
    require_apart(source, output)
    if is_converted(output) and not overwrite:
        print(f"{output} is there already; --overwrite replaces it")
        return
    videos = _by_name(find_videos(source))
    with _calibrated(videos, calibration, partial) as scene:
        names = scene.cameras.names
        held_out = _rows(test or sorted(names)[: len(names) > 1], names, "--test")
        if len(held_out) == len(names):
            raise DataError("--test: no camera is left to train on; hold out fewer")
        write(_synchronised(scene, held_out, _starts(start or [], names), frames), output, copy)


def _by_name(files: Sequence[Path]) -> dict[str, Path]:
    videos: dict[str, Path] = {}
    for file in files:
        if file.stem in videos:
            raise DataError(f"{file}: is named as {videos[file.stem]} is; give each camera its own name")
        videos[file.stem] = file
    return dict(sorted(videos.items()))


@contextmanager
def _calibrated(videos: Mapping[str, Path], calibration: Path, partial: bool) -> Iterator[Scene]:
    """Cameras of the videos, one frame each, as the reader of the calibration's format sees them."""
    with tempfile.TemporaryDirectory() as name:
        stage = Path(name)
        for file in videos.values():
            (stage / f"{file.stem}{file.suffix.lower()}").symlink_to(file.resolve())
        staged = {path.stem: path for path in stage.iterdir()}
        try:
            scene = _read(stage, staged, calibration, partial)
        except DataError as error:
            # what is wrong lies in the user's file, not in the copy of it
            text = str(error)
            for copied in (n3v.CALIBRATION, immersive.CALIBRATION, "transforms.json"):
                text = text.replace(str(stage / copied), str(calibration))
            raise DataError(text.replace(f"{stage}{os.sep}", "")) from error
        yield scene


def _read(stage: Path, staged: Mapping[str, Path], calibration: Path, partial: bool) -> Scene:
    if calibration.is_dir():
        return _colmap_scene(staged, calibration, partial)
    if not calibration.is_file():
        raise DataError(f"{calibration}: missing; give a file, or the folder of a COLMAP model")
    if calibration.suffix == ".npy":
        shutil.copyfile(calibration, stage / n3v.CALIBRATION)
        return n3v.load(stage, PROBE)
    values = read_json(calibration)
    if isinstance(values, list):
        entries = values
        names = [entry.get("name") if isinstance(entry, dict) else None for entry in entries]
        kept = _matched(calibration, [str(name) for name in names], staged, partial)
        (stage / immersive.CALIBRATION).write_text(json.dumps([entries[row] for row in kept]))
        return immersive.load(stage, PROBE)
    frames = values.get("frames") if isinstance(values, dict) else None
    if not isinstance(frames, list) or not all(isinstance(entry, dict) for entry in frames) or not frames:
        raise DataError(f"{calibration}: no list 'frames' of cameras; give a transforms.json or models.json")
    paths = [entry.get("file_path") for entry in frames]
    if not all(isinstance(path, str) for path in paths):
        raise DataError(f"{calibration}: an entry without 'file_path'; add the name of its video or image")
    kept = _matched(calibration, [camera_name(path, staged) for path in paths], staged, partial)
    entries = [
        {**frames[row], "file_path": staged[camera_name(paths[row], staged)].name, "num_frames": 1} for row in kept
    ]
    for entry in entries:
        entry.pop("start_frame", None)
    lists = ("train_filenames", "test_filenames", "val_filenames")
    top = {key: value for key, value in values.items() if key not in lists}
    (stage / "transforms.json").write_text(json.dumps({**top, "num_frames": 1, "frames": entries}))
    return multiview.load(stage, PROBE)


def _colmap_scene(staged: Mapping[str, Path], folder: Path, partial: bool) -> Scene:
    place = colmap.model_folder(folder)
    if place is None:
        raise DataError(f"{folder}: no COLMAP model; give the folder of cameras.bin and images.bin")
    model = read_model(place)
    images = sorted(model.images.values(), key=lambda image: image.name)
    names = [camera_name(image.name, staged) for image in images]
    views, files = [], []
    for row in _matched(place, names, staged, partial):
        lens, file = model.cameras[images[row].camera], staged[names[row]]
        info = probe_video(file)
        intrinsics = resized(lens.intrinsics, (lens.width, lens.height), info, file, model.path)
        views.append(
            View(names[row], images[row].pose, intrinsics, info.width, info.height, lens.lens, lens.distortion)
        )
        files.append(file)
    splits = {"train": range(len(files))}
    return video_scene(folder, PROBE, format="colmap", views=views, files=files, splits=splits, num_frames=1, fps=30.0)


def camera_name(path: str, videos: Mapping[str, Any]) -> str:
    """Which video a calibrated image belongs to: of the image's name, else of the nearest folder that has one.

    Example:
        >>> camera_name("images/cam03/0000.png", {"cam03": ...}), camera_name("cam04.png", {"cam03": ...})
        ('cam03', 'cam04')
    """
    place = Path(path)
    return next((part for part in (place.stem, *reversed(place.parts[:-1])) if part in videos), place.stem)


def _matched(calibration: Path, names: Sequence[str], videos: Mapping[str, Path], partial: bool) -> list[int]:
    """Rows of the calibration that have a video, the first of each name."""
    rows: dict[str, int] = {}
    for row, name in enumerate(names):
        rows.setdefault(name, row)
    for missing, what, where in (
        (sorted(set(rows) - set(videos)), "pose", "video"),
        (sorted(set(videos) - set(rows)), "video", "pose"),
    ):
        if missing and not partial:
            raise DataError(
                f"{calibration}: the {what} of {', '.join(missing)} has no {where}; "
                "rename or remove what has no counterpart, or use --partial"
            )
    found = [row for name, row in rows.items() if name in videos]
    if not found:
        raise DataError(f"{calibration}: no pose has the name of a video; name the images it was made from like them")
    return found


def _rows(wanted: Sequence[str], names: Sequence[str], option: str) -> list[int]:
    for name in wanted:
        if name not in names:
            raise DataError(f"{option} {name}: no such camera; choose from {', '.join(names)}")
    return sorted({names.index(name) for name in wanted})


def _starts(texts: Sequence[str], names: Sequence[str]) -> list[int]:
    starts = [0] * len(names)
    for text in texts:
        name, _, frame = text.rpartition("=")
        if not frame.isdecimal():
            raise DataError(
                f"--start {text}: write CAMERA=FRAME with a frame of at least 0; "
                "where one camera began late, the others start later"
            )
        starts[_rows([name], names, "--start")[0]] = int(frame)
    return starts


def _synchronised(scene: Scene, held_out: Sequence[int], starts: Sequence[int], frames: int | None) -> Scene:
    """All frames from each camera's start on, as many as the shortest has."""
    source = scene.images("train").source
    assert isinstance(source, VideoSource)
    infos = [probe_video(file) for file in source.files]
    left = [info.frames - start for info, start in zip(infos, starts, strict=True)]
    shortest = min(range(len(left)), key=lambda row: left[row])
    count = frames or left[shortest]
    if left[shortest] < count or count < 1:
        raise DataError(
            f"{source.files[shortest].name}: {infos[shortest].frames} frames, of which {max(left[shortest], 0)} are "
            f"left from frame {starts[shortest]} on; lower --frames or --start"
        )
    stride = max(starts) + count
    whole = VideoSource(source.files, stride, source.sizes)
    members = {"train": [row for row in range(len(infos)) if row not in held_out], "test": held_out}
    tables = {}
    for split, rows in members.items():
        if not rows:
            continue
        camera, frame = np.repeat(rows, count), np.tile(np.arange(count), len(rows))
        keys = camera * stride + np.asarray(starts)[camera] + frame
        tables[split] = make_images(camera, frame / count, frame, keys, whole)
    return replace(scene, splits=tables, num_frames=count, fps=infos[0].fps or scene.fps)


if __name__ == "__main__":
    run(convert_video)
