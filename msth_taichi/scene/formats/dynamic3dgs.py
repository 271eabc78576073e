"""Dynamic 3D Gaussians' cut of the CMU Panoptic Studio: `train_meta.json`, `test_meta.json` and images in `ims/`.

Letters: C cameras, T times.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from msth_taichi.config import DataConfig
from msth_taichi.errors import DataError
from msth_taichi.scene.assemble import View, image_scene
from msth_taichi.scene.formats.calibration import (
    numbers,
    opengl_from_opencv,
    positive,
    read_json,
    resized,
)
from msth_taichi.scene.scene import Scene
from msth_taichi.scene.sources import FileInfo, probe_image

IMAGES = "ims"
FPS = 30.0
"""Of the Panoptic Studio's cameras; the json has none."""


@dataclass(frozen=True, eq=False)
class Meta:
    """One json: C cameras at T times.

    Args:
        path: the json.
        width: pixels.
        height: pixels.
        intrinsics: (T, C, 3, 3), pixels.
        world_to_camera: (T, C, 4, 4), y down and z forward.
        files: T lists of C names within `ims/`.
        cameras: C numbers, unique in the rig.
    """

    path: Path
    width: float
    height: float
    intrinsics: np.ndarray
    world_to_camera: np.ndarray
    files: list[list[str]]
    cameras: list[int]


def detects(folder: Path) -> bool:
    """Whether there is the json of the training cameras."""
    return (folder / "train_meta.json").is_file()


def load(folder: Path, config: DataConfig) -> Scene:
    """One image for each camera and time; a camera whose calibration changes with time has a view for each image.

    Raises:
        DataError: names the file, what is wrong with it, and the remedy.
    """
    metas = {split: _read_meta(folder / f"{split}_meta.json") for split in ("train", "test")}
    train, test = metas.values()
    if len(train.files) != len(test.files):
        raise DataError(
            f"{test.path}: {len(test.files)} times, but {train.path.name} has {len(train.files)}; make them equal"
        )
    num_times = len(train.files)
    used = min(num_times, config.num_frames or num_times)

    views: list[View] = []
    files: list[Path] = []
    camera: list[int] = []
    times: list[float] = []
    splits: dict[str, list[int]] = {}
    for split, meta in metas.items():
        start = len(files)
        for c in range(len(meta.cameras)):
            own = [folder / IMAGES / meta.files[t][c] for t in range(used)]
            info = probe_image(own[0])
            still = _stands_still(meta, c, used)
            for t, file in enumerate(own):
                if t == 0 or not still:
                    views.append(_view(meta, t, c, info, own[0], still))
                camera.append(len(views) - 1)
                files.append(file)
                times.append(t / used)
        splits[split] = list(range(start, len(files)))
    return image_scene(
        folder,
        config,
        format="dynamic3dgs",
        views=views,
        files=files,
        camera=camera,
        times=times,
        splits=splits,
        fps=FPS,
    )


def _read_meta(path: Path) -> Meta:
    top = read_json(path)
    if not isinstance(top, dict):
        raise DataError(f"{path}: not an object with w, h, k, w2c, fn and cam_id; restore it")
    for key in ("w", "h", "k", "w2c", "fn", "cam_id"):
        if key not in top:
            raise DataError(f"{path} has no '{key}'; restore it")
    files = top["fn"]
    if not isinstance(files, list) or not files or not all(isinstance(row, list) and row for row in files):
        raise DataError(f"{path}: fn is not a list of times, each a list of file names; restore the file")
    count = len(files[0])
    if any(len(row) != count for row in files):
        short = next(t for t, row in enumerate(files) if len(row) != count)
        raise DataError(
            f"{path}: fn has {count} files at time 0, but {len(files[short])} at time {short}; make them equal"
        )
    for name in (name for row in files for name in row):
        if not isinstance(name, str) or not name or not name.isprintable():
            raise DataError(f"{path}: fn holds {name!r:.40}, which is no file name; correct it")
    shape = (len(files), count)
    ids = numbers(top["cam_id"], shape, f"{path}: cam_id")
    if (ids != ids[0]).any() or len(set(ids[0].tolist())) != count:
        raise DataError(f"{path}: cam_id does not name the same {count} cameras at every time; correct it")
    return Meta(
        path,
        positive(top["w"], f"{path}: w"),
        positive(top["h"], f"{path}: h"),
        numbers(top["k"], (*shape, 3, 3), f"{path}: k"),
        numbers(top["w2c"], (*shape, 4, 4), f"{path}: w2c"),
        files,
        ids[0].astype(int).tolist(),
    )


def _stands_still(meta: Meta, c: int, used: int) -> bool:
    poses, intrinsics = meta.world_to_camera[:used, c], meta.intrinsics[:used, c]
    return bool((poses == poses[0]).all() and (intrinsics == intrinsics[0]).all())


def _view(meta: Meta, t: int, c: int, info: FileInfo, file: Path, still: bool) -> View:
    where = f"{meta.path}: camera {meta.cameras[c]} at time {t}"
    k, world_to_camera = meta.intrinsics[t, c], meta.world_to_camera[t, c]
    if min(k[0, 0], k[1, 1]) <= 0 or k[0, 1] != 0:
        raise DataError(f"{where}: k needs positive focal lengths and no skew; correct it")
    size = (meta.width, meta.height)
    intrinsics = resized((k[0, 0], k[1, 1], k[0, 2], k[1, 2]), size, info, file, meta.path)
    name = f"cam{meta.cameras[c]:02d}" + ("" if still else f"_{t:06d}")
    return View(name, opengl_from_opencv(world_to_camera), intrinsics, info.width, info.height)
