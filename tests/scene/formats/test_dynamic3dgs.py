"""The built-in scene as Dynamic 3D Gaussians lays the Panoptic Studio out, and what users do to such folders."""

import json
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest

from msth_taichi.config import DataConfig
from msth_taichi.errors import DataError
from msth_taichi.scene.formats import dynamic3dgs
from tests.scene.rig import AS_IS, Rig, assert_same_scene, room_rig, room_sweep

TEST = [1]


@pytest.fixture(scope="module")
def rig() -> Rig:
    return room_rig(cameras=4, frames=3)


@pytest.fixture
def folder(rig, tmp_path) -> Path:
    return write(rig, tmp_path)


def write(rig: Rig, folder: Path, suffix: str = ".png") -> Path:
    """`train_meta.json`, `test_meta.json`, `ims/<camera>/<time>` and `seg/`; the original has .jpg in `ims/`."""
    for k, frames in enumerate(rig.frames):
        for part in ("ims", "seg"):
            (folder / part / str(k)).mkdir(parents=True)
        for t, frame in enumerate(frames):
            options = {"quality": 98, "subsampling": 0} if suffix == ".jpg" else {}
            iio.imwrite(folder / f"ims/{k}/{t:06d}{suffix}", frame, **options)
            iio.imwrite(folder / f"seg/{k}/{t:06d}.png", np.zeros(frame.shape[:2], np.uint8))
    for split, members in (("train", [k for k in range(len(rig.views)) if k not in TEST]), ("test", TEST)):
        times = range(rig.frames.shape[1])
        write_json(
            folder / f"{split}_meta.json",
            {
                "w": rig.views[0].width,
                "h": rig.views[0].height,
                "k": [[matrix(rig.views[c].intrinsics) for c in members] for _ in times],
                "w2c": [[world_to_camera(rig.views[c].pose) for c in members] for _ in times],
                "fn": [[f"{c}/{t:06d}{suffix}" for c in members] for t in times],
                "cam_id": [members for _ in times],
            },
        )
    return folder


def matrix(intrinsics) -> list:
    fx, fy, cx, cy = intrinsics
    return [[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]]


def world_to_camera(pose: np.ndarray) -> list:
    full = np.eye(4)
    full[:3] = pose
    return np.linalg.inv(full @ np.diag([1.0, -1.0, -1.0, 1.0])).tolist()


def write_json(path: Path, values: dict) -> None:
    path.write_text(json.dumps(values))


def edit(folder: Path, spoil, split: str = "train") -> None:
    path = folder / f"{split}_meta.json"
    meta = json.loads(path.read_text())
    spoil(meta)
    write_json(path, meta)


def fails(folder: Path, *words: str) -> None:
    with pytest.raises(DataError) as caught:
        dynamic3dgs.load(folder, AS_IS)
    message = str(caught.value)
    assert "\n" not in message and all(word in message for word in words), message


def test_same_scene(rig, folder):
    assert dynamic3dgs.detects(folder)
    scene = dynamic3dgs.load(folder, AS_IS)
    assert_same_scene(scene, rig, {"train": [0, 2, 3], "test": TEST})
    assert (scene.format, scene.num_frames, scene.static_cameras) == ("dynamic3dgs", 3, True)
    assert scene.cameras.names == ("cam00", "cam02", "cam03", "cam01")
    assert scene.images("train").channels == 3


def test_jpeg_as_the_original(rig, tmp_path):
    write(rig, tmp_path, ".jpg")
    assert_same_scene(dynamic3dgs.load(tmp_path, AS_IS), rig, {"train": [0, 2, 3], "test": TEST}, exact=False)


def test_first_frames(folder):
    scene = dynamic3dgs.load(folder, DataConfig(num_frames=2))
    assert scene.num_frames == 2 and scene.images("test").time.tolist() == [0.0, 0.5]


def test_images_of_half_the_calibrated_size(rig, folder):
    def twice(meta):
        meta["w"], meta["h"] = 2 * meta["w"], 2 * meta["h"]
        meta["k"] = (np.array(meta["k"]) * [[2.0], [2.0], [1.0]]).tolist()

    edit(folder, twice)
    edit(folder, twice, "test")
    assert_same_scene(dynamic3dgs.load(folder, AS_IS), rig, {"train": [0, 2, 3], "test": TEST})


def test_a_camera_that_moves(tmp_path):
    """Calibrations are written for each time, so that they may change; the four cameras here take turns."""
    sweep = room_sweep(count=4)
    (tmp_path / "ims").mkdir()
    for k in range(4):
        iio.imwrite(tmp_path / f"ims/{k:06d}.png", sweep.frames[k, 0])
    for split in ("train", "test"):
        meta = {
            "w": 32,
            "h": 24,
            "k": [[matrix(view.intrinsics)] for view in sweep.views],
            "w2c": [[world_to_camera(view.pose)] for view in sweep.views],
            "fn": [[f"{k:06d}.png"] for k in range(4)],
            "cam_id": [[0 if split == "train" else 1]] * 4,
        }
        write_json(tmp_path / f"{split}_meta.json", meta)
    scene = dynamic3dgs.load(tmp_path, AS_IS)
    assert_same_scene(scene, sweep, {"train": range(4), "test": range(4)})
    assert not scene.static_cameras and scene.cameras.names[1] == "cam00_000001"


def test_missing_image(folder):
    (folder / "ims/2/000001.png").unlink()
    fails(folder, "ims/2/000001.png: missing", "restore")


@pytest.mark.parametrize("name", ["1" * 400, "../secret", "/etc/hostname"])
def test_names_that_lead_nowhere(folder, name):
    edit(folder, lambda meta: meta["fn"][0].__setitem__(0, name))
    fails(folder, name)


def test_missing_json(folder):
    (folder / "test_meta.json").unlink()
    fails(folder, "test_meta.json: missing", "restore")


def test_unreadable_json(folder):
    path = folder / "train_meta.json"
    path.write_text(path.read_text()[:-30])
    fails(folder, "train_meta.json: not readable json")


def fewer_times(meta: dict) -> None:
    for key in ("k", "w2c", "fn", "cam_id"):
        meta[key].pop()


def test_splits_of_different_lengths(folder):
    edit(folder, fewer_times, "test")
    fails(folder, "test_meta.json: 2 times", "train_meta.json has 3")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda meta: meta.pop("w2c"), ("no 'w2c'",)),
        (lambda meta: meta["k"].pop(), ("k is not 3 x 3 x 3 x 3 numbers",)),
        (lambda meta: meta["k"][0][1][0].__setitem__(0, None), ("k is not",)),
        (lambda meta: meta["w2c"][0][1][0].__setitem__(3, float("inf")), ("w2c is not finite",)),
        (lambda meta: meta["w2c"][0][1][0].__setitem__(0, 3.0), ("cam02", "rigid")),
        (lambda meta: meta["k"][0][1][0].__setitem__(0, -1.0), ("camera 2", "positive focal")),
        (lambda meta: meta["fn"][1].pop(), ("3 files at time 0", "2 at time 1")),
        (lambda meta: meta["fn"][1].__setitem__(0, 7), ("fn holds 7",)),
        (lambda meta: meta.update(fn=[]), ("fn is not",)),
        (lambda meta: meta["cam_id"][1].reverse(), ("cam_id",)),
        (lambda meta: meta.update(w=24), ("32x24", "24x24")),
    ],
)
def test_spoilt_json(folder, spoil, words):
    edit(folder, spoil)
    fails(folder, *words)
