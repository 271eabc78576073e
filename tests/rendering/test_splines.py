"""Curves through poses: they pass through the keys, without a kink, and stay rigid."""

import numpy as np
import pytest

from msth_taichi.rendering.splines import number_line, number_spline, pose_spline, smoothed_poses

KNOTS = np.array([0.0, 0.4, 1.5, 1.9, 4.0, 4.7])
PERIOD = 5.5


def turned(vectors: np.ndarray) -> np.ndarray:
    """Rotations about vectors (K, 3) by their lengths: the exponential series of their cross product matrices."""
    x, y, z = vectors.T
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=1).reshape(-1, 3, 3)
    total, term = np.zeros_like(cross), np.broadcast_to(np.eye(3), cross.shape)
    for k in range(1, 60):
        total, term = total + term, term @ cross / k
    return total


def random_poses(count: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    rotation = turned(generator.normal(size=(count, 3)))
    return np.concatenate([rotation, generator.normal(size=(count, 3, 1))], axis=2)


def assert_rigid(poses: np.ndarray) -> None:
    gram = np.swapaxes(poses[:, :, :3], 1, 2) @ poses[:, :, :3]
    np.testing.assert_allclose(gram, np.broadcast_to(np.eye(3), gram.shape), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(poses[:, :, :3]), 1.0, atol=1e-12)


@pytest.mark.parametrize("period", [None, PERIOD])
def test_the_curve_passes_through_its_keys(period):
    poses = random_poses(len(KNOTS))
    np.testing.assert_allclose(pose_spline(KNOTS, poses, KNOTS, period), poses, atol=1e-12)
    assert_rigid(pose_spline(KNOTS, poses, np.linspace(-1, 7, 500), period))


@pytest.mark.parametrize("period", [None, PERIOD])
def test_the_curve_has_no_kink(period):
    """Velocities and angular velocities left and right of each key agree."""
    poses, step = random_poses(len(KNOTS), seed=1), 1e-5
    inner = KNOTS[1:-1] if period is None else KNOTS
    before, here, after = (pose_spline(KNOTS, poses, inner + d, period) for d in (-step, 0.0, step))
    speed = np.abs((after - here) / step).max()
    assert np.abs((after - here) - (here - before)).max() / step < 1e-3 * speed


def test_a_closed_curve_closes():
    poses = random_poses(len(KNOTS))
    start, end = pose_spline(KNOTS, poses, np.array([0.0, PERIOD - 1e-9]), PERIOD)
    np.testing.assert_allclose(start, end, atol=1e-7)
    between = pose_spline(KNOTS, poses, np.array([KNOTS[-1] + 0.4]), PERIOD)
    assert np.abs(between - poses[-1]).max() > 0.01, "stands still between its last key and its first"


def test_an_even_turn_stays_even():
    axis = np.array([[0.3, 0.0, 0.2]])
    angle = np.array([0.0, 1.0, 2.5, 3.0])
    poses = np.concatenate([turned(angle[:, None] * axis), np.outer(angle, [1, 2, 3])[:, :, None]], axis=2)
    at = np.linspace(0, 3, 31)
    expected = np.concatenate([turned(at[:, None] * axis), np.outer(at, [1, 2, 3])[:, :, None]], axis=2)
    np.testing.assert_allclose(pose_spline(angle, poses, at), expected, atol=1e-12)


def test_half_a_turn_between_two_keys_is_finite_and_rigid():
    poses = np.concatenate([turned(np.array([[0, 0, 0], [0, np.pi, 0], [np.pi, 0, 0.0]])), np.zeros((3, 3, 1))], axis=2)
    path = pose_spline(np.arange(3.0), poses, np.linspace(0, 2, 50))
    assert_rigid(path)


@pytest.mark.parametrize("period", [None, 2.0])
def test_one_key_is_a_camera_that_stands_still(period):
    pose = random_poses(1)
    np.testing.assert_allclose(pose_spline(np.zeros(1), pose, np.arange(3.0), period), pose.repeat(3, axis=0))
    assert number_spline(np.zeros(1), np.ones((1, 2)), np.arange(3.0), period).tolist() == [[1, 1]] * 3


def test_rounded_rotations_come_out_rigid():
    assert_rigid(pose_spline(KNOTS, random_poses(len(KNOTS)).round(4), np.linspace(0, 4, 20)))


def test_a_line_stays_between_its_keys_and_wraps():
    values = np.array([0.0, 1.0, 1.0, 0.2])
    line = number_line(np.arange(4.0), values, np.linspace(0, 4, 401), 4.0)
    assert line.min() >= 0 and line.max() <= 1
    assert line[150] == 1.0  # between two equal keys nothing moves
    assert line[350] == pytest.approx(0.1)


def test_smoothing_takes_the_shake_and_leaves_the_way():
    at = np.linspace(0, 1, 200)
    clean = np.concatenate([turned(np.outer(at, [0, 0, 1.0])), np.outer(at, [2, 0, 0])[:, :, None]], axis=2)
    shake = 0.05 * np.random.default_rng(0).normal(size=(200, 6))
    shaken = clean.copy()
    shaken[:, :, :3] = clean[:, :, :3] @ turned(shake[:, :3])
    shaken[:, :, 3] += shake[:, 3:]
    smooth = smoothed_poses(at, shaken, at, 0.03)
    assert_rigid(smooth)
    inside = slice(20, -20)
    assert np.abs(smooth - clean)[inside].max() < 0.05
    assert np.abs(smooth - clean).max() < 0.1

    def jerk(poses: np.ndarray) -> float:
        return float(np.abs(np.diff(poses, n=2, axis=0))[inside].mean())

    assert jerk(smooth) < 0.05 * jerk(shaken)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_keys_are_smoothed_as_well(count):
    assert_rigid(smoothed_poses(KNOTS[:count], random_poses(count), np.linspace(-1, 5, 20), 0.5))
