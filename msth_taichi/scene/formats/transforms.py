"""Reading and checking the json that nerfstudio's family of formats shares: `frames`, poses, intrinsics.

Every problem is a DataError of one line that names the file and the remedy, found before a frame is decoded.
What nerfstudio's own programs note for themselves is ignored: `applied_transform`, `applied_scale`,
`orientation_override`, `ply_file_path`.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from msth_taichi.errors import DataError
from msth_taichi.lenses import DISTORTION, EQUIRECTANGULAR, FISHEYE, OPENCV, ORTHOGRAPHIC, PINHOLE
from msth_taichi.scene.assemble import LARGEST, RIGID_TOLERANCE, View
from msth_taichi.scene.formats.calibration import numbers, resized
from msth_taichi.scene.sources import DepthMap, FileInfo, probe_image

SPLITS = ("train", "test", "val")
SINGLE = "all"
"""Key of the entries of a lone transforms.json, which names no split."""

DEPTH_UNIT = 1e-3
"""Units of the poses in one of a depth map's: nerfstudio's, which stores metres in millimetres."""

_PERSPECTIVE = ("PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "FULL_OPENCV")
_LENSES = {
    **dict.fromkeys(_PERSPECTIVE, OPENCV),
    **dict.fromkeys(("OPENCV_FISHEYE", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE"), FISHEYE),
    "EQUIRECTANGULAR": EQUIRECTANGULAR,
    **dict.fromkeys(("ORTHOPHOTO", "ORTHOGRAPHIC"), ORTHOGRAPHIC),
}


@dataclass(frozen=True, eq=False)
class Entry:
    """One element of a json's `frames`, with the keys of the top level laid over its own."""

    json: Path
    index: int
    values: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.json}: frame {self.index}"

    @property
    def path(self) -> str:
        """Its file's name in the json."""
        return self.values["file_path"]

    def file(self, suffix: str = "") -> Path:
        """The file it names, relative to its json."""
        return self.json.parent / (self.path + suffix)

    def mask(self, info: FileInfo) -> Path | None:
        """The image that says which of its pixels count, None without.

        Raises:
            DataError: missing, unreadable or of another size than the file.
        """
        name = self.values.get("mask_path")
        if name is None:
            return None
        if not _is_name(name):
            raise DataError(f"{self}: mask_path is {name!r:.40}; write the name of an image or leave it out")
        mask = probe_image(self.json.parent / name)
        if (mask.width, mask.height) != (info.width, info.height):
            raise DataError(
                f"{self.json.parent / name}: {mask.width}x{mask.height}, but its image is {info.width}x{info.height}; "
                "bring both to one size"
            )
        return self.json.parent / name

    def depth(self) -> DepthMap | None:
        """Its depth map, None without; a file that is not opened here.

        Raises:
            DataError: the name or the unit is not one.
        """
        name = self.values.get("depth_file_path")
        if name is None:
            return None
        if not _is_name(name):
            raise DataError(f"{self}: depth_file_path is {name!r:.40}; write the name of a depth map or leave it out")
        unit = self.number("depth_unit_scale_factor", DEPTH_UNIT)
        if unit <= 0:
            raise DataError(f"{self}: depth_unit_scale_factor is {unit:g}; write units of the poses per stored unit")
        return DepthMap(self.json.parent / name, unit)

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number."""
        value = self.values.get(key, default)
        if value is None:
            raise DataError(f"{self} has no '{key}'; add it")
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < LARGEST:
            raise DataError(f"{self}: {key} is {value!r:.40}; write a finite number")
        return float(value)

    def whole(self, key: str, least: int, default: int | None = None) -> int:
        """A whole number of at least `least`."""
        count = self.number(key, default)
        if count != int(count) or count < least:
            raise DataError(f"{self.json}: {key} is {count:g}; write a whole number of at least {least}")
        return int(count)

    def time(self) -> float:
        """In [0, 1]."""
        time = self.number("time")
        if not 0 <= time <= 1:
            raise DataError(f"{self}: time is {time:g}; scale all times into [0, 1]")
        return time

    def pose(self) -> np.ndarray:
        """(3, 4) float64 camera-to-world, rigid to 1e-3."""
        if "transform_matrix" not in self.values:
            raise DataError(f"{self} has no 'transform_matrix'; add its 4x4 camera-to-world matrix")
        try:
            matrix = np.asarray(self.values["transform_matrix"], np.float64)
        except (TypeError, ValueError, OverflowError):
            matrix = np.empty(0)
        if matrix.shape not in ((4, 4), (3, 4)):
            raise DataError(f"{self}: transform_matrix is not 4x4 numbers; write a camera-to-world matrix")
        if not (np.abs(matrix) < LARGEST).all():
            raise DataError(f"{self}: transform_matrix is not finite; correct the pose or remove the entry")
        if not np.allclose(matrix[3:], [0, 0, 0, 1], atol=RIGID_TOLERANCE):
            raise DataError(
                f"{self}: transform_matrix is not rigid (its last row is not 0 0 0 1); transpose or correct it"
            )
        rotation = matrix[:3, :3]
        error = np.abs(rotation @ rotation.T - np.eye(3)).max()
        if error > RIGID_TOLERANCE or np.linalg.det(rotation) < 0:
            found = f"it differs from a rotation by {error:.2g}" if error > RIGID_TOLERANCE else "it mirrors"
            raise DataError(f"{self}: transform_matrix is not rigid ({found}); remove scale, shear and mirroring")
        return matrix[:3]

    def view(self, name: str, file: Path, info: FileInfo) -> View:
        """The camera it describes, of a file that may be a smaller or larger copy of what was calibrated."""
        width, height = self.number("w", info.width), self.number("h", info.height)
        if min(width, height) < 1:
            raise DataError(f"{self}: w={width:g}, h={height:g}; write the size in pixels of the images it is for")
        intrinsics = resized(self.intrinsics(width, height), (width, height), info, file, self.json)
        return View(name, self.pose(), intrinsics, info.width, info.height, *self.lens())

    def lens(self) -> tuple[int, list[float]]:
        """Lens code and distortion; perspective cameras without distortion are pinholes."""
        model = self.values.get("camera_model", "OPENCV")
        lens = _LENSES.get(model) if isinstance(model, str) else None
        if lens is None:
            raise DataError(f"{self}: unknown camera_model {model!r:.40}; use one of {', '.join(_LENSES)}")
        read = DISTORTION if lens == OPENCV else DISTORTION[:4] if lens == FISHEYE else ()
        distortion = [self.number(key, 0.0) if key in read else 0.0 for key in DISTORTION]
        return (PINHOLE if lens == OPENCV and not any(distortion) else lens), distortion

    def intrinsics(self, width: float, height: float) -> list[float]:
        """fx, fy, cx, cy for images of this size."""
        lens, _ = self.lens()
        center = [self.number("cx", width / 2), self.number("cy", height / 2)]
        if lens == EQUIRECTANGULAR:
            # nerfstudio counts half turns: half the width is its focal length
            fx, fy = self.number("fl_x", width / 2) / math.pi, self.number("fl_y", height) / math.pi
        elif "fl_x" in self.values:
            fx = self.number("fl_x")
            fy = self.number("fl_y", fx)
        elif "camera_angle_x" in self.values and lens != ORTHOGRAPHIC:
            angle = self.number("camera_angle_x")
            if not 0 < angle < math.pi:
                raise DataError(f"{self}: camera_angle_x is {angle:g}; write the field of view in radians")
            fx = 0.5 * width / math.tan(0.5 * angle)
            fy = self.number("fl_y", fx)
        else:
            raise DataError(f"{self} has neither 'fl_x' nor 'camera_angle_x'; add the focal length in pixels")
        if min(fx, fy) <= 0:
            raise DataError(f"{self}: focal length is {min(fx, fy):g}; write a positive number of pixels")
        return [fx, fy, *center]


@dataclass(frozen=True, eq=False)
class Table:
    """All entries of a folder.

    Args:
        entries: of one json after the other.
        splits: rows of `entries`; empty where nothing says who trains and who tests.
    """

    entries: list[Entry]
    splits: dict[str, list[int]]


def has_transforms(folder: Path) -> bool:
    """Whether a folder has any json of this family."""
    return any(
        (folder / name).is_file() for name in ("transforms.json", "transforms_train.json", "transforms_test.json")
    )


def first_entry(folder: Path) -> Entry:
    """The first entry, which tells the formats apart.

    Raises:
        DataError: a json is missing, cannot be read, or has no entry.
    """
    return next(iter(read_splits(folder).values()))[0]


def first_file_path(folder: Path) -> str:
    """`file_path` of the first entry."""
    return first_entry(folder).path


def read_table(folder: Path) -> Table:
    """Entries of all json of a folder, and who trains and tests.

    Raises:
        DataError: see `read_splits`; or a list of file names has one that no entry has.
    """
    splits = read_splits(folder)
    entries = [entry for split in splits.values() for entry in split]
    if SINGLE in splits:
        return Table(entries, _listed_splits(entries))
    rows = iter(range(len(entries)))
    return Table(entries, {name: [next(rows) for _ in split] for name, split in splits.items()})


def read_splits(folder: Path) -> dict[str, list[Entry]]:
    """Entries of each split, or of `SINGLE` if there is one transforms.json; never empty.

    Raises:
        DataError: a json is missing or unreadable, or has no entry, or an entry names no file.
    """
    train, single = folder / "transforms_train.json", folder / "transforms.json"
    if single.is_file() and not train.is_file():
        return {SINGLE: _read_entries(single)}
    for split in ("train", "test"):
        path = folder / f"transforms_{split}.json"
        if not path.is_file():
            raise DataError(f"{path}: missing; restore it, or name a lone json transforms.json")
    paths = {split: folder / f"transforms_{split}.json" for split in SPLITS}
    return {split: _read_entries(path) for split, path in paths.items() if path.exists()}


def frames_per_second(entry: Entry, default: float) -> float:
    """`fps` of the json, else `default`."""
    fps = entry.number("fps", default)
    if fps <= 0:
        raise DataError(f"{entry.json}: fps is {fps:g}; write a positive number")
    return fps


def read_bounds(entry: Entry) -> tuple[float, float] | None:
    """`bounds` of the json: nearest and farthest distance, unit of the poses; None without."""
    if "bounds" not in entry.values:
        return None
    near, far = numbers(entry.values["bounds"], (2,), f"{entry.json}: bounds").tolist()
    if not 0 < near < far:
        raise DataError(f"{entry.json}: bounds are {near:g} and {far:g}; write 0 < nearest < farthest distance")
    return near, far


def _is_name(value: Any) -> bool:
    """Whether a file can have this name, and a message of one line too."""
    return isinstance(value, str) and value != "" and value.isprintable()


def _listed_splits(entries: list[Entry]) -> dict[str, list[int]]:
    """Rows that nerfstudio's lists of file names at the top level name; without "test", those of "val" test."""
    rows: dict[Path, list[int]] = {}
    for row, entry in enumerate(entries):
        rows.setdefault(Path(entry.path), []).append(row)
    splits: dict[str, list[int]] = {}
    for split in SPLITS:
        key = f"{split}_filenames"
        names = entries[0].values.get(key)
        if names is None:
            continue
        if not isinstance(names, list) or not all(_is_name(name) for name in names):
            raise DataError(f"{entries[0].json}: {key} is not a list of names; correct it or leave it out")
        if missing := [name for name in names if Path(name) not in rows]:
            raise DataError(f"{entries[0].json}: {key} has '{missing[0]:.80}', but no frame has; correct one of both")
        splits[split] = [row for name in names for row in rows[Path(name)]]
    if splits and not splits.get("train"):
        raise DataError(f"{entries[0].json}: lists who tests but not who trains; add 'train_filenames'")
    if "val" in splits:
        splits.setdefault("test", splits["val"])
    return splits


def _read_entries(path: Path) -> list[Entry]:
    try:
        top = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:  # ValueError: not UTF-8, not json, endless digits
        raise DataError(f"{path}: not readable json ({error}); restore or correct it") from error
    frames = top.pop("frames", None) if isinstance(top, dict) else None
    if not isinstance(frames, list) or not all(isinstance(frame, dict) for frame in frames):
        raise DataError(f"{path}: no list 'frames' of objects; add one entry per image or camera")
    if not frames:
        raise DataError(f"{path}: zero images in 'frames'; add one entry per image or camera")
    # a start belongs to one file
    top.pop("start_frame", None)
    # any distortion at the top level makes the whole of it global, so that two lenses never mix
    dropped = DISTORTION if any(key in top for key in DISTORTION) else ()
    entries = []
    for index, frame in enumerate(frames):
        own = {key: value for key, value in frame.items() if key not in dropped}
        entry = Entry(path, index, {**own, **top})
        if not _is_name(entry.values.get("file_path")):
            raise DataError(f"{entry} has no 'file_path'; add the name of its file")
        entries.append(entry)
    return entries
