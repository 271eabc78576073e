"""What a client asks to see, with nothing in it that could do harm: numbers are finite and within bounds.

Poses are camera-to-world, OpenGL axes, in the user's coordinates; a browser's are OpenCV's.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from msth_taichi.rendering.pictures import DepthRange

VIEWS = ("rgb", "depth", "mask", "static", "dynamic", "accumulation")
"""Names of `rendering.outputs.OUTPUTS` that a viewer offers."""

EDGES = (64, 2048)
"""Pixels along the longer edge of a picture."""

FOVS = (5.0, 150.0)
"""Vertical field of view, degrees."""

_ASPECTS = (0.2, 5.0)
_FARTHEST = 1e9  # from the origin, the user's units
_OPENCV = np.array([1.0, -1.0, -1.0])  # y down and z ahead


@dataclass(frozen=True, eq=False)
class Request:
    """One picture.

    Args:
        pose: (3, 4) float64.
        fov: vertical, degrees.
        time: in [0, 1].
        size: width and height of the sharp picture, pixels.
        output: one of `VIEWS`.
        threshold: masks below it are coloured in the picture of masks; 0 for none.
        crop: (2, 3) lower and upper corner of what is shown, the user's coordinates; None for all.
        limits: of depth's colours; None for those of the picture itself.
    """

    pose: np.ndarray
    fov: float
    time: float
    size: tuple[int, int]
    output: str = "rgb"
    threshold: float = 0.0
    crop: np.ndarray | None = None
    limits: DepthRange | None = None


def bounded(value: Any, limits: tuple[float, float], otherwise: float) -> float:
    """`value` moved into `limits`; `otherwise` for what is no number.

    Example:
        >>> bounded(9.0, (0.0, 1.0), 0.5), bounded(float("nan"), (0.0, 1.0), 0.5)
        (1.0, 0.5)
    """
    known = isinstance(value, (int, float)) and math.isfinite(value)
    return float(min(max(value, limits[0]), limits[1])) if known else otherwise


def vector(values: Any, length: int) -> np.ndarray | None:
    """(length,) float64 of numbers that are finite and not too large; None of anything else."""
    try:
        found = np.asarray(values, np.float64)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if found.shape == (length,) and (np.abs(found) <= _FARTHEST).all() else None


def picture_size(edge: Any, aspect: Any) -> tuple[int, int]:
    """Width and height of a picture by its longer edge, and width over height."""
    edge, aspect = bounded(edge, EDGES, EDGES[0]), bounded(aspect, _ASPECTS, 1.0)
    width, height = (edge, edge / aspect) if aspect > 1 else (edge * aspect, edge)
    return max(1, round(width)), max(1, round(height))


def scaled_size(size: tuple[int, int], pixels: float) -> tuple[int, int]:
    """The size of the same shape with so many pixels, about; `size` itself where it has no more."""
    width, height = size
    factor = math.sqrt(pixels / (width * height))
    return size if factor >= 1 else (max(1, round(width * factor)), max(1, round(height * factor)))


def from_browser(wxyz: Any, position: Any) -> np.ndarray | None:
    """(3, 4) pose of a browser's camera: quaternion and position, OpenCV's axes; None if it is none."""
    wxyz, position = vector(wxyz, 4), vector(position, 3)
    if wxyz is None or position is None:
        return None
    length = np.linalg.norm(wxyz)
    if not 0.5 < length < 2:
        return None
    w, *v = wxyz / length
    cross = np.cross(np.eye(3), v)  # the matrix that multiplies from the left by v x
    rotation = np.eye(3) + 2 * w * cross + 2 * cross @ cross
    return np.column_stack([rotation * _OPENCV, position])


def to_browser(pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rotation (3, 3) and position (3,) of a pose for a browser."""
    return pose[:, :3] * _OPENCV, pose[:, 3]
