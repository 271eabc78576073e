"""Neural 3D Video (Plenoptic Video), and other LLFF calibrations of videos: `poses_bounds.npy` with `cam00.mp4` ...

Letters: C cameras.
"""

from pathlib import Path

import numpy as np

from msth_taichi.config import DataConfig
from msth_taichi.errors import DataError
from msth_taichi.scene.assemble import LARGEST, View, video_scene
from msth_taichi.scene.formats.calibration import hold_out, is_rotation, probe_videos, resized
from msth_taichi.scene.scene import Scene
from msth_taichi.scene.sources import VIDEO_SUFFIXES

CALIBRATION = "poses_bounds.npy"

TEST_CAMERA = 0
"""Position, among the sorted names, of the camera that the literature holds out: cam00."""

COLUMNS = 17
"""Of a row: 3 x 5 of pose and height, width, focal length; then the nearest and the farthest depth."""


def detects(folder: Path) -> bool:
    """Whether there is an LLFF calibration."""
    return (folder / CALIBRATION).is_file()


def load(folder: Path, config: DataConfig) -> Scene:
    """Videos of cameras that stand still, in the order of their names, one a row of `poses_bounds.npy`.

    Raises:
        DataError: names the file, what is wrong with it, and the remedy.
    """
    path = folder / CALIBRATION
    rows = _read_rows(path)
    files = sorted(file for file in folder.iterdir() if _is_video(file))
    if not files:
        raise DataError(f"{folder}: {CALIBRATION} but no video; put cam00.mp4 ... beside it")
    if len(files) != len(rows):
        raise DataError(
            f"{path}: {len(rows)} rows, but there are {len(files)} videos; "
            "restore the missing ones, or remove what has no counterpart"
        )
    videos = probe_videos(files, config)
    views = []
    for k, (row, file, info) in enumerate(zip(rows, files, videos.infos, strict=True)):
        matrix = row[:15].reshape(3, 5)
        height, width, focal = matrix[:, 4]
        if min(height, width, focal) <= 0:
            raise DataError(f"{path}: row {k}: height, width or focal length is not positive; restore the file")
        pose = _opengl(matrix[:, :4])
        if not is_rotation(pose[:, :3]):
            raise DataError(f"{path}: row {k} is not rigid; its first 3 x 3 are the axes down, right, back of a camera")
        intrinsics = resized((focal, focal, width / 2, height / 2), (width, height), info, file, path)
        views.append(View(file.stem, pose, intrinsics, info.width, info.height))
    near, far = float(rows[:, 15].min()), float(rows[:, 16].max())
    if not 0 < near < far:
        raise DataError(f"{path}: depths from {near:g} to {far:g}; columns 15 and 16 are 0 < nearest < farthest")
    return video_scene(
        folder,
        config,
        format="n3v",
        views=views,
        files=files,
        splits=hold_out(len(files), TEST_CAMERA),
        num_frames=videos.num_frames,
        fps=videos.fps,
        bounds=(near, far),
    )


def _read_rows(path: Path) -> np.ndarray:
    """(C, 17) float64."""
    try:
        rows = np.load(path, allow_pickle=False)
    except Exception as error:  # a foreign file makes numpy raise errors of many kinds
        raise DataError(f"{path}: not a readable array ({' '.join(str(error).split())}); restore it") from error
    if not isinstance(rows, np.ndarray) or rows.dtype.kind not in "fiu":
        raise DataError(f"{path}: not an array of numbers; restore it")
    if rows.ndim != 2 or rows.shape[1] != COLUMNS or not len(rows):
        shape = " x ".join(map(str, rows.shape))
        raise DataError(f"{path}: an array of {shape}; it needs a row of {COLUMNS} numbers for each camera")
    rows = rows.astype(np.float64)
    if not (np.abs(rows) < LARGEST).all():
        raise DataError(f"{path}: numbers that are not finite; restore it")
    return rows


def _opengl(pose: np.ndarray) -> np.ndarray:
    """(3, 4) with columns right, up, back, position from down, right, back, position."""
    return np.stack([pose[:, 1], -pose[:, 0], pose[:, 2], pose[:, 3]], 1)


def _is_video(file: Path) -> bool:
    # copies made on a Mac leave files named ._cam00.mp4
    return file.suffix.lower() in VIDEO_SUFFIXES and not file.name.startswith(".")
