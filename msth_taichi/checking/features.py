"""Corners of two pictures that look alike, in numpy.

Harris corners at two scales, each with a patch turned to the main direction of its gradient and freed of brightness
and contrast; matches are mutual and clearly better than the second best. Meant for pictures from neighbouring views;
for views far apart the motion says more.

Letters: H, W image size, N corners, M matches.

Source: Harris, Stephens 1988; ratio test of Lowe 2004.
"""

from dataclasses import dataclass

import numpy as np

MOST = 600
"""Corners kept of a picture and scale."""

_SCALES = (1, 2)
_PATCH = 13
_STEP = 1.5  # pixels between a patch's samples: wider than the corner itself
_RATIO = 0.85
_LIKE = 0.75  # least correlation of two patches


@dataclass(frozen=True, eq=False)
class Corners:
    """Corners of a picture.

    Args:
        place: (N, 2) x and y as a share of width and height.
        patch: (N, D) float32, mean 0 and length 1.
    """

    place: np.ndarray
    patch: np.ndarray


def corners(image: np.ndarray) -> Corners:
    """Corners of a picture (H, W, 3) uint8."""
    grey = image.astype(np.float32).mean(-1)
    places, patches = [], []
    for scale in _SCALES:
        small = _halved(grey, scale)
        if min(small.shape) < 2 * _PATCH:
            break
        small = _blur(small, 2)
        x, y = _harris(small)
        places.append(np.stack([(x + 0.5) / small.shape[1], (y + 0.5) / small.shape[0]], 1))
        patches.append(_patches(small, x, y))
    if not places:
        return Corners(np.zeros((0, 2)), np.zeros((0, _PATCH**2), np.float32))
    place, patch = np.concatenate(places), np.concatenate(patches)
    clear = np.linalg.norm(patch, axis=1) > 0.5
    return Corners(place[clear], patch[clear])


def match(a: Corners, b: Corners) -> np.ndarray:
    """(M, 2) rows of corners that are each other's best and stand out."""
    if min(len(a.place), len(b.place)) < 3:
        return np.zeros((0, 2), int)
    like = a.patch @ b.patch.T
    best = like.argmax(1)
    mutual = like.argmax(0)[best] == np.arange(len(like))
    top = like[np.arange(len(like)), best]
    # the second best is another thing only where it is another place: a corner is found at both scales
    near = np.abs(b.place[best][:, None] - b.place[None]).max(2) < 0.02
    second = np.where(near, -1.0, like).max(1)
    distance, other = np.sqrt(np.maximum(2 - 2 * top, 0)), np.sqrt(np.maximum(2 - 2 * second, 1e-9))
    chosen = mutual & (top > _LIKE) & (distance < _RATIO * other)
    return np.stack([np.flatnonzero(chosen), best[chosen]], 1)


def _harris(grey: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    dy, dx = np.gradient(grey)
    xx, yy, xy = (_blur(product, 3) for product in (dx * dx, dy * dy, dx * dy))
    score = xx * yy - xy * xy - 0.05 * (xx + yy) ** 2
    border = _PATCH
    score[:border], score[-border:], score[:, :border], score[:, -border:] = 0, 0, 0, 0
    peak = score.copy()
    for rows, columns in ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1)):
        peak = np.maximum(peak, np.roll(score, (rows, columns), (0, 1)))
    y, x = np.nonzero((score >= peak) & (score > 1e-4 * max(float(score.max()), 1.0)))
    strongest = np.argsort(-score[y, x])[:MOST]
    return x[strongest], y[strongest]


def _patches(grey: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    dy, dx = np.gradient(grey)
    turn = np.arctan2(_blur(dy, 8)[y, x], _blur(dx, 8)[y, x])
    step = (np.arange(_PATCH) - _PATCH // 2) * _STEP
    across, down = (axis.ravel() for axis in np.meshgrid(step, step))
    cosine, sine = np.cos(turn)[:, None], np.sin(turn)[:, None]
    patch = _sample(grey, x[:, None] + cosine * across - sine * down, y[:, None] + sine * across + cosine * down)
    patch = patch - patch.mean(1, keepdims=True)
    length = np.linalg.norm(patch, axis=1, keepdims=True)
    return np.where(length > _PATCH, patch / np.maximum(length, 1e-9), 0).astype(np.float32)  # flat ones are no corners


def _sample(grey: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    x, y = np.clip(x, 0, grey.shape[1] - 1.001), np.clip(y, 0, grey.shape[0] - 1.001)
    column, row = x.astype(int), y.astype(int)
    u, v = x - column, y - row
    top = grey[row, column] * (1 - u) + grey[row, column + 1] * u
    return top * (1 - v) + (grey[row + 1, column] * (1 - u) + grey[row + 1, column + 1] * u) * v


def _halved(grey: np.ndarray, factor: int) -> np.ndarray:
    height, width = grey.shape[0] // factor, grey.shape[1] // factor
    return grey[: height * factor, : width * factor].reshape(height, factor, width, factor).mean((1, 3))


def _blur(grey: np.ndarray, times: int) -> np.ndarray:
    for _ in range(times):
        wide = np.pad(grey, 1, mode="edge")
        wide = wide[:-2] + 2 * wide[1:-1] + wide[2:]
        grey = (wide[:, :-2] + 2 * wide[:, 1:-1] + wide[:, 2:]) / 16
    return grey
