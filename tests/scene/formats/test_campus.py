"""The built-in scene as the Campus data set lays it out, and what users do to such folders."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from msth_taichi.config import DataConfig
from msth_taichi.errors import DataError
from msth_taichi.lenses import OPENCV
from msth_taichi.scene.formats import campus
from tests.scene.rig import AS_IS, Rig, assert_same_scene, room_rig, write_video

SPLITS = {"train": [0, 1, 3], "test": [2], "val": [2]}


@pytest.fixture(scope="module")
def rig() -> Rig:
    """COLMAP estimates a distortion."""
    room = room_rig(cameras=4, frames=3)
    lens = (0.02, -0.01, 0.0, 0.0, 0.0, 0.0, 1e-3, -5e-4)
    return replace(room, views=[replace(view, lens=OPENCV, distortion=lens) for view in room.views])


@pytest.fixture
def folder(rig, tmp_path) -> Path:
    return write(rig, tmp_path)


def write(rig: Rig, folder: Path) -> Path:
    """`talk_0.mp4` ..., `transforms_<split>.json` with an entry a camera, and COLMAP's `colmap/`."""
    for k, frames in enumerate(rig.frames):
        write_video(folder / f"talk_{k}.mp4", list(frames), rig.fps)
    for split, members in SPLITS.items():
        view = rig.views[0]
        k1, k2, *_, p1, p2 = view.distortion
        top = {
            "camera_model": "OPENCV",
            "fl_x": view.intrinsics[0],
            "fl_y": view.intrinsics[1],
            "cx": view.intrinsics[2],
            "cy": view.intrinsics[3],
            "w": view.width,
            "h": view.height,
            "k1": k1,
            "k2": k2,
            "p1": p1,
            "p2": p2,
            "num_frames": rig.frames.shape[1],
        }
        frames = [
            {"file_path": f"talk_{c}.mp4", "transform_matrix": [*rig.views[c].pose.tolist(), [0, 0, 0, 1]]}
            for c in members
        ]
        (folder / f"transforms_{split}.json").write_text(json.dumps({**top, "frames": frames}))
    (folder / "colmap/sparse/0").mkdir(parents=True)
    return folder


def edit(folder: Path, spoil, splits=tuple(SPLITS)) -> None:
    for split in splits:
        path = folder / f"transforms_{split}.json"
        top = json.loads(path.read_text())
        spoil(top)
        path.write_text(json.dumps(top))


def fails(folder: Path, *words: str, config: DataConfig = AS_IS) -> None:
    with pytest.raises(DataError) as caught:
        campus.load(folder, config)
    message = str(caught.value)
    assert "\n" not in message and all(word in message for word in words), message


def test_same_scene(rig, folder):
    assert campus.detects(folder)
    scene = campus.load(folder, AS_IS)
    assert_same_scene(scene, rig, SPLITS)
    assert (scene.format, scene.num_frames, scene.fps, scene.static_cameras) == ("campus", 3, rig.fps, True)
    assert scene.cameras.names[:4] == ("talk_0", "talk_1", "talk_3", "talk_2")


def test_frames_are_counted_where_the_json_is_silent(rig, folder):
    edit(folder, lambda top: top.pop("num_frames"))
    assert_same_scene(campus.load(folder, AS_IS), rig, SPLITS)


def test_videos_of_half_the_calibrated_size(rig, folder):
    def twice(top):
        for key in ("fl_x", "fl_y", "cx", "cy", "w", "h"):
            top[key] *= 2

    edit(folder, twice)
    assert_same_scene(campus.load(folder, AS_IS), rig, SPLITS)


@pytest.mark.parametrize("name", ["cam_01.mp4", "camera_0001.mp4", "talk.mp4", "videos/talk_1.mp4", "talk_1.png"])
def test_other_names_are_of_other_formats(folder, name):
    edit(folder, lambda top: top["frames"][0].update(file_path=name))
    assert not campus.detects(folder)


def test_foreign_folders_are_not_recognised(folder):
    (folder / "transforms_test.json").write_text("[")
    assert not campus.detects(folder)
    (folder / "transforms_train.json").unlink()
    assert not campus.detects(folder)


def test_missing_video(folder):
    (folder / "talk_1.mp4").unlink()
    fails(folder, "talk_1.mp4")


def test_truncated_video(rig, folder):
    write_video(folder / "talk_3.mp4", list(rig.frames[3, :1]))
    fails(folder, "talk_3.mp4: 1 frames", "num_frames is 3", "data.num_frames=1")
    edit(folder, lambda top: top.pop("num_frames"))
    fails(folder, "talk_3.mp4: 1 frames", "talk_0.mp4 has 3")


def test_unreadable_json(folder):
    (folder / "transforms_test.json").write_text("{")
    fails(folder, "transforms_test.json: not readable json")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda top: top["frames"][0].pop("transform_matrix"), ("transforms_train.json", "transform_matrix")),
        (lambda top: top.update(num_frames=2), ("num_frames is 2, 3",)),
        (lambda top: top.update(num_frames=2.5), ("num_frames is 2.5",)),
        (lambda top: top.update(w=0), ("transforms_train.json", "w=0")),
        (lambda top: top.update(h=32), ("talk_0.mp4: 32x24", "32x32")),
    ],
)
def test_spoilt_json(folder, spoil, words):
    edit(folder, spoil, ["train"])
    fails(folder, *words)
