"""The built-in scene as Technicolor's light field dataset lays it out, and what users do to such folders."""

from pathlib import Path

import cv2
import imageio.v3 as iio
import numpy as np
import pytest

from msth_taichi.config import DataConfig
from msth_taichi.errors import DataError
from msth_taichi.scene.formats import technicolor
from tests.scene.rig import AS_IS, Rig, assert_same_scene, room_rig

FIRST = 151
"""Sequences do not begin at frame 0."""


@pytest.fixture(scope="module")
def rig() -> Rig:
    return room_rig(cameras=12, frames=2)


@pytest.fixture
def folder(rig, tmp_path) -> Path:
    return write(rig, tmp_path)


def write(rig: Rig, folder: Path, images: str = ".") -> Path:
    """`cameras_parameters.txt` and `Painter_undist_<frame>_<camera>.png`."""
    (folder / images).mkdir(exist_ok=True)
    lines = ["f cu cv ar sk  qw qx qy qz  tx ty tz"]
    for k, view in enumerate(rig.views):
        fx, fy, cx, cy = view.intrinsics
        rotation = (view.pose[:, :3] * [1, -1, -1]).T
        values = [fx, cx, cy, fy / fx, 0.0, *quaternion(rotation), *(-rotation @ view.pose[:, 3])]
        lines.append(" ".join(f"{value:.9g}" for value in values))
        for t, frame in enumerate(rig.frames[k]):
            iio.imwrite(folder / images / f"Painter_undist_{FIRST + t:05d}_{k:02d}.png", frame)
    (folder / "cameras_parameters.txt").write_text("\n".join(lines) + "\n")
    return folder


def quaternion(rotation: np.ndarray) -> np.ndarray:
    """w, x, y, z, by the angle and axis that OpenCV finds."""
    vector = cv2.Rodrigues(rotation)[0].ravel()
    angle = np.linalg.norm(vector)
    return np.array([np.cos(angle / 2), *(vector / angle * np.sin(angle / 2))])


def edit(folder: Path, line: int, column: int, value: str) -> None:
    """Replace one number of the table."""
    lines = (folder / "cameras_parameters.txt").read_text().splitlines()
    words = lines[line].split()
    words[column] = value
    lines[line] = " ".join(words)
    (folder / "cameras_parameters.txt").write_text("\n".join(lines))


def fails(folder: Path, *words: str) -> None:
    with pytest.raises(DataError) as caught:
        technicolor.load(folder, AS_IS)
    message = str(caught.value)
    assert "\n" not in message and all(word in message for word in words), message


def test_same_scene_with_camera_10_held_out(rig, folder):
    assert technicolor.detects(folder)
    scene = technicolor.load(folder, AS_IS)
    assert_same_scene(scene, rig, {"train": [*range(10), 11], "test": [10]})
    assert (scene.format, scene.num_frames, scene.static_cameras) == ("technicolor", 2, True)
    assert scene.cameras.names[10] == "cam10"


def test_images_in_their_own_folder(rig, tmp_path):
    write(rig, tmp_path, "images")
    assert_same_scene(technicolor.load(tmp_path, AS_IS), rig, {"test": [10]})


def test_first_frames(folder):
    scene = technicolor.load(folder, DataConfig(num_frames=1))
    assert scene.num_frames == 1 and len(scene.images("train")) == 11


def test_a_smaller_rig_holds_out_its_last_camera(folder):
    for file in folder.glob("*.png"):
        if int(file.stem[-2:]) > 3:
            file.unlink()
    lines = (folder / "cameras_parameters.txt").read_text().splitlines()
    (folder / "cameras_parameters.txt").write_text("\n".join(lines[:5]))
    assert technicolor.load(folder, AS_IS).images("test").camera.tolist() == [3, 3]


def test_quaternions_agree_with_opencv():
    vector = np.array([0.3, -1.2, 2.0])
    rotation = cv2.Rodrigues(vector)[0]
    np.testing.assert_allclose(technicolor.rotation_of_quaternion(quaternion(rotation)), rotation, atol=1e-12)


def test_missing_image(folder):
    (folder / "Painter_undist_00152_07.png").unlink()
    fails(folder, "camera 7", "frame 152", "restore")


def test_broken_image(folder):
    """One image of the scene Birthday was released like that."""
    (folder / "Painter_undist_00151_03.png").write_bytes(b"\x89PNG")
    fails(folder, "Painter_undist_00151_03.png", "restore")


def test_two_scenes_in_a_folder(rig, folder):
    iio.imwrite(folder / "Train_undist_00151_03.png", rig.frames[3, 0])
    fails(folder, "Train_undist_00151_03.png", "Painter_undist_00151_03.png", "one scene")


def test_no_images(folder):
    for file in folder.glob("*.png"):
        file.unlink()
    fails(folder, "no image such as", "Painter_undist_00001_00.png")


def test_resized_images(rig, folder):
    for file in folder.glob("*.png"):
        iio.imwrite(file, iio.imread(file)[::2, ::2])
    fails(folder, "camera 0", "16x12", "calibrated")


def test_table_with_fewer_cameras_than_images(folder):
    lines = (folder / "cameras_parameters.txt").read_text().splitlines()
    (folder / "cameras_parameters.txt").write_text("\n".join(lines[:-1]))
    fails(folder, "camera 11", "cameras_parameters.txt ends with camera 10")


def test_table_of_the_distorted_images(folder):
    path = folder / "cameras_parameters.txt"
    path.write_text(path.read_text().replace("sk ", "sk d1 d2 "))
    fails(folder, "cameras_parameters.txt", "undistorted")


@pytest.mark.parametrize(
    ("line", "column", "value", "words"),
    [
        (0, 0, "focal", ("first line",)),
        (2, 0, "12.O", ("line 3", "12 finite numbers")),
        (2, 0, "nan", ("line 3", "12 finite numbers")),
        (2, 0, "-5", ("camera 1", "positive")),
        (2, 4, "0.1", ("camera 1", "sk 0")),
        (2, 5, "7", ("camera 1", "length of 1")),
        (2, 1, "1024", ("camera 1", "calibrated")),
    ],
)
def test_spoilt_table(folder, line, column, value, words):
    edit(folder, line, column, value)
    fails(folder, "cameras_parameters.txt", *words)


def test_truncated_table(folder):
    path = folder / "cameras_parameters.txt"
    path.write_text(path.read_text()[:200])
    fails(folder, "cameras_parameters.txt", "line")
    path.write_bytes(b"\xff\xfe\x00")
    fails(folder, "cameras_parameters.txt", "restore")
