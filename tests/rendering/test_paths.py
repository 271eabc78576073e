"""Camera paths by name: where they lead, at which times, through which lens."""

import dataclasses

import numpy as np
import pytest
import torch

from msth_taichi.errors import RunError
from msth_taichi.lenses import LENS_NAMES
from msth_taichi.rendering.path_lenses import LENSES
from msth_taichi.rendering.paths import CameraPath, make_path, view_rows
from msth_taichi.rendering.rigs import look_at
from msth_taichi.scene.normalize import SceneTransform
from msth_taichi.scene.scene import Scene, make_images
from tests.rendering.rigs import RIGS, TARGET, UP, scene


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


def assert_rigid(path: CameraPath) -> None:
    rotation = path.cameras.camera_to_world[:, :, :3].double()
    torch.testing.assert_close(rotation.mT @ rotation, torch.eye(3).double().expand_as(rotation), atol=1e-6, rtol=0)


def positions(path: CameraPath) -> np.ndarray:
    return path.cameras.camera_to_world[path.camera, :, 3].numpy()


NAMES = ["spiral", "orbit", "interpolate", "test", "train", "train:1", "test:test00", "train:cam02"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("time", ["play", "freeze=0.25", "sweep=1:0", "ping-pong"])
def test_every_path_goes_with_every_time(tiny_scene, name, time):
    path = make_path(tiny_scene, name, time=time, speed=0.5, fps=24.0)
    assert_rigid(path)
    assert len(path) == len(path.time) and path.fps == 24.0
    assert path.time.min() >= 0 and path.time.max() <= 1 and path.time.dtype == np.float32
    assert path.camera.min() >= 0 and path.camera.max() < len(path.cameras)


@pytest.mark.parametrize("name", ["spiral", "test", "train:0"])
@pytest.mark.parametrize("lens", LENSES)
def test_every_path_goes_through_every_lens(tiny_scene, name, lens):
    path = make_path(tiny_scene, name, lens=lens, size=(40, 20))
    assert {LENS_NAMES[code] for code in path.cameras.lens.tolist()} == {lens}
    assert path.cameras.sizes.unique(dim=0).tolist() == [[40, 20]]
    assert_rigid(path)


def test_eyes_are_six_and_a_half_centimetres_apart_in_the_users_units():
    rig = dataclasses.replace(scene(RIGS["ring"]), transform=SceneTransform(np.eye(3), np.zeros(3), 0.2))
    cameras = make_path(rig, "orbit", lens="stereo-360").cameras
    torch.testing.assert_close(2 * cameras.distortion[:, 0], torch.full((5,), 0.065 * 0.2))


def test_interpolation_passes_through_every_training_camera_and_closes():
    ring = scene(RIGS["ring"], frames=5)
    path = positions(make_path(ring, "interpolate", 4000))
    cameras = RIGS["ring"][:-1, :, 3]
    assert np.linalg.norm(path[:, None] - cameras, axis=2).min(axis=0).max() < 0.01
    steps = np.linalg.norm(np.diff(path, axis=0, append=path[:1]), axis=1)
    assert steps[-1] < 3 * np.median(steps)


def test_interpolation_of_a_rig_that_faces_forward_begins_and_ends_at_a_camera():
    arc = scene(RIGS["arc"])
    path = positions(make_path(arc, "interpolate", 50))
    distance = np.linalg.norm(path[[0, -1], None] - RIGS["arc"][:-1, :, 3], axis=2)
    assert distance.min(axis=1).max() < 1e-5 and len(set(distance.argmin(axis=1))) == 2


def test_a_view_of_a_still_rig_is_held_through_time():
    rig = scene(RIGS["ring"], frames=5)
    path = make_path(rig, "train:cam3")
    assert len(path.cameras) == 1 and path.camera.tolist() == [0] * 5 and path.time[-1] == pytest.approx(0.8)
    assert torch.equal(path.cameras.camera_to_world[0], rig.cameras.camera_to_world[3])
    assert path.cameras.lens.tolist() == [1], "keeps its own lens"
    assert torch.equal(make_path(rig, "train:3").cameras.intrinsics, path.cameras.intrinsics)
    assert len(make_path(rig, "train:3", time="freeze=0.5")) == 1
    assert make_path(rig, "test:0").cameras.names == ("cam11",)


def test_a_split_of_still_cameras_shows_each_of_them_at_other_times_too():
    path = make_path(scene(RIGS["pair"], frames=5), "train", time="sweep=0.4:0")
    assert path.camera.tolist() == [0] * 3 and path.time.tolist() == pytest.approx([0.4, 0.2, 0])
    path = make_path(scene(RIGS["arc"], frames=5), "train", time="freeze=0.5")
    assert path.camera.tolist() == list(range(6)) and set(path.time.tolist()) == {0.5}


def test_a_scene_of_one_moment_is_seen_image_by_image():
    photos = dataclasses.replace(scene(RIGS["ring"], frames=1), static_cameras=False)
    for options in ({}, {"fps": 5.0}, {"time": "freeze=0"}):
        assert make_path(photos, "train", **options).camera.tolist() == list(range(11))
    assert make_path(photos, "train", fps=5.0).fps == 5.0
    assert len(make_path(photos, "train:2")) == 1
    assert len(make_path(photos, "interpolate")) == 120


def moving(count: int = 40, shake: float = 0.0) -> Scene:
    """A camera that goes half around the target, and shakes."""
    angle = np.linspace(0, np.pi, count)
    place = TARGET + 2 * np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1)
    place += shake * np.random.default_rng(0).normal(size=place.shape)
    return scene(np.stack([look_at(p, TARGET, UP) for p in place]), static=False)


def test_a_moving_camera_is_followed_at_any_frame_rate():
    rig = moving()
    path = make_path(rig, "interpolate", fps=60.0)
    assert len(path) == 2 * len(make_path(rig, "interpolate")) - 1
    np.testing.assert_allclose(positions(path)[::2], rig.cameras.camera_to_world[:37, :, 3].numpy(), atol=1e-5)
    back = make_path(rig, "interpolate", time="sweep=0.5:0")
    np.testing.assert_allclose(positions(back), positions(make_path(rig, "interpolate", time="sweep=0:0.5"))[::-1])
    assert len(np.unique(positions(make_path(rig, "interpolate", time="freeze=0.5")), axis=0)) == 37
    assert_rigid(path)


def test_a_stabilised_path_follows_without_the_shake():
    clean, shaken = moving(160), moving(160, shake=0.05)
    path = positions(make_path(shaken, "stabilised"))
    before, true = (rig.cameras.camera_to_world[:157, :, 3].numpy() for rig in (shaken, clean))

    def jerk(places: np.ndarray) -> float:
        return float(np.linalg.norm(np.diff(places, n=2, axis=0), axis=1).mean())

    assert jerk(path) < 0.1 * jerk(before)
    assert np.linalg.norm(path - true, axis=1).max() < 0.1
    assert_rigid(make_path(shaken, "stabilised", time="freeze=0.2"))


def test_one_image_of_a_moving_camera_is_held_still():
    path = make_path(moving(), "train:cam7", time="ping-pong")
    assert len(path.cameras) == 1 and len(set(path.time.tolist())) > 30


def test_view_rows_group_static_cameras_and_sort_by_time():
    images = make_images([4, 2, 4, 2], [0.5, 0.5, 0.0, 0.0], [1, 1, 0, 0], [0, 1, 2, 3], None)
    assert {k: v.tolist() for k, v in view_rows(images, True).items()} == {2: [3, 1], 4: [2, 0]}
    assert [sorted(v.tolist()) for v in view_rows(images, False).values()] == [[0, 1, 2, 3]]


def test_wrong_requests_name_the_option():
    rig = scene(RIGS["ring"])
    with pytest.raises(RunError, match="--path spirall: unknown path; use one of test, train, spiral, orbit"):
        make_path(rig, "spirall")
    with pytest.raises(RunError, match="--path stabilised: the cameras of this scene stand still; use --path interp"):
        make_path(rig, "stabilised")
    with pytest.raises(
        RunError, match=r"--path train:cam12: no such view; use a number below 11 .* cam0, cam1, .*\.\.\.$"
    ):
        make_path(rig, "train:cam12")
    with pytest.raises(RunError, match="--path val: the run holds no val views"):
        make_path(rig, "val:0")
    with pytest.raises(RunError, match="--lens vr180"):
        make_path(rig, "orbit", lens="vr180")
    with pytest.raises(RunError, match="--size 12"):
        make_path(rig, "orbit", size="12")
    with pytest.raises(RunError, match="--frames 0"):
        make_path(rig, "orbit", 0)
    del rig.splits["test"]
    with pytest.raises(RunError, match="no test views"):
        make_path(rig, "test")
