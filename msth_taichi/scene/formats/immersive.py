"""Google's immersive light field video: `models.json` with fisheye videos `camera_0001.mp4` ...

Letters: C cameras.
"""

from pathlib import Path
from typing import Any

import numpy as np

from msth_taichi.config import DataConfig
from msth_taichi.errors import DataError
from msth_taichi.lenses import FISHEYE
from msth_taichi.scene.assemble import View, video_scene
from msth_taichi.scene.formats.calibration import (
    hold_out,
    numbers,
    opengl_from_opencv,
    positive,
    probe_videos,
    read_json,
    resized,
)
from msth_taichi.scene.scene import Scene
from msth_taichi.scene.sources import FileInfo

CALIBRATION = "models.json"

TEST_CAMERA = "camera_0001"
"""The camera in the middle of the dome, which the literature holds out."""


def detects(folder: Path) -> bool:
    """Whether there is a list of camera models."""
    return (folder / CALIBRATION).is_file()


def load(folder: Path, config: DataConfig) -> Scene:
    """Fisheye videos of cameras that stand still, one for each entry of `models.json`; nothing is undistorted.

    A video without an entry is not used: some scenes were released with a camera that has no calibration.

    Raises:
        DataError: names the file, what is wrong with it, and the remedy.
    """
    path = folder / CALIBRATION
    models = _read_models(path)
    files = [folder / f"{name}.mp4" for name in models]
    videos = probe_videos(files, config)
    views = [
        _view(name, model, info, file, path)
        for (name, model), info, file in zip(models.items(), videos.infos, files, strict=True)
    ]
    names = list(models)
    return video_scene(
        folder,
        config,
        format="immersive",
        views=views,
        files=files,
        splits=hold_out(len(names), names.index(TEST_CAMERA) if TEST_CAMERA in models else 0),
        num_frames=videos.num_frames,
        fps=videos.fps,
    )


def _read_models(path: Path) -> dict[str, dict[str, Any]]:
    """Entries by their name, in the order of the file."""
    entries = read_json(path)
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise DataError(f"{path}: not a list of cameras; restore it")
    models: dict[str, dict[str, Any]] = {}
    for k, entry in enumerate(entries):
        name = entry.get("name")
        if not isinstance(name, str) or not name.isprintable() or not name or Path(name).name != name:
            raise DataError(f"{path}: entry {k} has no 'name' such as camera_0001; add it")
        if name in models:
            raise DataError(f"{path}: two entries are named {name}; remove one")
        models[name] = entry
    return models


def _view(name: str, model: dict[str, Any], info: FileInfo, file: Path, path: Path) -> View:
    where = f"{path}: {name}"
    if model.get("projection_type", "fisheye") != "fisheye":
        raise DataError(
            f"{where}: projection_type is {model['projection_type']!r:.40}; only 'fisheye' is known, "
            "describe other lenses in a transforms.json"
        )
    missing = [key for key in _NEEDED if key not in model]
    if missing:
        raise DataError(f"{where} has no '{missing[0]}'; add it")
    focal = positive(model["focal_length"], f"{where}: focal_length")
    aspect = positive(model.get("pixel_aspect_ratio", 1.0), f"{where}: pixel_aspect_ratio")
    center = numbers(model["principal_point"], (2,), f"{where}: principal_point")
    size = positive(model["width"], f"{where}: width"), positive(model["height"], f"{where}: height")
    radial = model["radial_distortion"]
    # the data set writes a third coefficient, 0, that its own projection code leaves out
    k1, k2 = numbers(radial[:2] if isinstance(radial, list) else radial, (2,), f"{where}: radial_distortion")
    rotation = rotation_matrix(numbers(model["orientation"], (3,), f"{where}: orientation"))
    position = numbers(model["position"], (3,), f"{where}: position")
    world_to_camera = np.concatenate([rotation, -(rotation @ position)[:, None]], 1)
    intrinsics = resized((focal, focal * aspect, center[0], center[1]), size, info, file, path)
    return View(
        name,
        opengl_from_opencv(world_to_camera),
        intrinsics,
        info.width,
        info.height,
        lens=FISHEYE,
        distortion=(float(k1), float(k2), 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    )


_NEEDED = ("focal_length", "principal_point", "width", "height", "radial_distortion", "orientation", "position")


def rotation_matrix(axis_angle: np.ndarray) -> np.ndarray:
    """(3, 3) rotation by |v| radians about v (Rodrigues).

    Example:
        >>> rotation_matrix(np.array([0.0, 0.0, np.pi / 2])).round(6) @ [1.0, 0.0, 0.0]
        array([0., 1., 0.])
    """
    angle = float(np.linalg.norm(axis_angle))
    x, y, z = axis_angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    # sinc holds at an angle of 0, where the axis has no direction
    sine = np.sinc(angle / np.pi)
    cosine = 0.5 * np.sinc(0.5 * angle / np.pi) ** 2
    return np.eye(3) + sine * cross + cosine * cross @ cross
