"""Where a camera is put: rigid poses that look at the target, stay where the cameras were, and close."""

import numpy as np
import pytest

from msth_taichi.rendering.rigs import focus_point, look_at, orbit_poses, pose_distance, spiral_poses, visiting_order
from tests.rendering.rigs import RIGS, TARGET, UP, ring


def outside_hull(points: np.ndarray, hull: np.ndarray) -> float:
    """How far `points` stick out of the convex hull of `hull`, over many directions."""
    directions = np.random.default_rng(1).normal(size=(2000, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return float(((points @ directions.T).max(0) - (hull @ directions.T).max(0)).max())


@pytest.mark.parametrize("rig", RIGS)
@pytest.mark.parametrize("make", [spiral_poses, orbit_poses])
def test_poses_are_rigid_and_look_at_the_target(make, rig):
    poses = make(RIGS[rig], 24)
    rotation = poses[:, :, :3]
    gram = rotation.transpose(0, 2, 1) @ rotation
    np.testing.assert_allclose(gram, np.broadcast_to(np.eye(3), gram.shape), atol=1e-9)
    np.testing.assert_allclose(np.linalg.det(rotation), 1.0, atol=1e-9)
    assert np.isfinite(poses).all()
    offset = focus_point(RIGS[rig]) - poses[:, :, 3]
    aim = np.einsum("fi,fi->f", offset / np.linalg.norm(offset, axis=1, keepdims=True), -poses[:, :, 2])
    np.testing.assert_allclose(aim, 1.0, atol=1e-9)


@pytest.mark.parametrize("rig", RIGS)
def test_images_are_upright(rig):
    for poses in (spiral_poses(RIGS[rig], 12), orbit_poses(RIGS[rig], 12)):
        assert (poses[:, 2, 1] > 0.5).all()  # y axis of the image against the world's z
        np.testing.assert_allclose(poses[:, :, 0] @ RIGS[rig][:, :, 1].mean(0), 0.0, atol=1e-6)


@pytest.mark.parametrize("rig", RIGS)
def test_spiral_stays_in_the_hull_of_the_cameras(rig):
    path = spiral_poses(RIGS[rig], 60)[:, :, 3]
    assert outside_hull(path, RIGS[rig][:, :, 3]) < 1e-9
    if len(RIGS[rig]) > 2:
        assert np.ptp(path, axis=0).max() > 0.3, "the camera hardly moves"


@pytest.mark.parametrize("rig", ["ring", "arc", "grid"])
@pytest.mark.parametrize("make", [spiral_poses, orbit_poses])
def test_paths_close_without_a_jump(make, rig):
    position = make(RIGS[rig], 60)[:, :, 3]
    steps = np.linalg.norm(np.diff(position, axis=0, append=position[:1]), axis=1)
    assert steps[-1] <= 1.05 * steps.max() and steps[-1] <= 3 * np.median(steps)


def test_orbit_of_a_surrounding_rig_is_a_full_circle():
    target = focus_point(RIGS["ring"])
    offset = orbit_poses(RIGS["ring"], 36)[:, :, 3] - target
    cameras = RIGS["ring"][:, :, 3] - target
    distance = np.linalg.norm(offset, axis=1)
    np.testing.assert_allclose(distance, distance[0], atol=1e-9)
    assert abs(distance[0] - np.linalg.norm(cameras, axis=1).mean()) < 0.05
    assert abs(offset[:, 2].mean() - cameras[:, 2].mean()) < 0.05
    azimuth = np.sort(np.arctan2(offset[:, 1], offset[:, 0]))
    assert np.diff(azimuth, append=azimuth[0] + 2 * np.pi).max() < 2 * np.pi / 36 * 1.2


def test_orbit_of_a_facing_rig_spans_the_rig_only():
    target = focus_point(RIGS["arc"])

    def azimuth(poses: np.ndarray) -> np.ndarray:
        return np.arctan2(poses[:, 1, 3] - target[1], poses[:, 0, 3] - target[0])

    path, rig = azimuth(orbit_poses(RIGS["arc"], 40)), azimuth(RIGS["arc"])
    assert abs(path.min() - rig.min()) < 0.05 and abs(path.max() - rig.max()) < 0.05


def test_focus_point_is_where_the_axes_meet():
    np.testing.assert_allclose(focus_point(RIGS["ring"]), TARGET, atol=5e-3)
    np.testing.assert_allclose(focus_point(RIGS["grid"]), TARGET, atol=5e-2)


def test_parallel_and_outward_axes_are_looked_along():
    parallel = np.stack([look_at(np.array([x, 0.0, 0]), np.array([x, 5.0, 0]), UP) for x in (-1.0, 0, 1)])
    np.testing.assert_allclose(focus_point(parallel), [0, 1, 0], atol=1e-6)
    outward = np.stack([look_at(np.array([x, 0.0, 0]), np.array([3 * x, 2.0, 0]), UP) for x in (-0.5, 0.5)])
    assert focus_point(outward)[1] > 0


def test_looking_straight_down_still_gives_a_rotation():
    pose = look_at(np.array([0.0, 0, 2]), np.zeros(3), UP)
    np.testing.assert_allclose(pose[:, :3].T @ pose[:, :3], np.eye(3), atol=1e-12)
    np.testing.assert_allclose(pose[:, 2], UP)


def tour_length(poses: np.ndarray, closed: bool) -> float:
    steps = pose_distance(poses, np.roll(poses, -1, axis=0))
    return float(steps.sum() if closed else steps[:-1].sum())


@pytest.mark.parametrize("closed", [True, False])
def test_a_tour_visits_every_camera_once_on_a_short_way(closed):
    shuffled = RIGS["ring"][np.random.default_rng(3).permutation(12)]
    order = visiting_order(shuffled, closed)
    assert sorted(order.tolist()) == list(range(12))
    # the ring in its own order is the shortest way around it
    assert tour_length(shuffled[order], closed) <= tour_length(RIGS["ring"], closed) + 1e-9


def test_an_open_tour_of_a_wall_crosses_nothing():
    wall = RIGS["grid"]
    way = wall[visiting_order(wall, closed=False)]
    # three columns of three, 0.2 and 0.3 apart up, 0.5 apart sideways: 3 x 0.5 up and down, 2 x 0.5 across
    assert np.linalg.norm(np.diff(way[:, :, 3], axis=0), axis=1).sum() == pytest.approx(2.5)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_cameras_are_a_tour_as_well(count):
    for closed in (True, False):
        assert sorted(visiting_order(ring(count, TARGET), closed).tolist()) == list(range(count))
