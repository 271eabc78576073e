"""One similarity between the user's coordinates and the scene's, in float64 and exactly undone.

    p_scene = s (R p_user + t)

Letters: R rotation, t translation, s scale, C cameras.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from msth_taichi.config import DataConfig

# a mean up axis shorter than this says that the cameras share no up direction
_NO_DIRECTION = 1e-6


@dataclass(frozen=True, eq=False)
class SceneTransform:
    """p_scene = scale (rotation p_user + translation).

    Args:
        rotation: (3, 3) float64.
        translation: (3,) float64, user units.
        scale: scene units per user unit.

    Example:
        >>> SceneTransform(np.eye(3), np.array([0.0, 0.0, 1.0]), 0.5).apply_points(np.zeros((1, 3)))
        array([[0. , 0. , 0.5]])
    """

    rotation: np.ndarray
    translation: np.ndarray
    scale: float

    @staticmethod
    def identity() -> "SceneTransform":
        return SceneTransform(np.eye(3), np.zeros(3), 1.0)

    def apply_points(self, points: np.ndarray) -> np.ndarray:
        """(..., 3) user coordinates to scene coordinates."""
        return self.scale * (np.asarray(points, np.float64) @ self.rotation.T + self.translation)

    def invert_points(self, points: np.ndarray) -> np.ndarray:
        """(..., 3) scene coordinates to user coordinates."""
        return (np.asarray(points, np.float64) / self.scale - self.translation) @ self.rotation

    def apply_poses(self, poses: np.ndarray) -> np.ndarray:
        """(..., 3, 4) camera-to-world in user coordinates to scene coordinates; stays rigid."""
        poses = np.asarray(poses, np.float64)
        position = self.apply_points(poses[..., :3, 3])[..., None]
        return np.concatenate([self.rotation @ poses[..., :3, :3], position], -1)

    def invert_poses(self, poses: np.ndarray) -> np.ndarray:
        """(..., 3, 4) camera-to-world in scene coordinates to user coordinates."""
        poses = np.asarray(poses, np.float64)
        position = self.invert_points(poses[..., :3, 3])[..., None]
        return np.concatenate([self.rotation.T @ poses[..., :3, :3], position], -1)

    def describe(self) -> dict[str, Any]:
        """Plain values that `from_description` turns back into an equal transform."""
        return {
            "rotation": self.rotation.tolist(),
            "translation": self.translation.tolist(),
            "scale": self.scale,
        }

    @staticmethod
    def from_description(values: dict[str, Any]) -> "SceneTransform":
        rotation = np.asarray(values["rotation"], np.float64).reshape(3, 3)
        return SceneTransform(
            rotation, np.asarray(values["translation"], np.float64).reshape(3), float(values["scale"])
        )


def normalize_poses(poses: np.ndarray, config: DataConfig) -> SceneTransform:
    """The transform that orients, centres and scales cameras as `config` asks.

    Orientation "up" turns the mean of the cameras' y axes to +z by the smallest rotation, "forward" the mean of their
    z axes to +z and then that of their y axes to +y; centring moves the
    mean camera position to the origin; auto_scale makes the largest absolute camera coordinate 1; then
    scale_factor applies.

    Args:
        poses: (C, 3, 4) camera-to-world of the cameras of all splits, user coordinates.
    Source: nerfstudio (Tancik et al. 2023), `auto_orient_and_center_poses` with "up" and "poses".

    Example:
        >>> transform = normalize_poses(np.eye(4)[None, :3], DataConfig())
        >>> transform.apply_points(np.array([0.0, 2.0, 0.0]))
        array([0., 0., 1.])
    """
    poses = np.asarray(poses, np.float64)
    rotation = np.eye(3)
    if config.orientation == "up":
        rotation = _turn_to_z(poses[:, :, 1].mean(0))
    elif config.orientation == "forward":
        rotation = _turn_forward(poses[:, :, 1].mean(0), poses[:, :, 2].mean(0))
    positions = poses[:, :, 3] @ rotation.T
    translation = -positions.mean(0) if config.center else np.zeros(3)
    largest = np.abs(positions + translation).max()
    scale = config.scale_factor
    # cameras that all stand at the origin give no length to scale by
    if config.auto_scale and largest > 1e-9:
        scale /= largest
    return SceneTransform(rotation, translation, float(scale))


def _turn_forward(up: np.ndarray, back: np.ndarray) -> np.ndarray:
    """The rotation that takes the direction `back` to +z and `up`, as far as it is across, to +y."""
    if np.linalg.norm(back) < _NO_DIRECTION:
        return np.eye(3)
    z = back / np.linalg.norm(back)
    x = np.cross(up, z)
    if np.linalg.norm(x) < _NO_DIRECTION:
        x = np.cross(np.eye(3)[np.argmin(np.abs(z))], z)
    x /= np.linalg.norm(x)
    return np.stack([x, np.cross(z, x), z])


def _turn_to_z(up: np.ndarray) -> np.ndarray:
    """The smallest rotation that takes the direction `up` to +z (Rodrigues)."""
    length = np.linalg.norm(up)
    if length < _NO_DIRECTION:
        return np.eye(3)
    x, y, z = up / length
    sine2 = x * x + y * y
    if z < 0 and sine2 < 1e-24:
        return np.diag([1.0, -1.0, -1.0])  # half a turn: every horizontal axis is as good
    # I + [v]x + [v]x^2 / (1 + cos), v = up x z; 1 + cos written so that it does not cancel near half a turn
    v = np.array([[0, 0, -x], [0, 0, -y], [x, y, 0]])
    return np.eye(3) + v + v @ v / (1 + z if z >= 0 else sine2 / (1 - z))
