"""Camera paths as files: the project's json, and nerfstudio's.

Poses of the project's json are camera-to-world, OpenGL axes, in the user's coordinates: those of the data set before
it is normalised. docs/paths.md describes every key.
"""

import difflib
import itertools
import json
import math
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from msth_taichi.config import DataConfig
from msth_taichi.errors import RunError
from msth_taichi.files import write_json
from msth_taichi.rendering.path_lenses import EYE_DISTANCE, LARGEST_SIZE
from msth_taichi.rendering.timing import FASTEST, SLOWEST
from msth_taichi.scene.assemble import LARGEST, RIGID_TOLERANCE
from msth_taichi.scene.normalize import SceneTransform, normalize_poses
from msth_taichi.scene.scene import Scene

Lens = Literal["pinhole", "opencv", "fisheye", "equirectangular", "orthographic", "stereo-360"]
Row = tuple[float, float, float, float]

_MOST = 1e6
"""No number of a lens or a video is beyond this."""

_NERFSTUDIO_LENSES: dict[str, Lens] = {
    "perspective": "pinhole",
    "fisheye": "fisheye",
    "equirectangular": "equirectangular",
    "omnidirectional": "stereo-360",
}


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


_Focal = Annotated[float, Field(ge=1e-3, le=_MOST)]
_Coefficient = Annotated[float, Field(ge=-_MOST, le=_MOST)]


class _View(_Model):
    """How wide a lens looks: `fov`, or focal lengths."""

    fov: Annotated[float, Field(ge=0.01, le=360)] | None = Field(
        default=None, description="vertical field of view, degrees; below 180 unless fisheye"
    )
    fl_x: _Focal | None = Field(
        default=None, description="focal length, pixels (per user unit where orthographic), instead of fov"
    )
    fl_y: _Focal | None = Field(default=None, description="default: fl_x")

    @model_validator(mode="after")
    def _one_of_both(self) -> "_View":
        if self.fov is not None and self.fl_x is not None:
            raise ValueError("has both fov and fl_x; leave one out")
        if self.fl_y is not None and self.fl_x is None:
            raise ValueError("has fl_y without fl_x; add it")
        return self


class PathKey(_View):
    """Where the camera is at one moment of the video.

    Example:
        >>> PathKey(pose=np.eye(4).tolist(), time=0.5, fov=60)
    """

    pose: tuple[Row, ...] = Field(description="camera-to-world, three or four rows of four numbers, user coordinates")
    time: Annotated[float, Field(ge=0, le=1)] | None = Field(default=None, description="of the scene, 0 start, 1 end")
    seconds: Annotated[float, Field(ge=0, le=_MOST)] | None = Field(
        default=None, description="of the video, at which the camera is here"
    )

    @field_validator("pose")
    @classmethod
    def _is_rigid(cls, rows: tuple[Row, ...]) -> tuple[Row, ...]:
        if len(rows) not in (3, 4):
            raise ValueError("not 3x4 or 4x4 numbers; write a camera-to-world matrix")
        _check_rigid(np.array(rows))
        return rows[:3]


class PathFile(_View):
    """A camera path by its keys; what is left out is as in the data set.

    Example:
        >>> keys = [PathKey(pose=pose, seconds=2.0 * k) for k, pose in enumerate(poses.tolist())]
        >>> write_path(Path("path.json"), PathFile(keys=keys, fov=60, width=1280, height=720, fps=30))
    """

    lens: Lens = Field(default="pinhole", description="of all keys")
    width: int | None = Field(default=None, ge=1, le=LARGEST_SIZE, description="of the image, pixels")
    height: int | None = Field(default=None, ge=1, le=LARGEST_SIZE, description="of the image, pixels")
    cx: _Coefficient | None = Field(
        default=None, description="of the optical axis, pixels; default: the image's centre"
    )
    cy: _Coefficient | None = Field(default=None, description="see cx")
    distortion: dict[Literal["k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2"], _Coefficient] = Field(
        default={}, description="coefficients of the lenses opencv (all) and fisheye (k1 to k4)"
    )
    eye_distance: float = Field(
        default=EYE_DISTANCE, ge=0, le=_MOST, description="between the eyes of stereo-360, user units"
    )
    fps: float | None = Field(default=None, ge=SLOWEST, le=FASTEST, description="frames per second of the video")
    seconds: float | None = Field(
        default=None, ge=1e-3, le=_MOST, description="length of the video; of a closed path, until the first key again"
    )
    closed: bool = Field(default=False, description="the path goes on from its last key to its first")
    keys: tuple[PathKey, ...] = Field(min_length=1, description="in the order of the video")

    @model_validator(mode="after")
    def _keys_agree(self) -> "PathFile":
        for name in ("time", "seconds"):
            missing = [k for k, key in enumerate(self.keys) if getattr(key, name) is None]
            if 0 < len(missing) < len(self.keys):
                raise ValueError(f"keys[{missing[0]}] has no '{name}', but others have; give it to all or to none")
        moments = [key.seconds for key in self.keys if key.seconds is not None]
        if any(after <= before for before, after in itertools.pairwise(moments)):
            raise ValueError("the seconds of the keys do not ascend; put the keys in the order of the video")
        if moments and self.closed and (self.seconds is None or self.seconds <= moments[-1]):
            raise ValueError("closed, but 'seconds' is not after the last key; say when the first key comes again")
        if moments and not self.closed and self.seconds is not None:
            raise ValueError("has 'seconds', but its keys have them too; leave one out")
        fields = [view.fov for view in (self, *self.keys) if view.fov is not None]
        if self.lens != "fisheye" and fields and max(fields) >= 180:
            raise ValueError(f"fov {max(fields):g} of lens {self.lens}; write less than 180 degrees")
        if self.lens == "orthographic" and (fields or not (self.fl_x or all(key.fl_x for key in self.keys))):
            raise ValueError("orthographic, but not with fl_x; write the pixels per unit of length, and no fov")
        if any(self.distortion.values()) and self.lens not in ("opencv", "fisheye"):
            raise ValueError(f"has distortion, but lens {self.lens} has none; use opencv or fisheye, or leave it out")
        return self

    @property
    def poses(self) -> np.ndarray:
        """(K, 3, 4) float64, user coordinates."""
        return np.array([key.pose for key in self.keys])

    def focals(self, height: int, default: float) -> np.ndarray:
        """(K, 2) focal lengths in pixels, for images of a height; `default` where nothing says."""
        rows = []
        for key in self.keys:
            view = key if key.fov or key.fl_x else self
            if view.fl_x:
                rows.append((view.fl_x, view.fl_y or view.fl_x))
            elif view.fov:
                angle = math.radians(view.fov)
                rows.append((height / angle if self.lens == "fisheye" else _focal(view.fov, height),) * 2)
            else:
                rows.append((default,) * 2)
        return np.array(rows)


class _NerfstudioKey(BaseModel):
    model_config = ConfigDict(allow_inf_nan=False)

    camera_to_world: Annotated[list[float], Field(min_length=16, max_length=16)]
    fov: Annotated[float, Field(ge=0.01, lt=180)] | None = None
    render_time: Annotated[float, Field(ge=0, le=1)] | None = None

    @field_validator("camera_to_world")
    @classmethod
    def _is_rigid(cls, numbers: list[float]) -> list[float]:
        _check_rigid(np.array(numbers).reshape(4, 4))
        return numbers


class _NerfstudioPath(BaseModel):
    """A path of nerfstudio's viewer: a key for each frame. Its `keyframes`, `crop` and others are not needed."""

    model_config = ConfigDict(allow_inf_nan=False)

    camera_type: str = "perspective"
    render_width: int = Field(ge=1, le=LARGEST_SIZE)
    render_height: int = Field(ge=1, le=LARGEST_SIZE)
    fps: Annotated[float, Field(ge=SLOWEST, le=FASTEST)] | None = None
    seconds: Annotated[float, Field(ge=1e-3, le=_MOST)] | None = None
    is_cycle: bool = False
    camera_path: list[_NerfstudioKey] = Field(min_length=1)


def write_path(file: Path, path: PathFile) -> None:
    """Write a path so that `read_path` reads an equal one back; what is there is replaced.

    Raises:
        RunError: the system refuses the write.
    """
    write_json(file, path.model_dump(mode="json", exclude_defaults=True))


def read_path(file: Path, scene: Scene) -> PathFile:
    """Read a path: the project's json, or nerfstudio's camera_path.json.

    Poses of nerfstudio's are in the coordinates to which it normalises a data set by default: mean up axis to z,
    mean position to the origin, largest camera coordinate 1. They are brought back to the user's.

    Args:
        file: the json.
        scene: whose cameras say how nerfstudio would normalise them.
    Raises:
        RunError: names the file, what is wrong with it, and the remedy.

    Example:
        >>> read_path(Path("camera_path.json"), scene).poses.shape
        (240, 3, 4)
    """
    if not file.is_file():
        raise RunError(f"{file}: no such path file; give an existing .json or a path's name")
    try:
        values = json.loads(file.read_text())
    except (OSError, ValueError, RecursionError) as error:  # ValueError: not UTF-8, not json, endless digits
        raise RunError(f"{file}: not readable json ({error}); restore or correct it") from error
    if not isinstance(values, dict):
        raise RunError(f"{file}: not an object with a list 'keys'; see docs/paths.md for an example")
    if "camera_path" in values:
        return _from_nerfstudio(file, _validated(_NerfstudioPath, values, file), scene)
    return _validated(PathFile, values, file)


_Checked = TypeVar("_Checked", bound=BaseModel)


def _validated(model: type[_Checked], values: dict[str, Any], file: Path) -> _Checked:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise RunError(f"{file}: {_explain(error)}") from None


def _from_nerfstudio(file: Path, path: _NerfstudioPath, scene: Scene) -> PathFile:
    lens = _NERFSTUDIO_LENSES.get(path.camera_type.lower())
    if lens is None:
        raise RunError(
            f"{file}: camera_type {path.camera_type!r:.40} is unknown; use one of {', '.join(_NERFSTUDIO_LENSES)}"
        )
    normalised = _nerfstudio_transform(scene)
    fps = path.fps or (len(path.camera_path) / path.seconds if path.seconds else scene.fps)
    timed = all(key.render_time is not None for key in path.camera_path)
    keys = []
    for k, key in enumerate(path.camera_path):
        pose = normalised.invert_poses(np.array(key.camera_to_world).reshape(4, 4)[:3])
        values: dict[str, Any] = {"pose": pose.tolist(), "seconds": k / fps}
        if key.fov is not None and lens in ("pinhole", "fisheye"):
            values["fl_x"] = _focal(key.fov, path.render_height)
        if timed:
            values["time"] = key.render_time
        keys.append(values)
    return _validated(
        PathFile,
        {
            "lens": lens,
            "width": path.render_width,
            # the other eye's image comes below
            "height": path.render_height * (2 if lens == "stereo-360" else 1),
            "fps": fps,
            "closed": path.is_cycle,
            "seconds": len(keys) / fps if path.is_cycle else None,
            "keys": keys,
        },
        file,
    )


def _nerfstudio_transform(scene: Scene) -> SceneTransform:
    """From the user's coordinates to nerfstudio's, with its default settings."""
    poses = scene.transform.invert_poses(scene.cameras.camera_to_world.double().cpu().numpy())
    return normalize_poses(poses, DataConfig(scale_factor=1.0))


def _check_rigid(matrix: np.ndarray) -> None:
    """Of a 3x4 or 4x4 matrix; a ValueError says what is wrong."""
    if not (np.abs(matrix) < LARGEST).all():
        raise ValueError("too large; write a camera-to-world matrix")
    if not np.allclose(matrix[3:], [0, 0, 0, 1], atol=RIGID_TOLERANCE):
        raise ValueError("not rigid (its last row is not 0 0 0 1); transpose or correct it")
    error = np.abs(matrix[:3, :3] @ matrix[:3, :3].T - np.eye(3)).max()
    if error > RIGID_TOLERANCE or np.linalg.det(matrix[:3, :3]) < 0:
        found = f"it differs from a rotation by {error:.2g}" if error > RIGID_TOLERANCE else "it mirrors"
        raise ValueError(f"not rigid ({found}); remove scale, shear and mirroring")


def _focal(fov: float, height: int) -> float:
    return 0.5 * height / math.tan(0.5 * math.radians(fov))


def _explain(error: ValidationError) -> str:
    """The first problem of a pydantic error, in one line."""
    problem = error.errors()[0]
    name = ""
    for part in problem["loc"]:
        name += f"[{part}]" if isinstance(part, int) else f".{part}" if name else part
    where, _, last = name.rpartition(".")
    if problem["type"] == "missing" and isinstance(problem["loc"][-1], str):
        return f"{where or 'the path'} has no '{last}'; add it"
    if problem["type"] == "extra_forbidden":
        known = list((PathKey if where else PathFile).model_fields)
        match = difflib.get_close_matches(last, known, n=1, cutoff=0.5)
        hint = f"did you mean '{match[0]}'?" if match else f"known: {', '.join(known)}"
        return f"unknown key {name!r:.60} ({hint})"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return f"{name}: {message}" if name else message
    return f"{name} = {problem['input']!r:.40}: {message[:1].lower()}{message[1:]}; correct it"
