"""Frames of files for the times of a scene."""

import json
from dataclasses import replace

import imageio.v3 as iio
import numpy as np
import pytest

from msth_taichi.errors import DataError
from msth_taichi.lenses import FISHEYE, OPENCV
from msth_taichi.scene.assemble import file_frames, image_scene, place
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
    for rate in (-1, 5e-324, 1e300):
        write(tmp_path, rig, camera_fps=rate)
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


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"intrinsics": (1e-189, 20.0, 12.0, 8.0)},
            "focal length 1e-189, 20 and centre 12, 8 are of no image of 24x16",
        ),
        ({"intrinsics": (20.0, 20.0, 1e20, 8.0)}, "write them in pixels"),
        ({"lens": OPENCV, "distortion": (1e19, *[0.0] * 7)}, "its distortion bends the image out of all bounds"),
        ({"lens": FISHEYE, "distortion": (0.0, 0.0, 0.0, float("nan"), *[0.0] * 4)}, "its distortion"),
    ],
)
def test_cameras_without_rays_are_refused(tmp_path, change, says):
    view = replace(room_sweep(2, 24, 16).views[0], **change)
    with pytest.raises(DataError, match=f"camera {view.name}: .*{says}"):
        place(tmp_path, [view], AS_IS)


def test_strong_but_real_lenses_are_taken(tmp_path):
    view = room_sweep(2, 24, 16).views[0]
    telephoto = replace(
        view, intrinsics=(1000.0, 1000.0, 12.0, 8.0), lens=OPENCV, distortion=(-2.0, 900.0, -2e5, *[0.0] * 5)
    )
    dome = replace(view, intrinsics=(7.0, 7.0, 12.0, 8.0), lens=FISHEYE, distortion=(0.1, -0.02, 0.01, 0.0, *[0.0] * 4))
    assert len(place(tmp_path, [telephoto, dome], AS_IS)[0]) == 2


def test_names_stay_unique_whatever_they_are(tmp_path):
    view = room_sweep(2, 24, 16).views[0]
    views = [replace(view, name=name) for name in ("a", "a", "a#2", "a")]
    assert place(tmp_path, views, AS_IS)[0].names == ("a", "a#2", "a#2#2", "a#3")


def test_first_frames_that_nobody_trains_on(tmp_path):
    """Such as a test camera that begins before the others."""
    sweep = room_sweep(2, 24, 16)
    files = [tmp_path / "0.png", tmp_path / "1.png"]
    for file, frame in zip(files, sweep.frames[:, 0], strict=True):
        iio.imwrite(file, frame)
    with pytest.raises(DataError, match=r"no image to train on within data\.num_frames=1; raise it"):
        image_scene(
            tmp_path,
            AS_IS.model_copy(update={"num_frames": 1}),
            format="x",
            views=sweep.views,
            files=files,
            camera=[0, 1],
            times=[0.0, 0.5],
            splits={"train": [1], "test": [0]},
        )
