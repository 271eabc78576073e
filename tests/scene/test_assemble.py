"""Frames of files for the times of a scene."""

import json

import numpy as np
import pytest

from msth_taichi.errors import DataError
from msth_taichi.scene.assemble import file_frames
from msth_taichi.scene.scene import load_scene
from msth_taichi.scene.write import write_transforms
from tests.scene.rig import AS_IS, room_rig, write_video


def test_nearest_frames_of_a_file():
    assert file_frames(4, 3, 2.0).tolist() == [3, 5, 7, 9]
    assert file_frames(5, 0, 0.5).tolist() == [0, 1, 1, 2, 2], "a slower camera shows its frames twice"
    assert file_frames(3, 1, 59.94 / 29.97).tolist() == [1, 3, 5]


def write(folder, rig, **second):
    """Two cameras, the second at twice the rate and two frames late."""
    frames = [rig.frames[0], np.repeat(rig.frames[1], 2, axis=0)]
    frames[1] = np.concatenate([frames[1][:1] * 0, frames[1][:1] * 0, frames[1]])
    entries = []
    for i, (view, pictures) in enumerate(zip(rig.views, frames, strict=True)):
        write_video(folder / f"{i}.mp4", list(pictures))
        fx, fy, cx, cy = view.intrinsics
        pose = np.vstack([view.pose, [0, 0, 0, 1]]).tolist()
        entries.append({"file_path": f"{i}.mp4", "transform_matrix": pose, "fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy})
    entries[1] |= second
    top = {"num_frames": len(rig.times), "fps": 25}
    for split in ("train", "test"):
        (folder / f"transforms_{split}.json").write_text(json.dumps({**top, "frames": entries}))
    return folder


def test_a_camera_of_another_rate_that_starts_late(tmp_path):
    rig = room_rig(cameras=2, frames=4, width=24, height=16)
    scene = load_scene(write(tmp_path, rig, start_frame=2, camera_fps=50), AS_IS)
    frames = np.stack(list(scene.images("train").read())).reshape(2, 4, 16, 24, 3)
    assert np.array_equal(frames, rig.frames)
    write_transforms(scene, tmp_path / "again", progress=False)
    again = load_scene(tmp_path / "again", AS_IS).images("train")
    assert np.array_equal(np.stack(list(again.read())).reshape(frames.shape), frames)


def test_a_file_that_ends_too_early_at_its_rate_is_named(tmp_path):
    rig = room_rig(cameras=2, frames=4, width=24, height=16)
    with pytest.raises(DataError, match=r"1\.mp4: 3 frames after start_frame 2, but num_frames is 4"):
        load_scene(write(tmp_path, rig, start_frame=2, camera_fps=75), AS_IS)
    write(tmp_path, rig, camera_fps=-1)
    with pytest.raises(DataError, match="camera_fps"):
        load_scene(tmp_path, AS_IS)
