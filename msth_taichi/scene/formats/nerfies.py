"""The family of Nerfies' folders: one json a camera, images in a folder a scale, ids that tie them together.

Source: README and `camera.py` of google/nerfies and google/hypernerf.

Letters: K images.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from msth_taichi.config import DataConfig
from msth_taichi.errors import DataError
from msth_taichi.lenses import OPENCV, PINHOLE
from msth_taichi.scene.assemble import View, image_scene
from msth_taichi.scene.formats.calibration import numbers, opengl_from_opencv, positive, read_json
from msth_taichi.scene.scene import Scene
from msth_taichi.scene.sources import DepthMap, probe_image

DATASET, METADATA, SCENE = "dataset.json", "metadata.json", "scene.json"
CAMERAS, IMAGES = "camera", "rgb"

SKEW_TOLERANCE = 1e-6


def is_nerfies(folder: Path) -> bool:
    """Whether a folder is of this family."""
    return (folder / DATASET).is_file() and (folder / CAMERAS).is_dir()


def read_ids(path: Path, key: str, known: Sequence[str] | None = None) -> list[str]:
    """Names of images that a json lists.

    Args:
        path: the json.
        key: of the list.
        known: the names there are; default: any.
    Raises:
        DataError: the json is missing or unreadable, has no such list, or lists what is not known.
    """
    values = read_object(path).get(key)
    if not isinstance(values, list) or not all(isinstance(name, str | int) for name in values):
        raise DataError(f"{path}: no list '{key}' of names; restore the file")
    names = [str(name) for name in values]
    if not all(name.isprintable() for name in names):
        raise DataError(f"{path}: '{key}' has a name that no file can have; restore the file")
    if known is not None and (unknown := set(names).difference(known)):
        raise DataError(f"{path}: '{key}' has '{min(unknown):.40}', which 'ids' of {DATASET} has not; correct one")
    return names


def read_object(path: Path) -> dict[str, Any]:
    """A json that holds an object.

    Raises:
        DataError: missing, unreadable or something else.
    """
    values = read_json(path)
    if not isinstance(values, dict):
        raise DataError(f"{path}: not an object of names and values; restore the file")
    return values


def nerfies_scene(
    folder: Path,
    config: DataConfig,
    *,
    format: str,
    ids: Sequence[str],
    splits: Mapping[str, Sequence[str]],
    fps: float,
    depths: str | None = None,
) -> Scene:
    """Images of a camera that moves, or of a few, at the times that metadata.json gives.

    `data.downscale` picks the folder of that scale where there is one; else the nearest larger images that it
    is a multiple of are averaged.

    Args:
        folder: the data set.
        config: what is loaded, and where it is put.
        format: see `Scene`.
        ids: all images, of which the first and the last time are those of the scene.
        splits: some of `ids` each.
        fps: frames per second.
        depths: folder of depth maps, units of the cameras, as NumPy files in a folder a scale as images are; of some
            images.
    Raises:
        DataError: names the file, what is wrong with it, and the remedy.
    """
    images, scale = image_folder(folder, config.downscale)
    times = dict(zip(ids, read_times(folder / METADATA, ids), strict=True))
    used = [name for name in ids if any(name in split for split in map(set, splits.values()))]
    files = [images / f"{name}.png" for name in used]
    views = [read_view(folder / CAMERAS / f"{name}.json", file, scale) for name, file in zip(used, files, strict=True)]
    row = {name: k for k, name in enumerate(used)}
    measured = [folder / depths / images.name / f"{name}.npy" for name in used] if depths else []
    return image_scene(
        folder,
        config.model_copy(update={"downscale": config.downscale // scale}),
        format=format,
        views=views,
        files=files,
        camera=range(len(used)),
        times=[times[name] for name in used],
        splits={split: [row[name] for name in names] for split, names in splits.items()},
        fps=fps,
        depths=[DepthMap(file, 1.0) if file.is_file() else None for file in measured],
        bounds=read_bounds(folder / SCENE),
    )


def image_folder(folder: Path, downscale: int) -> tuple[Path, int]:
    """The smallest images from which `downscale` can be made, and the scale they are at.

    Raises:
        DataError: there are none.
    """
    there = [scale for scale in (16, 8, 4, 2, 1) if (folder / IMAGES / f"{scale}x").is_dir()]
    for scale in there:
        if downscale % scale == 0:
            return folder / IMAGES / f"{scale}x", scale
    if not there:
        raise DataError(f"{folder / IMAGES / '1x'}: missing; restore the images")
    found = ", ".join(f"{scale}x" for scale in reversed(there))
    raise DataError(
        f"{folder / IMAGES}: no images for data.downscale={downscale}, only {found}; use data.downscale={there[-1]}"
    )


def read_times(path: Path, ids: Sequence[str]) -> np.ndarray:
    """(K,) times in [0, 1): `time_id`, or else `warp_id`, from the first to the last of `ids`.

    Raises:
        DataError: an image has neither, or one that is not a number.
    """
    metadata = read_object(path)
    numbered = []
    for name in ids:
        entry = metadata.get(name)
        if not isinstance(entry, dict):
            raise DataError(f"{path}: no entry '{name:.40}'; add it, or take it out of {DATASET}")
        key = "time_id" if "time_id" in entry else "warp_id"
        numbered.append(float(numbers(entry.get(key), (), f"{path}: {key} of '{name:.40}'")))
    frames = np.array(numbered)
    if not len(frames):
        return frames
    return (frames - frames.min()) / (frames.max() - frames.min() + 1)


def read_bounds(path: Path) -> tuple[float, float] | None:
    """Nearest and farthest distance, unit of the cameras; None without the file.

    The json has them in units of `scale`, which the cameras' json are not in.
    """
    if not path.exists():
        return None
    values = read_object(path)
    scale = positive(values.get("scale"), f"{path}: scale")
    near, far = (float(numbers(values.get(key), (), f"{path}: {key}")) for key in ("near", "far"))
    if not 0 <= near < far:
        raise DataError(f"{path}: near is {near:g} and far is {far:g}; write distances with near below far")
    return near / scale, far / scale


def read_view(path: Path, file: Path, scale: int) -> View:
    """The camera of an image that is `scale` times smaller than the json says.

    Raises:
        DataError: the json is missing, unreadable or incomplete, or the image is of another size.
    """
    values = read_object(path)

    def read(key: str, *shape: int, default: Any = None) -> np.ndarray:
        return numbers(values.get(key, default), shape, f"{path}: {key}")

    focal = positive(values.get("focal_length"), f"{path}: focal_length")
    aspect = positive(values.get("pixel_aspect_ratio", 1.0), f"{path}: pixel_aspect_ratio")
    if abs(skew := float(read("skew", default=0.0))) > SKEW_TOLERANCE * focal:
        raise DataError(f"{path}: skew is {skew:g}, which no lens here has; undistort the images, then write 0")
    # older files say "tangential"
    tangential = "tangential" if "tangential" in values else "tangential_distortion"
    k1, k2, k3 = read("radial_distortion", 3, default=[0, 0, 0]).tolist()
    p1, p2 = read(tangential, 2, default=[0, 0]).tolist()
    distortion = (k1, k2, k3, 0.0, 0.0, 0.0, p1, p2)

    size = read("image_size", 2)
    info = probe_image(file)
    if (np.abs(np.array([info.width, info.height]) * scale - size) >= scale).any():
        raise DataError(
            f"{file}: {info.width}x{info.height}, but {path} says {size[0]:g}x{size[1]:g} at scale 1; "
            "restore the image or put it in the folder of its scale"
        )
    rotation, position = read("orientation", 3, 3), read("position", 3)
    intrinsics = np.array([focal, focal * aspect, *read("principal_point", 2)]) / scale
    return View(
        path.stem,
        opengl_from_opencv(np.concatenate([rotation, -(rotation @ position)[:, None]], 1)),
        tuple(intrinsics.tolist()),
        info.width,
        info.height,
        OPENCV if any(distortion) else PINHOLE,
        distortion,
    )
