"""`convert_video.py`: one's own videos with every kind of calibration."""

import json

import numpy as np
import pytest

from msth_taichi.scene.scene import load_scene
from tests.scene.formats.test_colmap import write_binary
from tests.scene.formats.test_immersive import rig as fisheye_rig  # noqa: F401
from tests.scene.formats.test_immersive import write as write_immersive
from tests.scene.formats.test_n3v import write as write_n3v
from tests.scene.rig import AS_IS, assert_same_scene, room_rig, write_video

SPLITS = {"train": [1, 2, 3], "test": [0]}


@pytest.fixture(scope="module")
def rig():
    return room_rig(cameras=4, frames=3)


@pytest.fixture
def convert(call, tmp_path):
    """convert(calibration, *options) -> exit status, stdout, stderr."""
    from convert_video import convert_video

    def run(calibration, *options):
        return call(
            convert_video,
            *(tmp_path / "in", "--calibration", calibration, "--output", tmp_path / "out"),
            *options,
        )

    return run


def write_videos(rig, folder, late=(0, 0, 0, 0), longer=(0, 0, 0, 0)):
    for v, frames in enumerate(rig.frames):
        before, after = ([np.full_like(frames[0], 99)] * count for count in (late[v], longer[v]))
        write_video(folder / f"cam{v:02d}.mp4", [*before, *frames, *after], rig.fps)


def transforms(rig, name="images/cam{:02d}.png", **changes):
    """nerfstudio's json as a calibration of one image a camera writes it."""
    frames = [
        {
            "file_path": name.format(v),
            "transform_matrix": [*view.pose.tolist(), [0, 0, 0, 1]],
            **dict(zip(("fl_x", "fl_y", "cx", "cy"), view.intrinsics, strict=True)),
            **{"w": view.width, "h": view.height},
        }
        for v, view in enumerate(rig.views)
    ]
    return {"camera_model": "OPENCV", "frames": frames, **changes}


def result(tmp_path):
    return load_scene(tmp_path / "out", AS_IS)


@pytest.mark.parametrize("name", ["images/cam{:02d}.png", "cam{:02d}.mp4", "rig/cam{:02d}/0000.png"])
def test_json(convert, rig, tmp_path, name):
    write_videos(rig, tmp_path / "in")
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(transforms(rig, name)))
    code, out, err = convert(path)
    assert code == 0 and "3 train, 1 test; 3 frames at 25" in out, err
    assert_same_scene(result(tmp_path), rig, SPLITS)


def test_calibration_among_the_videos_that_held_others_out(convert, rig, tmp_path):
    write_videos(rig, tmp_path / "in")
    path = tmp_path / "in" / "transforms.json"
    names = [f"images/cam{v:02d}.png" for v in range(4)]
    path.write_text(json.dumps(transforms(rig, train_filenames=names[:2], test_filenames=names[2:], num_frames=90)))
    code, _, err = convert(path, "--test", "cam03", "--test", "cam01")
    assert code == 0, err
    assert_same_scene(result(tmp_path), rig, {"train": [0, 2], "test": [1, 3]})


def test_llff(convert, rig, tmp_path):
    write_n3v(rig, tmp_path / "calibrated")
    write_videos(rig, tmp_path / "in")
    code, _, err = convert(tmp_path / "calibrated" / "poses_bounds.npy")
    assert code == 0, err
    assert_same_scene(result(tmp_path), rig, SPLITS)


def test_models_json(convert, fisheye_rig, tmp_path):  # noqa: F811
    write_immersive(fisheye_rig, tmp_path / "calibrated")
    (tmp_path / "in").mkdir()
    for file in (tmp_path / "calibrated").glob("*.mp4"):
        file.rename(tmp_path / "in" / file.name)
    code, _, err = convert(tmp_path / "calibrated" / "models.json")
    assert code == 0, err
    assert_same_scene(result(tmp_path), fisheye_rig, SPLITS)


@pytest.mark.parametrize("place", ["sparse/0", "."])
def test_colmap(convert, rig, tmp_path, place):
    write_videos(rig, tmp_path / "in")
    (tmp_path / "model").mkdir()
    folder = tmp_path / "model" / "workspace"
    write_binary(folder / place if place != "." else folder, [(f"cam{v:02d}.png", rig.views[v]) for v in (2, 0, 1, 3)])
    code, _, err = convert(folder)
    assert code == 0, err
    assert_same_scene(result(tmp_path), rig, SPLITS)


def test_cameras_that_began_at_different_times(convert, rig, tmp_path):
    write_videos(rig, tmp_path / "in", late=(0, 3, 1, 0), longer=(2, 0, 0, 5))
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(transforms(rig)))
    code, _, err = convert(path, "--start", "cam01=3", "--start", "cam02=1")
    assert code == 0, err
    assert_same_scene(result(tmp_path), rig, SPLITS)
    entries = json.loads((tmp_path / "out" / "transforms_train.json").read_text())["frames"]
    assert [entry.get("start_frame", 0) for entry in entries] == [3, 1, 0]


def test_fewer_frames(convert, rig, tmp_path):
    write_videos(rig, tmp_path / "in")
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(transforms(rig)))
    code, _, err = convert(path, "--frames", "2")
    assert code == 0 and result(tmp_path).num_frames == 2, err


def test_partial(convert, rig, tmp_path):
    write_videos(rig, tmp_path / "in")
    (tmp_path / "in" / "cam02.mp4").unlink()
    values = transforms(rig)
    del values["frames"][1]
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(values))
    code, _, err = convert(path)
    assert code == 2 and "cam02" in err and "--partial" in err and err.count("\n") == 1
    code, _, err = convert(path, "--partial")
    assert code == 0, err
    assert_same_scene(result(tmp_path), rig, {"train": [3], "test": [0]})


def test_second_call(convert, rig, tmp_path):
    write_videos(rig, tmp_path / "in")
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(transforms(rig)))
    convert(path)
    code, out, _ = convert(path, "--test", "cam03")
    assert code == 0 and "there already" in out and "cam00" in result(tmp_path).cameras.names[3]
    code, out, _ = convert(path, "--test", "cam03", "--overwrite")
    assert code == 0
    assert_same_scene(result(tmp_path), rig, {"train": [0, 1, 2], "test": [3]})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--test", "cam9"), "--test cam9: no such camera; choose from cam00"),
        (("--start", "cam01"), "CAMERA=FRAME"),
        (("--start", "cam01=-2"), "the others start later"),
        (("--start", "cam9=2"), "--start cam9"),
        (("--start", "cam01=2", "--frames", "3"), "cam01.mp4: 3 frames, of which 1 are left"),
        (("--start", "cam01=7"), "of which 0 are left"),
        (("--frames", "9"), "lower --frames"),
        (tuple(option for v in range(4) for option in ("--test", f"cam{v:02d}")), "no camera is left"),
    ],
)
def test_wrong_options(convert, rig, tmp_path, options, message):
    write_videos(rig, tmp_path / "in")
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(transforms(rig)))
    code, _, err = convert(path, *options)
    assert code == 2 and message in err and err.count("\n") == 1, err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "{}", '{"frames": []}', '{"frames": [{}]}', '[{"name": 3}]', '{"frames": [{"file_path": 1}]}'],
)
def test_wrong_calibrations(convert, rig, tmp_path, content):
    write_videos(rig, tmp_path / "in")
    path = tmp_path / "calibration.json"
    path.write_text(content)
    code, _, err = convert(path)
    assert code == 2 and err.startswith("error: ") and err.count("\n") == 1
    code, _, err = convert(tmp_path / "missing.json")
    assert code == 2 and "missing" in err
    code, _, err = convert(tmp_path / "in")
    assert code == 2 and "no COLMAP model" in err


def test_errors_name_the_users_files(convert, rig, tmp_path):
    write_videos(rig, tmp_path / "in")
    values = transforms(rig)
    values["frames"][2]["transform_matrix"][0][0] = 9.0
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(values))
    code, _, err = convert(path)
    assert code == 2 and err.startswith(f"error: {path}: frame 2: ") and "not rigid" in err and err.count("\n") == 1
