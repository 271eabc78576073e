"""A scene's cameras and files in the project's own format: transforms_{train,test}.json, videos/ or images/."""

import math
import os
import shutil
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from msth_taichi.errors import DataError
from msth_taichi.files import replacing, write_json
from msth_taichi.lenses import DISTORTION, EQUIRECTANGULAR, FISHEYE, OPENCV, ORTHOGRAPHIC, PINHOLE
from msth_taichi.scene.assemble import file_frames
from msth_taichi.scene.scene import Images, Scene
from msth_taichi.scene.sources import ImageSource, VideoSource

CAMERA_MODELS = {
    PINHOLE: "PINHOLE",
    OPENCV: "OPENCV",
    FISHEYE: "OPENCV_FISHEYE",
    EQUIRECTANGULAR: "EQUIRECTANGULAR",
    ORTHOGRAPHIC: "ORTHOPHOTO",
}
"""nerfstudio's names of the lenses."""


def write_transforms(scene: Scene, folder: Path, *, copy: bool = False, progress: bool = True) -> list[Path]:
    """Write a scene so that `load_scene` reads the same cameras, times and frames back.

    Poses are written in the user's coordinates. Files are linked or copied, never encoded again. The json come last,
    so that a folder that has them is complete.

    Args:
        scene: of videos or images, read without `data.downscale`.
        folder: to write into; files of an earlier call are taken as they are if they have the right size.
        copy: copy the files; else link to them, which takes no space but breaks when they move.
        progress: show a bar.
    Returns:
        The json.
    Raises:
        DataError: the frames are no files, or are averaged while they are read.
        RunError: the system refuses a write.

    Example:
        >>> write_transforms(load_scene("coffee_martini"), Path("converted"))  # doctest: +SKIP
        [PosixPath('converted/transforms_train.json'), PosixPath('converted/transforms_test.json')]
    """
    tables = {split: _entries(scene, images) for split, images in scene.splits.items()}
    used = [entry["file_path"] for entries in tables.values() for entry in entries]
    masks, depths = (
        [entry[key] for entries in tables.values() for entry in entries if key in entry]
        for key in ("mask_path", "depth_file_path")
    )
    static = all(isinstance(images.source, VideoSource) for images in scene.splits.values())
    names = _names(used, "videos" if static else "images") | _names(masks, "masks") | _names(depths, "depths")
    for file, name in tqdm(names.items(), desc="files", unit="file", leave=False, disable=None if progress else True):
        _place(file, folder / name, copy)
    for entries in tables.values():
        for entry in entries:
            for key in ("file_path", "mask_path", "depth_file_path"):
                if key in entry:
                    entry[key] = names[entry[key]].as_posix()
    top: dict[str, Any] = {"fps": scene.fps}
    if scene.bounds:
        top["bounds"] = [distance / scene.transform.scale for distance in scene.bounds]
    if static:
        top["num_frames"] = scene.num_frames
    return _write_tables(folder, top, tables)


def _entries(scene: Scene, images: Images) -> list[dict[str, Any]]:
    """One a video, or one an image; paths are those of the scene's files."""
    source = images.source
    if not isinstance(source, VideoSource | ImageSource):
        raise DataError(f"scene '{scene.name}' is not made of video or image files; there is nothing to link to")
    if source.downscale != 1:
        raise DataError(f"data.downscale={source.downscale}: images are not written smaller; use 1 and resize them")
    cameras, keys, times = images.camera.tolist(), images.keys.tolist(), images.time.numpy()
    entries = []
    if isinstance(source, ImageSource):
        for camera, key, time in zip(cameras, keys, times, strict=True):
            entry = {"file_path": source.files[key], "time": _shortest(time), **camera_entry(scene, camera)}
            mask = source.masks[key] if source.masks else None
            depth = source.depths[key] if source.depths else None
            entry |= {} if mask is None else {"mask_path": mask}
            entry |= {} if depth is None else {"depth_file_path": depth.file, "depth_unit_scale_factor": depth.unit}
            entries.append(entry)
        return entries
    seen: dict[int, list[int]] = {}
    for camera, key in zip(cameras, keys, strict=True):
        seen.setdefault(camera, []).append(key)
    for camera, of_camera in seen.items():
        video, start = divmod(min(of_camera), source.num_frames)
        entry = {"file_path": source.files[video], "camera": scene.cameras.names[camera], **camera_entry(scene, camera)}
        rate = _rate(np.sort(of_camera) - min(of_camera))
        entry |= {"start_frame": start} if start else {}
        entries.append(entry | ({"camera_fps": rate * scene.fps} if rate != 1 else {}))
    return entries


def _rate(frames: np.ndarray) -> float:
    """The r with frames = round(t r), as simple as they allow."""
    slope = float(frames[-1]) / max(len(frames) - 1, 1)
    if not slope:
        return 1.0
    for most in (1, 2, 10, 1001):
        rate = float(Fraction(slope).limit_denominator(most))
        if np.array_equal(file_frames(len(frames), 0, rate), frames):
            return rate
    return slope


def camera_entry(scene: Scene, row: int) -> dict[str, Any]:
    """Lens, size and pose of a camera, in the user's coordinates."""
    cameras = scene.cameras
    lens = int(cameras.lens[row])
    fx, fy, cx, cy = map(_shortest, cameras.intrinsics[row].numpy())
    if lens == EQUIRECTANGULAR:
        # nerfstudio counts half turns
        fx, fy = fx * math.pi, fy * math.pi
    if lens == ORTHOGRAPHIC:
        fx, fy = fx * scene.transform.scale, fy * scene.transform.scale
    width, height = cameras.size(row)
    distortion = dict(zip(DISTORTION, map(_shortest, cameras.distortion[row].numpy()), strict=True))
    pose = scene.transform.invert_poses(cameras.camera_to_world[row].double().numpy())
    return {
        "camera_model": CAMERA_MODELS[lens],
        **{"w": width, "h": height, "fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy},
        **{name: value for name, value in distortion.items() if value},
        "transform_matrix": [*pose.tolist(), [0.0, 0.0, 0.0, 1.0]],
    }


def _names(files: Sequence[Path], folder: str) -> dict[Path, Path]:
    """Where each file goes: its own name, below as many of its folders as tell it from the others."""
    distinct = sorted(set(files))
    if not distinct:
        return {}
    parents = [str(file.absolute().parent) for file in distinct]
    common = os.path.commonpath(parents)
    return {file: Path(folder) / file.absolute().relative_to(common) for file in distinct}


def _place(file: Path, target: Path, copy: bool) -> None:
    if target.exists() and target.is_symlink() != copy and _same(file, target, copy):
        return
    with replacing(target) as temporary:
        if copy:
            shutil.copyfile(file, temporary)
        else:
            temporary.symlink_to(os.path.relpath(file.resolve(), temporary.parent.resolve()))


def _same(file: Path, target: Path, copy: bool) -> bool:
    return target.stat().st_size == file.stat().st_size if copy else target.samefile(file)


def _write_tables(folder: Path, top: dict[str, Any], tables: dict[str, list[dict[str, Any]]]) -> list[Path]:
    old = {folder / f"transforms{ending}.json" for ending in ("", *(f"_{split}" for split in ("train", "test", "val")))}
    if "train" in tables and "test" in tables:
        contents = {folder / f"transforms_{split}.json": {**top, "frames": table} for split, table in tables.items()}
    else:
        # the reader wants both, or one json that says who trains
        lists = {f"{split}_filenames": [entry["file_path"] for entry in table] for split, table in tables.items()}
        frames = [entry for table in tables.values() for entry in table]
        contents = {folder / "transforms.json": {**top, **lists, "frames": frames}}
    _remove(old.difference(contents))
    for path, values in contents.items():
        write_json(path, values)
    return list(contents)


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _shortest(value: np.floating) -> float:
    """The shortest number in decimals that is this float32."""
    return float(str(np.float32(value)))
