"""Do pictures of neighbouring cameras agree with their poses? By motion where there is any, else by corners.

Letters: C cameras, B lines, M matches.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from msth_taichi.checking.features import Corners, corners, match
from msth_taichi.checking.geometry import directions, focal
from msth_taichi.checking.motion import UNCHANGED, Motion, Signs, barcodes, chance, lag_curve, neighbours, similarity
from msth_taichi.checking.samples import View
from msth_taichi.scene.cameras import Cameras

PARTNERS = 4
"""Neighbours that a camera's corners are compared with."""

LEAST_MATCHES = 40
CLOSE = 0.01
"""Share of the image's diagonal within which a match lies on its epipolar line."""


Lines = tuple[np.ndarray, np.ndarray]


class Evidence(Protocol):
    """How well cameras fit their neighbours: 1 perfectly, `chance` not at all."""

    kind: str
    chance: float
    ignored: frozenset[int]
    """Cameras known to be wrong: their neighbours are not judged by them."""

    def fit(self, i: int, signs: Signs = UNCHANGED, partners: Signs = UNCHANGED) -> float:
        """Of the i-th camera looked at, with its pose's axes, and those of its neighbours', multiplied by signs.

        NaN where nothing tells.
        """
        ...


@dataclass(eq=False)
class MotionEvidence:
    """Correlation of motion along epipolar lines, median over a camera's neighbours.

    Args:
        motions: of each camera looked at.
        poses: (C, 3, 4) camera-to-world.
        frames: how many each camera is behind the others.
    """

    motions: Sequence[Motion | None]
    poses: np.ndarray
    frames: Sequence[int]
    kind: str = "motion along epipolar lines"
    chance: float = 0.0
    ignored: frozenset[int] = frozenset()
    _lines: dict[tuple[int, int], Lines | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.pairs = neighbours(self.poses[:, :, 3])
        self._lines = {(i, j): self._barcodes(i, j) for i, j in self.pairs}
        guesses = [chance(*lines) for lines in self._lines.values() if lines is not None]
        self.chance = float(np.median(np.concatenate(guesses))) if guesses else 0.0

    def curves(self, over: range) -> dict[tuple[int, int], np.ndarray]:
        """Correlation of pairs over lags, for `solve_lags`."""
        return {pair: lag_curve(*lines, over) for pair, lines in self._lines.items() if lines is not None}

    def fit(self, i: int, signs: Signs = UNCHANGED, partners: Signs = UNCHANGED) -> float:
        scores = []
        for a, b in self.pairs:
            if i not in (a, b):
                continue
            j = b if i == a else a
            if j in self.ignored:
                continue
            if signs == partners == UNCHANGED:
                lines = self._lines[a, b]
                lag = self.frames[a] - self.frames[b]
            else:
                lines = self._barcodes(i, j, signs, partners)
                lag = self.frames[i] - self.frames[j]
            scores.append(np.nan if lines is None else similarity(*lines, lag))
        # half of the neighbours have to have lines in common
        told = np.array(scores)[np.isfinite(scores)]
        return float(np.median(told)) if len(told) and 2 * len(told) >= len(scores) else float("nan")

    def _barcodes(self, i: int, j: int, signs: Signs = UNCHANGED, partners: Signs = UNCHANGED) -> Lines | None:
        a, b = self.motions[i], self.motions[j]
        if a is None or b is None:
            return None
        lines = barcodes(a, b, self.poses[i] * _columns(signs), self.poses[j] * _columns(partners))
        if lines is None:
            return None
        length = min(len(lines[0]), len(lines[1]))
        return lines[0][:length], lines[1][:length]


@dataclass(eq=False)
class CornerEvidence:
    """Share of corner matches that lie within 1 % of the diagonal of their epipolar lines, less what chance gives."""

    views: Sequence[View]
    cameras: Cameras
    poses: np.ndarray
    kind: str = "corners on epipolar lines"
    chance: float = 0.0
    ignored: frozenset[int] = frozenset()
    matches: Mapping[tuple[int, int], tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        found = [corners(view.stills[len(view.stills) // 2]) if len(view.stills) else None for view in self.views]
        self.matches = {}
        for i, j in _partners(self.poses):
            a, b = found[i], found[j]
            if a is None or b is None:
                continue
            rows = match(a, b)
            if len(rows):
                self.matches[i, j] = (self._local(i, a, rows[:, 0]), self._local(j, b, rows[:, 1]))

    def fit(self, i: int, signs: Signs = UNCHANGED, partners: Signs = UNCHANGED) -> float:
        near, guessed = [], []
        for (a, b), (one, other) in self.matches.items():
            if i not in (a, b):
                continue
            j = b if i == a else a
            if j in self.ignored:
                continue
            mine, theirs = (one, other) if i == a else (other, one)
            mine = mine @ (self.poses[i, :, :3] * signs).T
            theirs = theirs @ (self.poses[j, :, :3] * partners).T
            axis = self.poses[j, :, 3] - self.poses[i, :, 3]
            width, height = self.cameras.size(self.views[i].camera)
            limit = CLOSE * np.hypot(width, height) / focal(self.cameras, self.views[i].camera)
            near.append(_off_line(mine, theirs, axis) < limit)
            shuffled = [_off_line(mine, np.roll(theirs, k, 0), axis) < limit for k in range(1, min(len(mine), 20))]
            guessed.append(np.concatenate(shuffled) if shuffled else np.zeros(0))
        if sum(map(len, near)) < LEAST_MATCHES:
            return float("nan")
        share, luck = np.concatenate(near).mean(), np.concatenate(guessed).mean()
        return float((share - luck) / max(1 - luck, 1e-6))

    def _local(self, i: int, found: Corners, rows: np.ndarray) -> np.ndarray:
        size = np.array(self.cameras.size(self.views[i].camera), np.float64)
        return directions(self.cameras, self.views[i].camera, found.place[rows] * size)


def _partners(poses: np.ndarray) -> list[tuple[int, int]]:
    """Neighbours that look the same way first: corners change with the direction they are seen from."""
    count = len(poses)
    position, look = poses[:, :, 3], poses[:, :, 2]
    spread = max(float(position.std()), 1e-12)
    apart = np.linalg.norm(position[:, None] - position[None], axis=2) / spread
    cost = np.where(apart < 0.01, np.inf, apart + 2 * (1 - look @ look.T))
    nearest = np.linalg.norm(position[:, None] - position[None], axis=2)
    nearest[apart < 0.01] = np.inf
    pairs = set()
    for i in range(count):
        # half of them by place alone, which a wrong direction does not change
        chosen = [*np.argsort(cost[i])[: PARTNERS // 2].tolist(), *np.argsort(nearest[i])[: PARTNERS // 2].tolist()]
        pairs |= {(min(i, j), max(i, j)) for j in chosen if np.isfinite(cost[i, j])}
    return sorted(pairs)


def _columns(signs: Signs) -> np.ndarray:
    """Factors of a pose's four columns: the position stays."""
    return np.array([*signs, 1.0])


def _off_line(a: np.ndarray, b: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """Angle between each ray and the plane of the other and the axis, the larger of the two."""
    axis = axis / max(float(np.linalg.norm(axis)), 1e-12)
    angles = []
    for one, other in ((a, b), (b, a)):
        normal = np.cross(axis, one)
        normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
        angles.append(np.arcsin(np.clip(np.abs((normal * other).sum(1)), 0, 1)))
    return np.maximum(*angles)
