"""Frames of files for the times of a scene."""

import json

import imageio.v3 as iio
import numpy as np
import pytest

from msth_taichi.errors import DataError
from msth_taichi.scene.assemble import file_frames, image_scene
from msth_taichi.scene.formats.images import still_views
from msth_taichi.scene.scene import load_scene
from msth_taichi.scene.write import write_transforms
from tests.scene.rig import AS_IS, assert_same_scene, room_rig, room_sweep, write_video


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


def test_images_of_cameras_that_stand_still_are_a_rig_again_after_a_conversion(tmp_path):
    """With the bounds of what they see, in the user's units."""
    rig = room_rig(cameras=3, frames=2, width=24, height=16)
    files, camera, times = [], [], []
    for c, pictures in enumerate(rig.frames):
        for t, picture in enumerate(pictures):
            files.append(tmp_path / f"cam{c}_{t}.png")
            iio.imwrite(files[-1], picture)
            camera.append(c)
            times.append(t / 2)
    splits = {"train": [0, 1, 2, 3], "test": [4, 5]}
    config = AS_IS.model_copy(update={"scale_factor": 0.5})
    scene = image_scene(
        tmp_path, config, format="x", views=rig.views, files=files, camera=camera, times=times, splits=splits,
        bounds=(0.4, 3.0),
    )  # fmt: skip
    assert scene.static_cameras and scene.bounds == (0.2, 1.5)
    write_transforms(scene, tmp_path / "again", progress=False)
    again = load_scene(tmp_path / "again", AS_IS)
    assert again.static_cameras and len(again.cameras) == 3 and again.bounds == pytest.approx((0.4, 3.0))
    assert_same_scene(again, rig, {"train": [0, 1], "test": [2]})


def test_a_camera_that_rests_for_a_while_still_moves(tmp_path):
    sweep = room_sweep(4, 24, 16)
    views, owner = still_views([sweep.views[k] for k in (0, 0, 1, 2)])
    assert len(views) == 4 and list(owner) == [0, 1, 2, 3]
    views, owner = still_views([sweep.views[k] for k in (0, 1, 0, 1)])
    assert len(views) == 2 and list(owner) == [0, 1, 0, 1]
