"""Smooth curves through poses, and poses made smooth.

A pose is a position in R^3 and a rotation in SO(3), each with a curve of its own. Letters: K keys, F places on the
curve, n numbers a key; h steps between knots, w angular velocities in the axes of the key.
"""

import numpy as np

_FLATTEN = 1e-4


def pose_spline(knots: np.ndarray, poses: np.ndarray, at: np.ndarray, period: float | None = None) -> np.ndarray:
    """The C1 curve through poses at their knots.

    Positions follow a cubic Hermite spline with Catmull-Rom's slopes for uneven knots. Rotations follow its
    counterpart on SO(3): with the cumulative Bernstein polynomials b_k of the share x of the way from key i to i + 1,

        R(x) = R_i exp(b_1 w_i h / 3) exp(b_2 v) exp(b_3 w_{i+1} h / 3)
        b_1 = 1 - (1 - x)^3,  b_2 = 3 x^2 - 2 x^3,  b_3 = x^3,  v such that R(1) = R_{i+1}

    which turns by w_i at key i.

    Args:
        knots: (K,) ascending.
        poses: (K, 3, 4) rigid.
        at: (F,) places; those outside of the knots are at the nearer end.
        period: of a closed curve, longer than from the first knot to the last; None for an open one.
    Returns:
        (F, 3, 4) float64, rigid; a key where `at` is its knot.
    Source: Kim, Kim and Shin 1995, A General Construction Scheme for Unit Quaternion Curves.

    Example:
        >>> pose_spline(np.array([0.0, 1.0]), poses, np.array([0.5])).shape
        (1, 3, 4)
    """
    knots, poses, at = _unrolled(np.asarray(knots, np.float64), _rigid(poses), np.asarray(at, np.float64), period)
    if len(knots) == 1:
        return np.repeat(poses, len(at), axis=0)
    i, x, h = _segments(knots, at)
    steps = np.diff(knots)[:, None]
    rotation = poses[:, :, :3]
    turn = _log(np.swapaxes(rotation[:-1], 1, 2) @ rotation[1:]) / steps
    w = _slopes(steps, turn)
    first, last = _exp(w[i] * h / 3), _exp(w[i + 1] * h / 3)
    middle = _log(np.swapaxes(first, 1, 2) @ _exp(turn[i] * h) @ np.swapaxes(last, 1, 2))
    b1, b2, b3 = 1 - (1 - x) ** 3, x**2 * (3 - 2 * x), x**3
    turned = rotation[i] @ _exp(b1 * w[i] * h / 3) @ _exp(b2 * middle) @ _exp(b3 * w[i + 1] * h / 3)
    return np.concatenate([turned, _hermite(steps, poses[:, :, 3], i, x)[:, :, None]], axis=2)


def number_spline(knots: np.ndarray, values: np.ndarray, at: np.ndarray, period: float | None = None) -> np.ndarray:
    """(F, n) the positions' curve of `pose_spline`, of any numbers (K, n)."""
    knots, values, at = _unrolled(np.asarray(knots, np.float64), values, np.asarray(at, np.float64), period)
    if len(knots) == 1:
        return np.repeat(values, len(at), axis=0)
    i, x, _ = _segments(knots, at)
    return _hermite(np.diff(knots)[:, None], values, i, x)


def number_line(knots: np.ndarray, values: np.ndarray, at: np.ndarray, period: float | None = None) -> np.ndarray:
    """(F,) straight from key to key through the values (K,): never outside of them."""
    return np.interp(at, knots, values, period=period)


def smoothed_poses(knots: np.ndarray, poses: np.ndarray, at: np.ndarray, width: float) -> np.ndarray:
    """(F, 3, 4) what is left of the way of poses (K, 3, 4) without its shake, at places (F,) within the knots.

    Around each place every number of the poses is fitted by a parabola, keys weighted by a Gaussian of standard
    deviation `width`, so that an even turn is not cut short; the rotation is the one nearest to the fitted matrix.

    Source: Cleveland 1979, Robust Locally Weighted Regression (the local fit); Moakher 2002, Means and Averaging in
        the Group of Rotations (the projection).
    """
    distance = (np.asarray(knots) - np.clip(at, knots[0], knots[-1])[:, None]) / width
    # the nearest counts as 1, so that a wide gap between keys leaves some weight
    weight = np.exp(-0.5 * (distance**2 - (distance**2).min(axis=1, keepdims=True)))
    powers = np.stack([np.ones_like(distance), distance, distance**2], axis=2)
    weighted = (powers * (weight / weight.sum(axis=1, keepdims=True))[:, :, None]).transpose(0, 2, 1)
    # where a window holds too few keys for a parabola, it is flat
    left = weighted @ powers + np.diag([0.0, _FLATTEN, _FLATTEN])
    fit = np.linalg.solve(left, weighted @ np.reshape(poses, (len(poses), 12)))
    return _rigid(fit[:, 0].reshape(-1, 3, 4))


def _unrolled(
    knots: np.ndarray, values: np.ndarray, at: np.ndarray, period: float | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An open curve that shows the whole of a closed one: a key more before it, two after."""
    if period is None or len(knots) == 1:
        return knots, values, at
    around = np.concatenate([knots[-1:] - period, knots, knots[:2] + period])
    return around, np.concatenate([values[-1:], values, values[:2]]), knots[0] + (at - knots[0]) % period


def _segments(knots: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each place its segment (F,), the share (F, 1) of it that is passed, and its length (F, 1)."""
    i = np.clip(np.searchsorted(knots, at, side="right") - 1, 0, len(knots) - 2)
    h = knots[i + 1] - knots[i]
    return i, np.clip((at - knots[i]) / h, 0, 1)[:, None], h[:, None]


def _hermite(steps: np.ndarray, values: np.ndarray, i: np.ndarray, x: np.ndarray) -> np.ndarray:
    slope, h = _slopes(steps, np.diff(values, axis=0) / steps), steps[i]
    start, end = values[i], values[i + 1]
    bend = x * (1 - x) * h * ((1 - x) * slope[i] - x * slope[i + 1])
    return start + x**2 * (3 - 2 * x) * (end - start) + bend


def _slopes(steps: np.ndarray, chords: np.ndarray) -> np.ndarray:
    """(K, n) slopes at the keys of the parabolas through three of them, from the K - 1 slopes between them."""
    before, after = steps[:-1], steps[1:]
    inner = (after * chords[:-1] + before * chords[1:]) / (before + after)
    return np.concatenate([chords[:1], inner, chords[-1:]])


def _exp(vector: np.ndarray) -> np.ndarray:
    """Rotations (..., 3, 3) about vectors (..., 3) by their lengths, radians (Rodrigues)."""
    angle = np.linalg.norm(vector, axis=-1)[..., None, None]
    x, y, z = np.moveaxis(vector, -1, 0)
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1).reshape(*x.shape, 3, 3)
    return np.eye(3) + np.sinc(angle / np.pi) * cross + 0.5 * np.sinc(angle / (2 * np.pi)) ** 2 * cross @ cross


def _log(rotation: np.ndarray) -> np.ndarray:
    """Vectors (K, 3) that `_exp` takes to rotations (K, 3, 3), at most pi long."""
    m = rotation
    trace = np.trace(m, axis1=1, axis2=2)
    # 4 q q^T of the unit quaternion q = (w, x, y, z); its row of the largest diagonal is q without cancellation
    square = np.empty((len(m), 4, 4))
    square[:, 0, 0] = 1 + trace
    square[:, 0, 1:] = np.stack([m[:, 2, 1] - m[:, 1, 2], m[:, 0, 2] - m[:, 2, 0], m[:, 1, 0] - m[:, 0, 1]], axis=1)
    square[:, 1:, 0] = square[:, 0, 1:]
    square[:, 1:, 1:] = m + np.swapaxes(m, 1, 2) + (1 - trace)[:, None, None] * np.eye(3)
    row = np.argmax(np.diagonal(square, axis1=1, axis2=2), axis=1)
    q = square[np.arange(len(m)), row]
    q *= np.where(q[:, :1] < 0, -1.0, 1.0) / np.linalg.norm(q, axis=1, keepdims=True)
    sine = np.linalg.norm(q[:, 1:], axis=1, keepdims=True)
    angle = 2 * np.arctan2(sine, q[:, :1])
    return q[:, 1:] * np.where(sine > 1e-12, angle / np.maximum(sine, 1e-12), 2.0)


def _rigid(poses: np.ndarray) -> np.ndarray:
    """Poses (K, 3, 4) with the rotations nearest to their matrices."""
    poses = np.array(poses, np.float64)
    u, _, v = np.linalg.svd(poses[:, :, :3])
    u[:, :, 2] *= np.linalg.det(u @ v)[:, None]
    poses[:, :, :3] = u @ v
    return poses
