"""NeRF's synthetic scenes, written from the built-in scene and read back."""

import json
import math
from dataclasses import replace
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest

from msth_taichi.errors import DataError
from msth_taichi.scene.formats import dnerf, images, nerf_synthetic
from msth_taichi.scene.scene import load_scene
from tests.scene.rig import AS_IS, Rig, assert_same_scene, room_sweep

SPLITS = {"train": [0, 1, 2, 3], "val": [4], "test": [5, 6]}


@pytest.fixture(scope="module")
def still():
    """Pictures of one moment."""
    return replace(room_sweep(7), times=np.zeros(7))


@pytest.fixture
def folder(tmp_path, still):
    return write(still, tmp_path)


def write(still: Rig, folder: Path) -> Path:
    """As published: RGBA, depth and normals beside the test images, no suffix in the json."""
    width, focal = still.views[0].width, still.views[0].intrinsics[0]
    for split, rows in SPLITS.items():
        (folder / split).mkdir()
        frames = []
        for i, v in enumerate(rows):
            iio.imwrite(folder / split / f"r_{i}.png", rgba(still.frames[v, 0]))
            if split == "test":
                iio.imwrite(folder / split / f"r_{i}_depth_0001.png", rgba(still.frames[v, 0]))
            pose = [*still.views[v].pose.tolist(), [0.0, 0.0, 0.0, 1.0]]
            frames.append({"file_path": f"./{split}/r_{i}", "rotation": 0.0125, "transform_matrix": pose})
        values = {"camera_angle_x": 2 * math.atan(0.5 * width / focal), "frames": frames}
        (folder / f"transforms_{split}.json").write_text(json.dumps(values, indent=4))
    return folder


def rgba(picture: np.ndarray) -> np.ndarray:
    alpha = np.full_like(picture[..., :1], 255)
    alpha[:, :7] = 0
    return np.concatenate([picture, alpha], 2)


def test_as_published(folder, still):
    assert nerf_synthetic.detects(folder)
    assert not dnerf.detects(folder) and not images.detects(folder)
    scene = load_scene(folder, AS_IS)
    assert_same_scene(scene, still, SPLITS)
    assert (scene.format, scene.num_frames, scene.static_cameras) == ("nerf_synthetic", 1, False)
    assert scene.images("train").channels == 4
    assert (next(scene.images("test").read()) == rgba(still.frames[5, 0])).all()


def edit(name, change):
    def spoil(folder):
        values = json.loads((folder / name).read_text())
        change(values)
        (folder / name).write_text(json.dumps(values))

    return spoil


TRAIN = "transforms_train.json"

SPOILT = {
    "json missing": (lambda f: (f / "transforms_test.json").unlink(), "transforms_test.json", "restore"),
    "json damaged": (lambda f: (f / TRAIN).write_text("{"), TRAIN, "restore"),
    "image missing": (lambda f: (f / "train/r_2.png").unlink(), "train/r_2.png", "restore"),
    "image damaged": (lambda f: (f / "train/r_2.png").write_bytes(b"\x89PNG\r\n"), "train/r_2.png", "restore"),
    "time of one image": (edit(TRAIN, lambda top: top["frames"][1].update(time=0.5)), TRAIN, "'time'; add"),
    "no field of view": (edit(TRAIN, lambda top: top.pop("camera_angle_x")), TRAIN, "add the focal length"),
}


@pytest.mark.parametrize(("spoil", "name", "remedy"), SPOILT.values(), ids=SPOILT)
def test_bad_input_is_one_line_with_file_and_remedy(folder, spoil, name, remedy):
    spoil(folder)
    with pytest.raises(DataError) as error:
        load_scene(folder, AS_IS)
    message = str(error.value)
    assert str(folder) in message and name in message and remedy in message
    assert "\n" not in message
