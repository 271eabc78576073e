"""The built-in scene as Google's immersive light field video lays it out, and what users do to such folders."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from msth_taichi.errors import DataError
from msth_taichi.lenses import FISHEYE
from msth_taichi.scene.formats import immersive
from tests.scene.rig import AS_IS, Rig, assert_same_scene, room_rig, write_video

PUBLISHED = {
    "name": "camera_0001",
    "position": [0.003311238794086777, 0.000126384684934784, 0.42421246053630285],
    "orientation": [-0.03295944563072383, 0.02964606619481096, -0.03337751007195316],
    "focal_length": 1111.3638715594666,
    "pixel_aspect_ratio": 1.0,
    "principal_point": [1284.7296468363463, 925.4651609728676],
    "height": 1920.0,
    "width": 2560.0,
    "radial_distortion": [0.0970525284520715, -0.01708587111009977, 0.0],
    "projection_type": "fisheye",
}
"""The entry that the data set's own page gives, with a point and the pixel where it is seen."""

PUBLISHED_POINT, PUBLISHED_PIXEL = (0.5, 0.5, 10.0), (1377.85525, 1017.61440)


@pytest.fixture(scope="module")
def rig() -> Rig:
    return through_fisheyes(room_rig(cameras=4, frames=3))


def through_fisheyes(room: Rig) -> Rig:
    """Its frames were not traced through these lenses, which the readers of files cannot tell."""
    lenses = [(0.09 + 0.01 * k, -0.02 + 0.01 * k, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0) for k in range(4)]
    views = [
        replace(view, lens=FISHEYE, distortion=lens, intrinsics=(14.0 + k, 14.0 + k, 15.5 + 0.1 * k, 12.3))
        for k, (view, lens) in enumerate(zip(room.views, lenses, strict=True))
    ]
    return replace(room, views=views)


@pytest.fixture
def folder(rig, tmp_path) -> Path:
    return write(rig, tmp_path)


def write(rig: Rig, folder: Path) -> Path:
    """`models.json` and `camera_0001.mp4` ... with every key of the original."""
    models = []
    for k, view in enumerate(rig.views):
        name = f"camera_{k + 1:04d}"
        world_to_camera = (view.pose[:, :3] * [1, -1, -1]).T
        models.append(
            {
                "name": name,
                "position": view.pose[:, 3].tolist(),
                "orientation": cv2.Rodrigues(world_to_camera)[0].ravel().tolist(),
                "focal_length": view.intrinsics[0],
                "pixel_aspect_ratio": 1.0,
                "principal_point": list(view.intrinsics[2:]),
                "height": float(view.height),
                "width": float(view.width),
                "radial_distortion": [*view.distortion[:2], 0.0],
                "projection_type": "fisheye",
            }
        )
        write_video(folder / f"{name}.mp4", list(rig.frames[k]), rig.fps)
    (folder / "models.json").write_text(json.dumps(models))
    return folder


def edit(folder: Path, spoil) -> None:
    models = json.loads((folder / "models.json").read_text())
    spoil(models)
    (folder / "models.json").write_text(json.dumps(models))


def fails(folder: Path, *words: str) -> None:
    with pytest.raises(DataError) as caught:
        immersive.load(folder, AS_IS)
    message = str(caught.value)
    assert "\n" not in message and all(word in message for word in words), message


def test_same_fisheye_scene_with_camera_0001_held_out(rig, folder):
    assert immersive.detects(folder)
    scene = immersive.load(folder, AS_IS)
    assert_same_scene(scene, rig, {"train": [1, 2, 3], "test": [0]})
    assert (scene.format, scene.num_frames, scene.static_cameras) == ("immersive", 3, True)
    assert scene.cameras.lens.tolist() == [FISHEYE] * 4
    assert scene.cameras.names[0] == "camera_0001"


def test_camera_0001_is_held_out_wherever_it_stands(rig, folder):
    edit(folder, lambda models: models.reverse())
    assert_same_scene(immersive.load(folder, AS_IS), rig, {"train": [1, 2, 3], "test": [0]})


def test_the_published_point_is_seen_at_the_published_pixel(tmp_path):
    (tmp_path / "models.json").write_text(json.dumps([PUBLISHED]))
    write_video(tmp_path / "camera_0001.mp4", [np.zeros((48, 64, 3), np.uint8)])  # 1/40 of the size
    cameras = immersive.load(tmp_path, AS_IS).cameras
    pose = cameras.camera_to_world[0].double().numpy()
    world_to_camera = (pose[:, :3] * [1, -1, -1]).T
    point = world_to_camera @ (np.array(PUBLISHED_POINT) - pose[:, 3])
    fx, fy, cx, cy = cameras.intrinsics[0].tolist()
    pixel, _ = cv2.fisheye.projectPoints(
        point[None, None],
        np.zeros(3),
        np.zeros(3),
        np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]),
        cameras.distortion[0, :4].double().numpy(),
    )
    np.testing.assert_allclose(pixel.ravel() * 40, PUBLISHED_PIXEL, atol=1e-3)


def test_a_camera_that_does_not_turn():
    np.testing.assert_array_equal(immersive.rotation_matrix(np.zeros(3)), np.eye(3))
    half_turn = np.array([0.0, np.pi, 0.0])
    np.testing.assert_allclose(immersive.rotation_matrix(half_turn), cv2.Rodrigues(half_turn)[0], atol=1e-12)


def test_a_video_without_calibration_is_not_used(rig, folder):
    """One scene was released with 46 videos and 45 entries."""
    edit(folder, lambda models: models.pop())
    assert_same_scene(immersive.load(folder, AS_IS), rig, {"train": [1, 2], "test": [0]})


def test_missing_video(folder):
    (folder / "camera_0003.mp4").unlink()
    fails(folder, "camera_0003.mp4: missing", "restore")


def test_truncated_video(rig, folder):
    write_video(folder / "camera_0002.mp4", list(rig.frames[1, :2]))
    fails(folder, "camera_0002.mp4: 2 frames", "3", "data.num_frames=2")


def test_unreadable_json(folder):
    (folder / "models.json").write_text((folder / "models.json").read_text()[:50])
    fails(folder, "models.json: not readable json", "restore")


def nothing(models: list) -> None:
    models.clear()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (nothing, ("not a list of cameras",)),
        (lambda models: models[1].pop("name"), ("entry 1", "'name'")),
        (lambda models: models[1].update(name="../camera_0002"), ("entry 1", "'name'")),
        (lambda models: models[1].update(name="camera\n2"), ("entry 1", "'name'")),
        (lambda models: models[1].update(name="camera_0001"), ("two entries", "camera_0001")),
        (lambda models: models[1].pop("focal_length"), ("camera_0002", "no 'focal_length'")),
        (lambda models: models[1].update(focal_length=0), ("focal_length is 0",)),
        (lambda models: models[1].update(focal_length="14"), ("focal_length is not a number",)),
        (lambda models: models[1].update(position=[0, 0]), ("position is not 3 numbers",)),
        (lambda models: models[1].update(orientation=[0, 0, float("nan")]), ("orientation is not finite",)),
        (lambda models: models[1].update(radial_distortion=[0.1]), ("radial_distortion is not 2 numbers",)),
        (lambda models: models[1].update(projection_type="perspective"), ("'perspective'", "transforms.json")),
        (lambda models: models[1].update(height=32.0), ("camera_0002.mp4: 32x24", "32x32")),
    ],
)
def test_spoilt_calibration(folder, spoil, words):
    edit(folder, spoil)
    fails(folder, *words)
