"""Camera paths: rigid poses that look at the target, stay where the cameras were, and close."""

import numpy as np
import pytest
import torch

from msth_taichi.errors import RunError
from msth_taichi.rendering.paths import focus_point, look_at, make_path, orbit_poses, spiral_poses, view_rows
from msth_taichi.scene.cameras import make_cameras
from msth_taichi.scene.normalize import SceneTransform
from msth_taichi.scene.scene import Scene, make_images

UP = np.array([0.0, 0.0, 1.0])


def ring(count: int, target: np.ndarray, span: float = 2 * np.pi) -> np.ndarray:
    """Cameras on an arc of `span` around `target`, with uneven heights and distances."""
    noise = np.random.default_rng(0).uniform(-0.2, 0.2, (count, 3))
    angle = np.arange(count) / count * span
    position = target + 2.0 * np.stack([np.cos(angle), np.sin(angle), 0.3 + 0 * angle], axis=1) + noise
    return np.stack([look_at(p, target, UP) for p in position])


def grid(target: np.ndarray) -> np.ndarray:
    """A flat wall of cameras that face forward."""
    places = [np.array([x, -2.0, z]) for x in (-0.5, 0, 0.5) for z in (-0.2, 0.1, 0.3)]
    return np.stack([look_at(place, target, UP) for place in places])


TARGET = np.array([0.3, -0.2, 0.1])
RIGS = {
    "ring": ring(12, TARGET),
    "arc": ring(7, TARGET, span=1.2),
    "grid": grid(TARGET),
    "pair": ring(2, TARGET, span=0.5),
    "single": ring(1, TARGET),
}


def scene(poses: np.ndarray, frames: int = 5, static: bool = True) -> Scene:
    """The last camera is held out; each static camera sees every frame, each moving one a single frame."""
    count = len(poses)
    names = [f"cam{k}" for k in range(count)]
    lenses = [[50.0, 50, 16, 12]] * count, [[0.1] + [0.0] * 7] * count, [1] * count, [[32, 24]] * count
    cameras = make_cameras(poses, *lenses, names)
    if static:
        train = (np.repeat(np.arange(count - 1), frames), np.tile(np.arange(frames), count - 1))
        test = (np.full(frames, count - 1), np.arange(frames)[::-1].copy())
    else:
        frames, train, test = (
            count,
            (np.arange(count - 3),) * 2,
            (np.arange(count - 3, count)[::-1].copy(),) * 2,
        )
    splits = {
        name: make_images(camera, frame / frames, frame, frame, None)
        for name, (camera, frame) in {"train": train, "test": test}.items()
    }
    identity = SceneTransform.identity()
    return Scene("rig", None, cameras, splits, identity, 1.0, frames, 30.0, "multiview", static)


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


@pytest.mark.parametrize("name", ["spiral", "orbit"])
def test_time_sweeps_over_the_frames(name):
    path = make_path(scene(RIGS["ring"], frames=5), name)
    assert len(path) == 5 and path.fps == 30.0
    np.testing.assert_allclose(path.time, [0, 0.2, 0.4, 0.6, 0.8], atol=1e-6)
    longer = make_path(scene(RIGS["ring"], frames=5), name, frames=9)
    assert len(longer) == len(longer.cameras) == 9
    assert (np.diff(longer.time) > 0).all() and longer.time[-1] == path.time[-1]


def test_made_paths_are_pinhole_views_of_the_training_size():
    cameras = make_path(scene(RIGS["ring"]), "orbit", 3).cameras
    assert (cameras.sizes == torch.tensor([32, 24])).all()
    assert cameras.lens.tolist() == [0, 0, 0] and not cameras.distortion.any()
    assert cameras.camera_to_world.dtype == torch.float32 and cameras.camera_to_world.shape == (3, 3, 4)


def test_held_out_camera_runs_through_its_frames():
    path = make_path(scene(RIGS["ring"], frames=5), "test")
    assert path.camera.tolist() == [11] * 5
    np.testing.assert_allclose(path.time, [0, 0.2, 0.4, 0.6, 0.8], atol=1e-6)
    thinned = make_path(scene(RIGS["ring"], frames=5), "test", frames=3)
    assert thinned.time.tolist() == pytest.approx([0, 0.4, 0.8])


def test_held_out_images_of_a_moving_camera_come_in_the_order_of_time():
    path = make_path(scene(RIGS["ring"], static=False), "test")
    assert path.camera.tolist() == [9, 10, 11]
    assert (np.diff(path.time) > 0).all()


def test_view_rows_group_static_cameras_and_sort_by_time():
    images = make_images([4, 2, 4, 2], [0.5, 0.5, 0.0, 0.0], [1, 1, 0, 0], [0, 1, 2, 3], None)
    assert {k: v.tolist() for k, v in view_rows(images, True).items()} == {2: [3, 1], 4: [2, 0]}
    assert [sorted(v.tolist()) for v in view_rows(images, False).values()] == [[0, 1, 2, 3]]


def test_wrong_requests_name_the_option():
    rig = scene(RIGS["ring"])
    with pytest.raises(RunError, match="--path spirall: unknown path; use one of test, spiral, orbit"):
        make_path(rig, "spirall")
    with pytest.raises(RunError, match="--frames 0"):
        make_path(rig, "orbit", 0)
    del rig.splits["test"]
    with pytest.raises(RunError, match="no test views"):
        make_path(rig, "test")
