"""COLMAP's workspaces: a sparse model beside the images that it was made of.

Images in one folder are of one camera that moves; images in several are of a rig, a folder a camera. Times are
the order of file names.

Letters: T times.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from msth_taichi.config import DataConfig
from msth_taichi.errors import DataError
from msth_taichi.scene.assemble import View, image_scene
from msth_taichi.scene.formats.calibration import resized
from msth_taichi.scene.formats.colmap_model import Model, ModelImage, is_model, read_model
from msth_taichi.scene.formats.images import hold_out
from msth_taichi.scene.scene import Scene
from msth_taichi.scene.sources import IMAGE_SUFFIXES, probe_image

PLACES = ("sparse/[0-9]*", "colmap/sparse/[0-9]*", "sparse", "colmap", "")
"""Where a model is looked for; COLMAP numbers its models as it finds them."""

IMAGES = "images"
QUANTILES = (0.001, 0.999)
"""Of the distances to points: a few points are always wrong."""


@dataclass(frozen=True, eq=False)
class Folder:
    """A camera: its images on disk in order of time, and those of them that COLMAP placed.

    Args:
        name: relative to the folder of images.
        files: all there are, T.
        placed: some of them, by the name of the file.
    """

    name: str
    files: list[Path]
    placed: dict[str, ModelImage]


def detects(folder: Path) -> bool:
    """Whether there is a sparse model."""
    return model_folder(folder) is not None


def load(folder: Path, config: DataConfig) -> Scene:
    """Images of a camera that moves, every 8th held out; or of a rig, whose first camera is held out.

    A rig of which one image a camera is placed stands still, and all images of a folder are seen from there.
    `masks/` is not read: what hides a moving thing from COLMAP would hide it from training.

    Raises:
        DataError: names the file, what is wrong with it, and the remedy.
    """
    place = model_folder(folder)
    if place is None:
        raise DataError(f"{folder}: no COLMAP model; put cameras.bin and images.bin into sparse/0/")
    model = read_model(place)
    cameras = _cameras(folder / IMAGES, model)
    count = max(len(camera.files) for camera in cameras)
    rig = len(cameras) > 1
    still = rig and count > 1 and all(len(camera.placed) == 1 for camera in cameras)

    views: list[View] = []
    known: dict[tuple, int] = {}
    files, seen_by, times, owner = [], [], [], []
    for c, camera in enumerate(cameras):
        for t, file in enumerate(camera.files):
            image = next(iter(camera.placed.values())) if still else camera.placed.get(file.name)
            if image is None:
                continue
            # a camera that stands still is one view, however many images it took
            key = (c, model.cameras[image.camera], image.pose.tobytes())
            if key not in known:
                known[key] = len(views)
                views.append(_view(camera.name if rig else image.name, model, image, file))
            files.append(file)
            seen_by.append(known[key])
            times.append(t / count)
            owner.append(c)
    return image_scene(
        folder,
        config,
        format="colmap",
        views=views,
        files=files,
        camera=seen_by,
        times=times,
        splits=_first_camera(owner) if rig else hold_out(range(len(files))),
        bounds=_bounds(model),
    )


def model_folder(folder: Path) -> Path | None:
    """Where a workspace's model is, or the one that places most; None if there is none."""
    for place in PLACES:
        found = [model for model in (sorted(folder.glob(place)) if place else [folder]) if is_model(model)]
        if found:
            # a clip that came apart has several: the one that places most of it
            return max(found, key=lambda model: max(file.stat().st_size for file in model.glob("images.*")))
    return None


def _cameras(root: Path, model: Model) -> list[Folder]:
    if not root.is_dir():
        raise DataError(f"{root}: missing; put the images there that COLMAP was given")
    placed: dict[str, dict[str, ModelImage]] = {}
    for image in model.images.values():
        path = PurePosixPath(image.name)
        placed.setdefault(path.parent.as_posix(), {})[path.name] = image
    cameras = []
    for name in sorted(placed, key=_natural):
        place = root / name
        try:
            there = [path for path in place.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES]
        except (OSError, ValueError) as error:  # ValueError: no name that a file can have
            reason = getattr(error, "strerror", None) or error
            raise DataError(
                f"{place}: cannot be read ({reason}); put the images there that COLMAP was given"
            ) from error
        files = sorted(there, key=lambda path: _natural(path.name))
        if missing := set(placed[name]).difference(path.name for path in files):
            raise DataError(f"{place / min(missing)}: missing; restore the file that COLMAP was given")
        cameras.append(Folder(name, files, placed[name]))
    for camera in cameras:
        if len(camera.files) != len(cameras[0].files):
            raise DataError(
                f"{root / camera.name}: {len(camera.files)} images, but {root / cameras[0].name} has "
                f"{len(cameras[0].files)}; times are the order of files, give every camera the same number"
            )
    return cameras


def _view(name: str, model: Model, image: ModelImage, file: Path) -> View:
    camera, info = model.cameras[image.camera], probe_image(file)
    calibrated = camera.width, camera.height
    intrinsics = resized(camera.intrinsics, calibrated, info, file, model.path)
    return View(name, image.pose, intrinsics, info.width, info.height, camera.lens, camera.distortion)


def _first_camera(owner: Sequence[int]) -> dict[str, list[int]]:
    rows = range(len(owner))
    return {"train": [k for k in rows if owner[k] > 0], "test": [k for k in rows if owner[k] == 0]}


def _bounds(model: Model) -> tuple[float, float] | None:
    distances = model.distances()
    if not len(distances) or not distances.max() > 0:
        return None
    near, far = np.quantile(distances, QUANTILES)
    return float(near), float(far)


def _natural(name: str) -> list[tuple[int, str]]:
    """A key by which 9 comes before 10."""
    parts = re.split(r"(\d{1,18})", name)
    return [(int(part), "") if i % 2 else (-1, part) for i, part in enumerate(parts)]
