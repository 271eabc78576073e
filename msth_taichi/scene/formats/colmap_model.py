"""COLMAP's sparse models, binary and text: cameras, images and points.

Keypoints are skipped. A count in a binary file is checked against the bytes that are left before anything is
made of it, so that a damaged file asks for no more memory than it has bytes.

Source: COLMAP's documentation, "Output Format" and "Camera Models".

Letters: I images, P points, O observations.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from msth_taichi.errors import DataError
from msth_taichi.lenses import DISTORTION, FISHEYE, OPENCV, PINHOLE
from msth_taichi.scene.assemble import LARGEST
from msth_taichi.scene.formats.calibration import numbers, opengl_from_opencv

SUFFIXES = (".bin", ".txt")
"""In the order in which COLMAP itself looks."""

UNIT_TOLERANCE = 1e-3

_FOCAL, _CENTER = ("fx", "fy"), ("cx", "cy")
_MODELS = {
    "SIMPLE_PINHOLE": (0, PINHOLE, ("f", *_CENTER)),
    "PINHOLE": (1, PINHOLE, (*_FOCAL, *_CENTER)),
    "SIMPLE_RADIAL": (2, OPENCV, ("f", *_CENTER, "k1")),
    "RADIAL": (3, OPENCV, ("f", *_CENTER, "k1", "k2")),
    "OPENCV": (4, OPENCV, (*_FOCAL, *_CENTER, "k1", "k2", "p1", "p2")),
    "OPENCV_FISHEYE": (5, FISHEYE, (*_FOCAL, *_CENTER, "k1", "k2", "k3", "k4")),
    "FULL_OPENCV": (6, OPENCV, (*_FOCAL, *_CENTER, "k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")),
    "SIMPLE_RADIAL_FISHEYE": (8, FISHEYE, ("f", *_CENTER, "k1")),
    "RADIAL_FISHEYE": (9, FISHEYE, ("f", *_CENTER, "k1", "k2")),
}
_NAMES = {number: name for name, (number, _, _) in _MODELS.items()}


@dataclass(frozen=True)
class ModelCamera:
    """A calibrated lens, shared by images.

    Args:
        width: pixels.
        height: pixels.
        lens: a code of `msth_taichi.lenses`.
        intrinsics: fx, fy, cx, cy in pixels; the first pixel's centre is (0.5, 0.5), as everywhere.
        distortion: eight coefficients, see `msth_taichi.lenses.DISTORTION`.
    """

    width: int
    height: int
    lens: int
    intrinsics: tuple[float, ...]
    distortion: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class ModelImage:
    """A registered image.

    Args:
        name: its file, relative to the folder of images.
        camera: key of its camera.
        pose: (3, 4) camera-to-world, OpenGL axes.
    """

    name: str
    camera: int
    pose: np.ndarray


@dataclass(frozen=True, eq=False)
class Model:
    """A sparse model.

    Args:
        path: the file of its cameras.
        cameras: by COLMAP's number.
        images: by COLMAP's number.
        points: (P, 3).
        observations: (O, 2) number of an image, and row of a point that it sees.

    Example:
        >>> model = read_model(Path("capture/sparse/0"))
        >>> model.images[1].name, model.cameras[model.images[1].camera].width
        ('0001.png', 1920)
    """

    path: Path
    cameras: dict[int, ModelCamera]
    images: dict[int, ModelImage]
    points: np.ndarray
    observations: np.ndarray

    def distances(self) -> np.ndarray:
        """Distance from each image to each point that it sees, the model's unit."""
        ids = np.array(list(self.images))
        order = np.argsort(ids)
        place = np.searchsorted(ids[order], self.observations[:, 0])
        image = order[np.minimum(place, len(order) - 1)]
        seen = ids[image] == self.observations[:, 0]
        centers = np.stack([each.pose[:, 3] for each in self.images.values()])
        return np.linalg.norm(self.points[self.observations[seen, 1]] - centers[image[seen]], axis=1)


def is_model(folder: Path) -> bool:
    """Whether a folder has the two files without which there is no model."""
    return any(
        (folder / f"cameras{suffix}").is_file() and (folder / f"images{suffix}").is_file() for suffix in SUFFIXES
    )


def read_model(folder: Path) -> Model:
    """The model in a folder, binary if there are both; points may be missing.

    Raises:
        DataError: a file is missing, damaged or contradicts another, or a lens is of a kind that has no rays here.
    """
    binary = all((folder / f"{name}.bin").is_file() for name in ("cameras", "images"))
    cameras = folder / ("cameras.bin" if binary else "cameras.txt")
    images = folder / ("images.bin" if binary else "images.txt")
    points = folder / ("points3D.bin" if binary else "points3D.txt")
    no_points = (np.zeros((0, 3)), np.zeros((0, 2), np.int64))
    if binary:
        model = Model(
            cameras,
            dict(_binary_cameras(_Bytes(cameras))),
            dict(_binary_images(_Bytes(images))),
            *(_binary_points(_Bytes(points)) if points.exists() else no_points),
        )
    else:
        model = Model(
            cameras,
            dict(_text_cameras(cameras)),
            dict(_text_images(images)),
            *(_text_points(points) if points.exists() else no_points),
        )
    if not model.images:
        raise DataError(f"{images}: no image; run COLMAP again until it registers images")
    for image in model.images.values():
        if not image.name.isprintable():
            raise DataError(f"{images}: damaged (a name is not text); restore it or export the model again")
        if image.camera not in model.cameras:
            raise DataError(
                f"{images}: '{image.name:.80}' is of camera {image.camera}, which {cameras.name} has not; "
                "restore both files or export the model again"
            )
    return model


class _Bytes:
    """A binary file, little-endian, read from its start to its end."""

    def __init__(self, path: Path):
        self.path = path
        try:
            self._data = path.read_bytes()
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}); restore it") from error
        self._at = 0

    def take(self, layout: str) -> tuple:
        layout = "<" + layout
        self._need(struct.calcsize(layout))
        values = struct.unpack_from(layout, self._data, self._at)
        self._at += struct.calcsize(layout)
        return values

    def count(self, least: int) -> int:
        """A number of records that have at least this many bytes each."""
        (count,) = self.take("Q")
        self._need(count * least)
        return count

    def skip(self, size: int) -> None:
        self._need(size)
        self._at += size

    def array(self, count: int, dtype: str) -> np.ndarray:
        self._need(count * np.dtype(dtype).itemsize)
        values = np.frombuffer(self._data, dtype, count, self._at)
        self._at += values.nbytes
        return values

    def text(self) -> str:
        end = self._data.find(b"\0", self._at)
        self._need(end - self._at if end >= 0 else len(self._data) + 1)
        raw, self._at = self._data[self._at : end], end + 1
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise self.damaged("a name is not text") from error

    def end(self) -> None:
        if self._at != len(self._data):
            raise self.damaged(f"{len(self._data) - self._at} bytes more than it says it has")

    def damaged(self, what: str) -> DataError:
        return DataError(f"{self.path}: damaged ({what}); restore it or export the model again")

    def _need(self, size: int) -> None:
        if size > len(self._data) - self._at:
            raise self.damaged("it ends before what it says it has")


def _binary_cameras(data: _Bytes) -> Iterator[tuple[int, ModelCamera]]:
    for _ in range(data.count(24)):
        number, kind, width, height = data.take("IiQQ")
        name = _NAMES.get(kind)
        if name is None:
            raise _no_lens(data.path, f"number {kind}")
        params = data.take(f"{len(_MODELS[name][2])}d")
        yield number, _camera(f"{data.path}: camera {number}", name, width, height, params)
    data.end()


def _binary_images(data: _Bytes) -> Iterator[tuple[int, ModelImage]]:
    for _ in range(data.count(73)):
        number, *pose, camera = data.take("I7dI")
        name = data.text()
        data.skip(24 * data.count(24))
        yield number, ModelImage(name, camera, _pose(f"{data.path}: '{name:.80}'", pose))
    data.end()


def _binary_points(data: _Bytes) -> tuple[np.ndarray, np.ndarray]:
    positions, tracks = [], []
    for _ in range(data.count(51)):
        positions.append(data.take("Q3d3Bd")[1:4])
        tracks.append(data.array(2 * data.count(8), "<u4")[::2])
    data.end()
    return _points(data.path, positions, tracks)


def _text_cameras(path: Path) -> Iterator[tuple[int, ModelCamera]]:
    for where, line in _lines(path):
        fields = line.split()
        if len(fields) < 4:
            raise _bad_line(where)
        number, width, height = (_whole(fields[i], where) for i in (0, 2, 3))
        if fields[1] not in _MODELS:
            raise _no_lens(path, f"{fields[1]!r:.40}")
        yield number, _camera(where, fields[1], width, height, [_real(field, where) for field in fields[4:]])


def _text_images(path: Path) -> Iterator[tuple[int, ModelImage]]:
    lines = _lines(path, blank=True)
    for where, line in lines:
        if not line:
            continue
        fields = line.split(maxsplit=9)
        if len(fields) < 10:
            raise _bad_line(where)
        pose = [_real(field, where) for field in fields[1:8]]
        yield _whole(fields[0], where), ModelImage(fields[9], _whole(fields[8], where), _pose(where, pose))
        next(lines, None)  # keypoints; an image without any has a blank line


def _text_points(path: Path) -> tuple[np.ndarray, np.ndarray]:
    positions, tracks = [], []
    for where, line in _lines(path):
        fields = line.split()
        if len(fields) < 8 or len(fields) % 2:
            raise _bad_line(where)
        positions.append(tuple(_real(field, where) for field in fields[1:4]))
        tracks.append(np.array([_whole(field, where) for field in fields[8::2]], np.int64))
    return _points(path, positions, tracks)


def _points(path: Path, positions: list[tuple], tracks: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(P, 3) points and (O, 2) observations from a track of images for each point."""
    points = np.array(positions, np.float64).reshape(-1, 3)
    if not (np.abs(points) < LARGEST).all():
        raise DataError(f"{path}: a point is not finite; restore it or export the model again")
    rows = np.repeat(np.arange(len(points)), np.array([len(track) for track in tracks], np.int64))
    return points, np.stack([np.concatenate([np.zeros(0, np.int64), *tracks]), rows], 1)


def _lines(path: Path, blank: bool = False) -> Iterator[tuple[str, str]]:
    """Place and text of each line that is no comment."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not readable text ({type(error).__name__}); restore it") from error
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line.startswith("#") and (line or blank):
            yield f"{path}: line {number}", line


def _whole(field: str, where: str) -> int:
    # digits alone: int() takes underscores, and endless digits
    if not (field.isascii() and field.isdigit() and len(field) < 19):
        raise _bad_line(where)
    return int(field)


def _real(field: str, where: str) -> float:
    try:
        return float(field)
    except ValueError as error:
        raise _bad_line(where) from error


def _bad_line(where: str) -> DataError:
    return DataError(f"{where}: not what COLMAP writes there; restore the file or export the model again")


def _no_lens(path: Path, name: str) -> DataError:
    return DataError(
        f"{path}: camera model {name} is not supported, only {', '.join(_MODELS)}; undistort the images with COLMAP"
    )


def _camera(where: str, name: str, width: int, height: int, params) -> ModelCamera:
    _, lens, keys = _MODELS[name]
    values = dict(
        zip(keys, numbers(list(params), (len(keys),), f"{where}: parameters of {name}").tolist(), strict=True)
    )
    if not (0 < width < LARGEST and 0 < height < LARGEST):
        raise DataError(f"{where}: {width}x{height} pixels; restore the file or export the model again")
    fx = values.get("f", values.get("fx", 0.0))
    fy = values.get("f", values.get("fy", 0.0))
    distortion = tuple(values.get(key, 0.0) for key in DISTORTION)
    lens = PINHOLE if lens == OPENCV and not any(distortion) else lens
    return ModelCamera(width, height, lens, (fx, fy, values["cx"], values["cy"]), distortion)


def _pose(where: str, values) -> np.ndarray:
    """(3, 4) from a world-to-camera quaternion w, x, y, z and translation, y down and z forward."""
    w, x, y, z, *translation = numbers(list(values), (7,), f"{where}: pose").tolist()
    length = np.linalg.norm([w, x, y, z])
    if abs(length - 1) > UNIT_TOLERANCE:
        raise DataError(
            f"{where}: its quaternion is {length:.3g} long, not 1; restore the file or export the model again"
        )
    w, x, y, z = np.array([w, x, y, z]) / length
    rotation = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
    return opengl_from_opencv(np.concatenate([rotation, np.array(translation)[:, None]], 1))
