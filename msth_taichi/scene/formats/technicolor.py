"""Technicolor's light field dataset: `cameras_parameters.txt` with images `<scene>_undist_<frame>_<camera>.png`.

Letters: C cameras, T frames.
"""

import re
from pathlib import Path

import numpy as np

from msth_taichi.config import DataConfig
from msth_taichi.errors import DataError
from msth_taichi.scene.assemble import LARGEST, View, image_scene
from msth_taichi.scene.formats.calibration import hold_out, opengl_from_opencv
from msth_taichi.scene.scene import Scene
from msth_taichi.scene.sources import IMAGE_SUFFIXES, FileInfo, probe_image

CALIBRATION = "cameras_parameters.txt"
COLUMNS = ("f", "cu", "cv", "ar", "sk", "qw", "qx", "qy", "qz", "tx", "ty", "tz")

TEST_CAMERA = 10
"""Of the rig's 4 x 4 cameras, the one in the third row and third column, which the literature holds out."""

FPS = 30.0
"""Of the rig; no file says it."""

_OFF_CENTER = 0.25
"""Share of the image size by which a principal point may be off the middle."""

_NAME = re.compile(r".*_(\d+)_(\d+)")


def detects(folder: Path) -> bool:
    """Whether there is the table of cameras."""
    return (folder / CALIBRATION).is_file()


def load(folder: Path, config: DataConfig) -> Scene:
    """Images of cameras that stand still, in the folder itself or in `images/`.

    Raises:
        DataError: names the file, what is wrong with it, and the remedy.
    """
    path = folder / CALIBRATION
    rows = _read_rows(path)
    frames = _find_images(folder, len(rows), path)[: config.num_frames]
    views = [_view(k, row, probe_image(frames[0][k]), frames[0][k], path) for k, row in enumerate(rows)]
    count, used = len(rows), len(frames)
    members = hold_out(count, min(TEST_CAMERA, count - 1))
    return image_scene(
        folder,
        config,
        format="technicolor",
        views=views,
        files=[frames[t][k] for k in range(count) for t in range(used)],
        camera=[k for k in range(count) for _ in range(used)],
        times=[t / used for _ in range(count) for t in range(used)],
        splits={name: [k * used + t for k in cameras for t in range(used)] for name, cameras in members.items()},
        fps=FPS,
    )


def _read_rows(path: Path) -> np.ndarray:
    """(C, 12), one row a camera, columns as in `COLUMNS`."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not readable text ({error}); restore it") from error
    header = tuple(lines[0].lstrip("# ").split()) if lines else ()
    if {"d1", "d2"} & set(header):
        raise DataError(f"{path}: is of the distorted images; use the folder of the undistorted ones, and its table")
    if header != COLUMNS:
        raise DataError(f"{path}: its first line is not '{' '.join(COLUMNS)}'; restore it")
    rows = []
    for number, line in enumerate(lines[1:], 2):
        if not line.strip():
            continue
        try:
            row = [float(word) for word in line.split()]
        except ValueError:
            row = []
        if len(row) != len(COLUMNS) or not all(abs(value) < LARGEST for value in row):
            raise DataError(f"{path}: line {number} is not {len(COLUMNS)} finite numbers; correct it")
        rows.append(row)
    if not rows:
        raise DataError(f"{path}: no cameras; add a line for each")
    return np.array(rows)


def _find_images(folder: Path, count: int, path: Path) -> list[list[Path]]:
    """T lists of one image for each of `count` cameras."""
    images = folder / "images" if (folder / "images").is_dir() else folder
    found: dict[int, dict[int, Path]] = {}
    for file in sorted(images.iterdir()):
        match = _NAME.fullmatch(file.stem)
        # the length keeps a foreign name of endless digits from being read as a number
        if match and file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".") and len(file.stem) < 200:
            frame, camera = map(int, match.groups())
            if camera >= count:
                raise DataError(f"{file}: camera {camera}, but {path.name} ends with camera {count - 1}; add its line")
            members = found.setdefault(frame, {})
            if camera in members:
                raise DataError(f"{file}: same frame and camera as {members[camera].name}; keep one scene in a folder")
            members[camera] = file
    if not found:
        raise DataError(f"{images}: no image such as Painter_undist_00001_00.png; put them there")
    for frame, members in sorted(found.items()):
        for camera in range(count):
            if camera not in members:
                raise DataError(
                    f"{images}: no image of camera {camera} at frame {frame}; restore it or remove the frame"
                )
    return [[members[k] for k in range(count)] for _, members in sorted(found.items())]


def _view(k: int, row: np.ndarray, info: FileInfo, file: Path, path: Path) -> View:
    focal, cx, cy, aspect, skew, *pose = row
    where = f"{path}: camera {k}"
    if focal <= 0 or aspect <= 0 or skew != 0:
        raise DataError(f"{where}: f and ar have to be positive and sk 0; correct them")
    off = max(abs(cx / info.width - 0.5), abs(cy / info.height - 0.5))
    if off > _OFF_CENTER:  # the table does not say for which size it is
        raise DataError(
            f"{where}: principal point ({cx:g}, {cy:g}) is not near the middle of {file.name}, "
            f"{info.width}x{info.height}; use images of the size that was calibrated, or scale f, cu and cv"
        )
    quaternion, translation = np.array(pose[:4]), np.array(pose[4:])
    if abs(np.linalg.norm(quaternion) - 1) > 1e-3:
        raise DataError(f"{where}: qw qx qy qz have no length of 1; restore the file")
    rotation = rotation_of_quaternion(quaternion)
    world_to_camera = np.concatenate([rotation, translation[:, None]], 1)
    intrinsics = (float(focal), float(focal * aspect), float(cx), float(cy))
    return View(f"cam{k:02d}", opengl_from_opencv(world_to_camera), intrinsics, info.width, info.height)


def rotation_of_quaternion(quaternion: np.ndarray) -> np.ndarray:
    """(3, 3) rotation of a quaternion w, x, y, z, which is normalised first.

    Example:
        >>> rotation_of_quaternion(np.array([1.0, 0.0, 0.0, 1.0])).round(6) @ [1.0, 0.0, 0.0]
        array([0., 1., 0.])
    """
    w, x, y, z = quaternion / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
