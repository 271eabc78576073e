"""Motion seen by two cameras, compared along epipolar lines.

What moves in a half plane through both camera centres is seen by both on one line each. The largest motion on each
such line at each time is a barcode, and the barcodes of two cameras agree if their poses and times are right, however
different the pictures look.

Letters: C cameras, T frames, P pixels of a reduced image, B lines.

Source: Ben-Artzi, Kasten, Peleg, Werman 2016, "Camera Calibration from Dynamic Silhouettes Using Motion Barcodes".
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from msth_taichi.checking.geometry import central, grid_directions, half_plane
from msth_taichi.checking.samples import View
from msth_taichi.scene.cameras import Cameras

MAX_LAG = 15
NEIGHBOURS = 6
LEAST_FRAMES = 12
LEAST_LINES = 8

_NOISE = 4.0  # motion below so many times the camera's median frame difference is noise
_STRONGEST = 20.0  # grey levels; a stronger change says no more than "something moves"
_ALONG_AXIS = 0.05  # sine to the axis below which a ray has no clear half plane
_TREND = 15  # frames: slower changes do not tell the time

Signs = tuple[int, int, int]
"""Factors of a pose's x, y and z axes, to try out poses with flipped ones."""

UNCHANGED: Signs = (1, 1, 1)


@dataclass(frozen=True, eq=False)
class Motion:
    """How much each pixel changes from frame to frame.

    Args:
        camera: row of the scene's cameras.
        strength: (P, T) float32, 0 where nothing moves.
        local: (P, 3) directions of the pixels in the camera's axes.
        pixel: angle of a pixel, radians.
    """

    camera: int
    strength: np.ndarray
    local: np.ndarray
    pixel: float


def motion_of(view: View, cameras: Cameras) -> Motion | None:
    """None for a camera without motion, or of whose rays not all start in one point."""
    if len(view.grey) < LEAST_FRAMES or not central(cameras, view.camera):
        return None
    change = np.abs(np.diff(_smooth(view.grey), axis=0))
    noise = max(float(np.median(change)), 0.25)
    change = np.clip(change - _NOISE * noise, 0, _STRONGEST)
    if not change.any():
        return None
    height, width = change.shape[1:]
    local = grid_directions(cameras, view.camera, width, height)
    middle = height // 2 * width + width // 2
    pixel = float(np.arccos(np.clip(local[middle] @ local[middle - 1], -1, 1)))
    return Motion(view.camera, np.ascontiguousarray(change.reshape(len(change), -1).T), local, pixel)


def energy(view: View) -> np.ndarray:
    """(T - 1,) root of the mean absolute difference between neighbouring frames."""
    return np.sqrt(np.abs(np.diff(view.grey, axis=0)).mean((1, 2)))


def neighbours(position: np.ndarray, count: int = NEIGHBOURS) -> list[tuple[int, int]]:
    """Pairs (i, j), i < j, of each camera (C, 3) with those nearest to it, not at its very place."""
    pairs = set()
    apart = np.linalg.norm(position[:, None] - position[None], axis=2)
    apart[apart < 1e-6 * max(apart.max(), 1e-12)] = np.inf
    for i, row in enumerate(apart):
        pairs |= {(min(i, j), max(i, j)) for j in np.argsort(row)[:count].tolist() if np.isfinite(row[j])}
    return sorted(pairs)


def barcodes(a: Motion, b: Motion, pose_a: np.ndarray, pose_b: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Barcodes (T, B) of two cameras on the lines that both have in view; None if these are too few.

    Args:
        pose_a: (3, 4) camera-to-world; a mirrored one serves to try out flipped axes.
        pose_b: (3, 4) camera-to-world.
    """
    axis = pose_b[:, 3] - pose_a[:, 3]
    count = int(np.clip(2 * np.pi / (2.5 * max(a.pixel, b.pixel)), 64, 2048))
    rows = []
    for motion, rotation in ((a, pose_a[:, :3]), (b, pose_b[:, :3])):
        angle, sine = half_plane(motion.local @ rotation.T, axis)
        line = ((angle + np.pi) / (2 * np.pi) * count).astype(int) % count
        rows.append((line, sine > _ALONG_AXIS, motion.strength))
    both = np.ones(count, bool)
    for line, clear, _ in rows:
        both &= np.bincount(line[clear], minlength=count) > 0
    if both.sum() < LEAST_LINES:
        return None
    one, other = (_strongest(line, clear & both[line], strength) for line, clear, strength in rows)
    return one, other


def similarity(a: np.ndarray, b: np.ndarray, lag: int = 0) -> float:
    """Correlation of a[t + lag] with b[t] over all lines, in [-1, 1]; 0 where one of them does not move."""
    a, b = a[max(lag, 0) : len(a) + min(lag, 0)], b[max(-lag, 0) : len(b) - max(lag, 0)]
    a, b = a - a.mean(), b - b.mean()
    size = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / size) if size > 1e-9 else 0.0


def lags(frames: int) -> range:
    """The lags that a stretch of so many frames can tell apart."""
    most = min(MAX_LAG, frames // 3)
    return range(-most, most + 1)


def lag_curve(a: np.ndarray, b: np.ndarray, over: Sequence[int]) -> np.ndarray:
    """Correlation of what changes quickly in two signals (T, ...), for each lag of a behind b."""
    length = min(len(a), len(b))
    a, b = without_trend(a[:length]), without_trend(b[:length])
    return np.array([similarity(a, b, lag) for lag in over])


def chance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Correlations when the lines of b are moved by too much to be right."""
    count = a.shape[1]
    moves = range(count // 4, count - count // 4, max(count // 16, 1))
    return np.array([similarity(a, np.roll(b, move, 1)) for move in moves])


def without_trend(signal: np.ndarray) -> np.ndarray:
    """A signal (T, ...) less its moving average."""
    width = min(_TREND, len(signal) // 2 * 2 - 1)
    padded = np.concatenate([signal[:1].repeat(width // 2 + 1, 0), signal, signal[-1:].repeat(width // 2, 0)])
    total = padded.astype(np.float64).cumsum(0)
    return signal - (total[width:] - total[:-width]) / width


def _strongest(line: np.ndarray, used: np.ndarray, strength: np.ndarray) -> np.ndarray:
    pixels = np.flatnonzero(used)
    pixels = pixels[np.argsort(line[pixels], kind="stable")]
    starts = np.flatnonzero(np.diff(line[pixels], prepend=-1))
    return np.maximum.reduceat(strength[pixels], starts, axis=0).T


def _smooth(grey: np.ndarray) -> np.ndarray:
    """1-2-1 in both directions of the image."""
    wide = np.pad(grey, ((0, 0), (1, 1), (1, 1)), mode="edge")
    wide = wide[:, :-2] + 2 * wide[:, 1:-1] + wide[:, 2:]
    return (wide[..., :-2] + 2 * wide[..., 1:-1] + wide[..., 2:]) / 16
