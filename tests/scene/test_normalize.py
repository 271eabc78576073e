"""Axioms of the normalisation: rigid, centred, scaled, upright, and exactly undone."""

import numpy as np
import pytest

from msth_taichi.config import DataConfig
from msth_taichi.scene.normalize import SceneTransform, normalize_poses


def random_poses(seed: int, count: int = 7) -> np.ndarray:
    """Rigid poses in any direction, far from the origin, in float64."""
    generator = np.random.default_rng(seed)
    rotations, _ = np.linalg.qr(generator.normal(size=(count, 3, 3)))
    rotations *= np.sign(np.linalg.det(rotations))[:, None, None]
    positions = generator.normal(size=(count, 3, 1)) * 50 + 1000
    return np.concatenate([rotations, positions], -1)


def assert_rigid(rotations: np.ndarray) -> None:
    identity = np.eye(3)
    assert np.abs(rotations @ np.swapaxes(rotations, -1, -2) - identity).max() < 1e-12
    assert np.allclose(np.linalg.det(rotations), 1)


@pytest.mark.parametrize("seed", range(3))
def test_normalised_cameras_are_rigid_centred_scaled_and_upright(seed):
    poses = random_poses(seed)
    transform = normalize_poses(poses, DataConfig(scale_factor=0.7))
    result = transform.apply_poses(poses)
    assert_rigid(result[:, :, :3])
    assert np.abs(result[:, :, 3].mean(0)).max() < 1e-12
    assert abs(np.abs(result[:, :, 3]).max() - 0.7) < 1e-12
    up = result[:, :, 1].mean(0)
    assert up[2] > 0 and np.abs(up[:2]).max() < 1e-12


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("settings", [{}, {"orientation": "none"}, {"center": False}, {"auto_scale": False}])
def test_undone_exactly(seed, settings):
    poses = random_poses(seed)
    transform = normalize_poses(poses, DataConfig(**settings))
    assert np.abs(transform.invert_poses(transform.apply_poses(poses)) - poses).max() < 1e-9
    points = np.random.default_rng(seed).normal(size=(4, 5, 3)) * 100
    assert np.abs(transform.invert_points(transform.apply_points(points)) - points).max() < 1e-9


def test_points_and_poses_are_moved_alike():
    poses = random_poses(0)
    transform = normalize_poses(poses, DataConfig())
    assert np.allclose(transform.apply_points(poses[:, :, 3]), transform.apply_poses(poses)[:, :, 3])
    # a point in front of a camera stays in front of it, at the distance times the scale
    ahead = poses[0, :, 3] - 2 * poses[0, :, 2]
    moved = transform.apply_poses(poses)[0]
    assert np.allclose(transform.apply_points(ahead), moved[:, 3] - 2 * transform.scale * moved[:, 2])


def test_each_setting_turns_one_part_off():
    poses = random_poses(1)
    assert np.array_equal(normalize_poses(poses, DataConfig(orientation="none")).rotation, np.eye(3))
    assert not normalize_poses(poses, DataConfig(center=False)).translation.any()
    assert normalize_poses(poses, DataConfig(auto_scale=False, scale_factor=0.25)).scale == 0.25


@pytest.mark.parametrize("up", [(0, 0, 1), (0, 0, -1), (0, 1, 0), (1e-7, 0, -1), (1e-13, 1e-13, -1), (0.3, -0.4, -0.5)])
def test_any_up_axis_becomes_z(up):
    up = np.array(up) / np.linalg.norm(up)
    right = np.cross(up, [1.0, 0.2, 0.1])
    right /= np.linalg.norm(right)
    pose = np.stack([right, up, np.cross(right, up), np.zeros(3)], 1)
    rotation = normalize_poses(pose[None], DataConfig()).rotation
    assert_rigid(rotation)
    assert np.allclose(rotation @ up, [0, 0, 1], atol=1e-12)


def test_cameras_without_a_common_up_axis_or_extent_are_left_alone():
    flipped = np.diag([1.0, -1.0, -1.0])
    poses = np.stack([np.eye(3, 4), np.concatenate([flipped, np.zeros((3, 1))], 1)])
    transform = normalize_poses(poses, DataConfig(scale_factor=0.5))
    assert np.array_equal(transform.rotation, np.eye(3)) and transform.scale == 0.5


def test_description_is_exact():
    transform = normalize_poses(random_poses(2), DataConfig())
    again = SceneTransform.from_description(transform.describe())
    assert np.array_equal(again.rotation, transform.rotation)
    assert np.array_equal(again.translation, transform.translation)
    assert again.scale == transform.scale
