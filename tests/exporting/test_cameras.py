"""Cameras for other programs, which we are as well."""

import json
from dataclasses import replace

import imageio.v3 as iio
import numpy as np
import pytest

from msth_taichi.config import DataConfig
from msth_taichi.errors import RunError
from msth_taichi.exporting.cameras import export_cameras
from msth_taichi.scene.scene import describe, load_scene, scene_from_description
from tests.exporting.conftest import TRANSFORM
from tests.scene import data_sets

AS_IS = DataConfig(orientation="none", center=False, auto_scale=False, scale_factor=1)


def user_poses(scene):
    return scene.transform.invert_poses(scene.cameras.camera_to_world.numpy())


def test_cameras_of_a_rig_are_read_back_where_the_videos_lie(tiny_run, tmp_path):
    scene = replace(tiny_run.scene, transform=TRANSFORM)
    export_cameras(replace(tiny_run, scene=scene), tmp_path / "transforms.json")
    for name in scene.cameras.names:
        data_sets.write_video(tmp_path / "videos" / f"{name}.mp4", frames=4, width=24, height=18)
    found = load_scene(tmp_path, AS_IS)
    assert found.num_frames == 4 and found.fps == scene.fps and found.cameras.names == scene.cameras.names
    assert np.allclose(user_poses(found), user_poses(scene), atol=1e-6)
    assert np.allclose(found.cameras.intrinsics, scene.cameras.intrinsics)
    for split in ("train", "test"):
        assert found.images(split).camera.tolist() == scene.images(split).camera.tolist()
        assert found.images(split).time.tolist() == scene.images(split).time.tolist()


def test_cameras_that_move_have_their_times(tiny_run, tmp_path):
    data = load_scene(data_sets.images(tmp_path / "data"))
    scene = scene_from_description(describe(data))
    export_cameras(replace(tiny_run, scene=scene), tmp_path / "out" / "transforms.json")
    entries = json.loads((tmp_path / "out" / "transforms.json").read_text())["frames"]
    for entry in entries:
        file = tmp_path / "out" / entry["file_path"]
        file.parent.mkdir(parents=True, exist_ok=True)
        iio.imwrite(file, data_sets.picture(0))
    found = load_scene(tmp_path / "out", AS_IS)
    assert len(found.images("train")) == len(scene.images("train")) and len(found.images("test"))
    rows = [s.images("train").camera[s.images("train").time.argsort()] for s in (found, scene)]
    assert np.allclose(user_poses(found)[rows[0]], user_poses(scene)[rows[1]], atol=1e-5)


def test_a_file_is_kept_and_its_name_is_json(tiny_run, tmp_path):
    (tmp_path / "a.json").write_text("mine")
    with pytest.raises(RunError, match=r"already exists; pass --overwrite"):
        export_cameras(tiny_run, tmp_path / "a.json")
    assert (tmp_path / "a.json").read_text() == "mine"
    assert export_cameras(tiny_run, tmp_path / "a.json", overwrite=True) == tmp_path / "a.json"
    with pytest.raises(RunError, match=r"ends in \.json"):
        export_cameras(tiny_run, tmp_path / "a.txt")
