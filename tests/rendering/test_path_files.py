"""Path files: what is written is read back, nerfstudio's files are understood, and bad ones get one line."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from msth_taichi.config import DataConfig
from msth_taichi.errors import RunError
from msth_taichi.lenses import EQUIRECTANGULAR, FISHEYE, LENS_NAMES, PINHOLE, STEREO_360
from msth_taichi.rendering.path_files import Lens, PathFile, PathKey, read_path, write_path
from msth_taichi.rendering.paths import CameraPath, make_path
from msth_taichi.scene.normalize import SceneTransform, normalize_poses
from msth_taichi.scene.scene import Scene
from tests.rendering.rigs import RIGS, TARGET, ring, scene
from tests.rendering.test_splines import turned

POSES = ring(4, TARGET)
# the user's z is the scene's y, and a unit of the user's is a fifth of the scene's
TRANSFORM = SceneTransform(turned(np.array([[-np.pi / 2, 0, 0]]))[0], np.array([1.0, 2.0, 3.0]), 0.2)


@pytest.fixture
def rig() -> Scene:
    return dataclasses.replace(scene(RIGS["ring"]), transform=TRANSFORM)


def keys(**each: list[Any]) -> list[dict[str, Any]]:
    """Keys at `POSES`, in the user's coordinates, with a value each of other settings."""
    made = [{"pose": pose} for pose in TRANSFORM.invert_poses(POSES).tolist()]
    for name, values in each.items():
        for key, value in zip(made, values, strict=True):
            key[name] = value
    return made


def along(rig: Scene, tmp_path: Path, values: Any, **options) -> CameraPath:
    file = tmp_path / "path.json"
    file.write_text(values if isinstance(values, str) else json.dumps(values))
    return make_path(rig, str(file), **options)


def poses_of(path: CameraPath) -> np.ndarray:
    return path.cameras.camera_to_world.numpy()


def test_what_is_written_is_read_back(rig, tmp_path):
    path = PathFile(
        keys=[PathKey(**key) for key in keys(time=[0, 0.5, 0.5, 1], seconds=[0, 1.5, 2, 4], fov=[40, 50, 60, 70])],
        **{"lens": "fisheye", "width": 640, "height": 360, "cx": 300.0, "distortion": {"k1": 0.1}, "fps": 25.0},
    )
    write_path(tmp_path / "path.json", path)
    assert read_path(tmp_path / "path.json", rig) == path
    assert [file.name for file in tmp_path.iterdir()] == ["path.json"]
    np.testing.assert_array_equal(path.poses, TRANSFORM.invert_poses(POSES))


def test_every_lens_can_be_written_and_seen_through(rig, tmp_path):
    assert set(get_args(Lens)) == set(LENS_NAMES)
    for lens in LENS_NAMES:
        write_path(tmp_path / f"{lens}.json", PathFile(keys=[PathKey(**key) for key in keys()], lens=lens, fl_x=40.0))
        cameras = make_path(rig, str(tmp_path / f"{lens}.json"), 3).cameras
        assert {LENS_NAMES[code] for code in cameras.lens.tolist()} == {lens}


def test_a_path_passes_through_its_keys_in_scene_coordinates(rig, tmp_path):
    path = along(rig, tmp_path, {"keys": keys(seconds=[0, 1, 2, 4]), "fps": 10})
    assert len(path) == 41 and path.fps == 10
    np.testing.assert_allclose(poses_of(path)[[0, 10, 20, 40]], POSES, atol=1e-5)
    np.testing.assert_allclose(path.time, np.linspace(0, 0.8, 41), atol=1e-6)  # as the scene plays


def test_keys_without_seconds_are_spread_evenly(rig, tmp_path):
    path = along(rig, tmp_path, {"keys": keys(), "fps": 10, "seconds": 3})
    np.testing.assert_allclose(poses_of(path)[::10], POSES, atol=1e-5)
    # without a length the video is as long as the scene
    assert len(along(rig, tmp_path, {"keys": keys()})) == rig.num_frames


def test_a_closed_path_comes_back_without_repeating_its_first_frame(rig, tmp_path):
    path = along(rig, tmp_path, {"keys": keys(time=[0, 0.3, 0.6, 0.8]), "fps": 10, "seconds": 4, "closed": True})
    assert len(path) == 40
    np.testing.assert_allclose(poses_of(path)[::10], POSES, atol=1e-5)
    places = poses_of(path)[:, :, 3]
    steps = np.linalg.norm(np.diff(places, axis=0, append=places[:1]), axis=1)
    assert steps[-1] < 2 * steps.max() and steps.min() > 0
    np.testing.assert_allclose(path.time[::10], [0, 0.3, 0.6, 0.8], atol=1e-6)
    assert path.time[35] == pytest.approx(0.4)


def test_times_of_keys_hold_unless_others_are_asked_for(rig, tmp_path):
    values = {"keys": keys(time=[0.2, 0.2, 0.9, 0.1], seconds=[0, 1, 2, 4]), "fps": 10}
    path = along(rig, tmp_path, values)
    assert set(path.time[:11].tolist()) == {np.float32(0.2)}, "frozen between two keys of one time"
    assert path.time[[15, 20, 30, 40]].tolist() == pytest.approx([0.55, 0.9, 0.5, 0.1])
    assert set(along(rig, tmp_path, values, time="freeze=0.7").time.tolist()) == {np.float32(0.7)}
    assert along(rig, tmp_path, values, time="sweep=1:0").time[[0, -1]].tolist() == [1, 0]


def test_speed_fps_and_frames_stretch_a_file(rig, tmp_path):
    values = {"keys": keys(time=[0.2, 0.2, 0.9, 0.1], seconds=[0, 1, 2, 4]), "fps": 10}
    usual = along(rig, tmp_path, values)
    slow = along(rig, tmp_path, values, speed=0.5)
    assert len(slow) == 81 and slow.fps == 10
    np.testing.assert_allclose(poses_of(slow)[::2], poses_of(usual), atol=1e-6)
    assert len(along(rig, tmp_path, values, fps=30.0)) == 121
    assert len(along(rig, tmp_path, values, frames=7)) == 7


def test_a_field_of_view_is_vertical_and_changes_smoothly(rig, tmp_path):
    values = {"keys": keys(fov=[90, 60, 40, 40], seconds=[0, 1, 2, 4]), "fps": 10, "width": 200, "height": 100}
    path = along(rig, tmp_path, values)
    assert path.cameras.size(0) == (200, 100) and path.cameras.lens[0] == PINHOLE
    expected = [50 / math.tan(math.radians(fov / 2)) for fov in (90, 60, 40, 40)]
    np.testing.assert_allclose(path.cameras.intrinsics[[0, 10, 20, 40], 1], expected, rtol=1e-5)
    assert (np.diff(path.cameras.intrinsics[:21, 0].numpy()) > 0).all()
    fisheye = along(rig, tmp_path, {"keys": keys(), "lens": "fisheye", "fov": 180, "width": 100, "height": 100})
    np.testing.assert_allclose(fisheye.cameras.intrinsics[0], [100 / math.pi, 100 / math.pi, 50, 50], rtol=1e-6)


def test_what_a_file_leaves_out_is_the_data_sets(rig, tmp_path):
    cameras = along(rig, tmp_path, {"keys": keys()}).cameras
    assert cameras.size(0) == (32, 24)
    np.testing.assert_allclose(cameras.intrinsics[0], [50, 50, 16, 12], rtol=1e-6)
    larger = along(rig, tmp_path, {"keys": keys(), "width": 64, "height": 48}).cameras
    np.testing.assert_allclose(larger.intrinsics[0], [100, 100, 32, 24], rtol=1e-6)
    assert along(rig, tmp_path, {"keys": keys(), "lens": "equirectangular"}).cameras.size(0) == (48, 24)


def test_lengths_in_a_file_are_the_users(rig, tmp_path):
    eyes = along(rig, tmp_path, {"keys": keys(), "lens": "stereo-360", "eye_distance": 0.5}).cameras
    assert eyes.distortion[0, 0] == pytest.approx(0.5 / 2 * TRANSFORM.scale)
    flat = along(rig, tmp_path, {"keys": keys(), "lens": "orthographic", "fl_x": 40.0}).cameras
    assert flat.intrinsics[0, 0] == pytest.approx(40.0 / TRANSFORM.scale)


def test_the_documented_file_is_one(rig, tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "paths.md").read_text()
    example = page.split("## Path files")[1].split("\n\n")[1]
    path = along(rig, tmp_path, example)
    assert path.fps == 30 and len(path) == 91 and path.cameras.size(0) == (1280, 720)


def test_one_key_is_a_camera_that_stands_still(rig, tmp_path):
    path = along(rig, tmp_path, {"keys": keys()[:1], "seconds": 2, "fps": 5})
    assert len(path) == 11 and np.ptp(poses_of(path), axis=0).max() == 0
    assert len(along(rig, tmp_path, {"keys": [{**keys()[0], "seconds": 0}]})) == 1


def nerfstudio(rig: Scene, **values: Any) -> dict[str, Any]:
    """A file of nerfstudio's viewer that visits `POSES`: one a frame, in the coordinates that it normalises to."""
    user = rig.transform.invert_poses(rig.cameras.camera_to_world.double().numpy())
    normalised = normalize_poses(user, DataConfig(scale_factor=1.0)).apply_poses(TRANSFORM.invert_poses(POSES))
    frames = [
        {"camera_to_world": [*pose.ravel().tolist(), 0.0, 0.0, 0.0, 1.0], "fov": 60.0, "aspect": 16 / 9}
        for pose in normalised
    ]
    return {
        "default_fov": 60.0,
        "default_transition_sec": 2.0,
        "keyframes": [{"matrix": frame["camera_to_world"], "fov": 60.0, "aspect": 1.0} for frame in frames[::2]],
        "camera_type": "perspective",
        "render_height": 108,
        "render_width": 192,
        "fps": 24.0,
        "seconds": 4 / 24,
        "is_cycle": False,
        "smoothness_value": 0.5,
        "camera_path": frames,
        **values,
    }


def test_nerfstudios_path_is_seen_frame_by_frame(rig, tmp_path):
    path = along(rig, tmp_path, nerfstudio(rig))
    assert len(path) == 4 and path.fps == 24.0 and path.cameras.size(0) == (192, 108)
    np.testing.assert_allclose(poses_of(path), POSES, atol=1e-5)
    focal = 54 / math.tan(math.radians(30))
    np.testing.assert_allclose(path.cameras.intrinsics, [[focal, focal, 96, 54]] * 4, rtol=1e-6)
    np.testing.assert_allclose(path.time, np.linspace(0, 0.8, 4), atol=1e-6)
    closed = along(rig, tmp_path, nerfstudio(rig, is_cycle=True))
    np.testing.assert_allclose(poses_of(closed), POSES, atol=1e-5)
    assert len(along(rig, tmp_path, nerfstudio(rig), speed=0.5)) == 7


def test_nerfstudios_times_are_used(rig, tmp_path):
    values = nerfstudio(rig)
    for frame, time in zip(values["camera_path"], [0.1, 0.2, 0.9, 0.4], strict=True):
        frame["render_time"] = time
    assert along(rig, tmp_path, values).time.tolist() == pytest.approx([0.1, 0.2, 0.9, 0.4])


@pytest.mark.parametrize(
    ("camera_type", "lens", "size"),
    [
        ("fisheye", FISHEYE, (192, 108)),
        ("equirectangular", EQUIRECTANGULAR, (192, 108)),
        ("omnidirectional", STEREO_360, (192, 216)),
    ],
)
def test_nerfstudios_camera_types(rig, tmp_path, camera_type, lens, size):
    cameras = along(rig, tmp_path, nerfstudio(rig, camera_type=camera_type)).cameras
    assert cameras.lens.tolist() == [lens] * 4 and cameras.size(0) == size


def broken(**changes: Any) -> dict[str, Any]:
    """A good file with changes to its first key, or, in capitals, to itself."""
    values: dict[str, Any] = {"keys": keys(seconds=[0, 1, 2, 4], time=[0, 0.1, 0.2, 0.3]), "fps": 10}
    for name, value in changes.items():
        target, key = (values, name.lower()) if name.isupper() else (values["keys"][0], name)
        if value is None:
            del target[key]
        else:
            target[key] = value
    return values


SHEARED = [[1, 0.5, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]
MIRRORED = [[-1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]
TRANSPOSED = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [3, 0, 0, 1]]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ("{", "not readable json"),
        ("[]", "not an object with a list 'keys'"),
        ({}, "the path has no 'keys'; add it"),
        (broken(KEYS=[]), "keys = []: "),
        (broken(KEYS=5), "keys = 5: "),
        (broken(pose=None), "keys[0] has no 'pose'; add it"),
        (broken(pose=[[1, 0, 0, 0]]), "keys[0].pose: not 3x4 or 4x4 numbers"),
        (broken(pose=[[1, 0, 0]] * 3), "keys[0].pose[0]"),
        (broken(pose=SHEARED), "keys[0].pose: not rigid (it differs from a rotation by 0.5); remove scale"),
        (broken(pose=MIRRORED), "keys[0].pose: not rigid (it mirrors)"),
        (broken(pose=TRANSPOSED), "keys[0].pose: not rigid (its last row is not 0 0 0 1); transpose"),
        (broken(pose=[[math.nan, 0, 0, 0], *SHEARED[1:]]), "keys[0].pose[0][0] = nan: input should be a finite number"),
        (broken(pose=[[1e300, 0, 0, 0], *SHEARED[1:]]), "keys[0].pose: too large"),
        (broken(time=1.5), "keys[0].time = 1.5: input should be less than or equal to 1"),
        (broken(time=-0.1), "keys[0].time = -0.1: input should be greater than or equal to 0"),
        (broken(time=None), "keys[0] has no 'time', but others have; give it to all or to none"),
        (broken(seconds=None), "keys[0] has no 'seconds', but others have"),
        (broken(seconds=1), "the seconds of the keys do not ascend"),
        (broken(CLOSED=True), "say when the first key comes again"),
        (broken(SECONDS=3), "leave one out"),
        (broken(LENS="vr180"), "lens = 'vr180': input should be 'pinhole'"),
        (broken(LENS="orthographic"), "orthographic, but not with fl_x"),
        (broken(DISTORTION={"k1": 0.1}), "has distortion, but lens pinhole has none; use opencv or fisheye"),
        (broken(DISTORTION={"k9": 0.1}), "distortion.k9"),
        (broken(FOV=180), "fov 180 of lens pinhole; write less than 180 degrees"),
        (broken(fov=0), "keys[0].fov = 0: input should be greater than or equal to 0.01"),
        (broken(fov=60, fl_x=40), "keys[0]: has both fov and fl_x"),
        (broken(fl_y=40), "keys[0]: has fl_y without fl_x"),
        (broken(FPS=0), "fps = 0: "),
        (broken(WIDTH=100000), "width = 100000: "),
        (broken(tme=0.5), "unknown key 'keys[0].tme' (did you mean 'time'?)"),
        (broken(CLOSE=True), "unknown key 'close' (did you mean 'closed'?)"),
    ],
)
def test_a_bad_file_gets_one_line(rig, tmp_path, values, says):
    with pytest.raises(RunError) as error:
        along(rig, tmp_path, values)
    message = str(error.value)
    assert says in message and message.startswith(f"{tmp_path / 'path.json'}: ") and "\n" not in message
    assert len(message) < 300 + len(str(tmp_path))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"camera_path": []}, "camera_path = []"),
        ({"camera_type": "vr180"}, "camera_type 'vr180' is unknown; use one of perspective, fisheye"),
        ({"render_width": 0}, "render_width = 0"),
        ({"camera_path": [{"fov": 50}]}, "camera_path[0] has no 'camera_to_world'"),
        ({"camera_path": [{"camera_to_world": [1.0] * 15}]}, "camera_path[0].camera_to_world"),
        ({"camera_path": [{"camera_to_world": [1.0] * 16}]}, "camera_path[0].camera_to_world: not rigid"),
        (
            {"camera_path": [{"camera_to_world": np.eye(4).ravel().tolist(), "render_time": 2}]},
            "camera_path[0].render_time = 2",
        ),
    ],
)
def test_a_bad_file_of_nerfstudio_gets_one_line(rig, tmp_path, change, says):
    with pytest.raises(RunError) as error:
        along(rig, tmp_path, nerfstudio(rig, **change))
    assert says in str(error.value) and "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_named(rig, tmp_path):
    with pytest.raises(RunError, match=r"none\.json: no such path file"):
        make_path(rig, str(tmp_path / "none.json"))
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(RunError, match="no such path file"):
        make_path(rig, str(tmp_path / "folder.json"))
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(RunError, match="not readable json"):
        make_path(rig, str(tmp_path / "bytes.json"))
