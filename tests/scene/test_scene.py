import json

import numpy as np
import pytest
import torch

from msth_taichi.errors import DataError
from msth_taichi.scene.scene import describe, load_scene, scene_from_description
from tests.scene import data_sets


@pytest.mark.parametrize("make", [data_sets.multiview, data_sets.dnerf, data_sets.images])
def test_description_survives_json_without_frames(tmp_path, make):
    scene = load_scene(make(tmp_path))
    again = scene_from_description(json.loads(json.dumps(describe(scene), allow_nan=False)))
    assert torch.equal(again.cameras.camera_to_world, scene.cameras.camera_to_world)
    assert again.cameras.names == scene.cameras.names
    assert np.array_equal(again.transform.rotation, scene.transform.rotation)
    for name in ("name", "path", "box", "num_frames", "fps", "format", "static_cameras"):
        assert getattr(again, name) == getattr(scene, name)
    assert again.splits.keys() == scene.splits.keys()
    for name, images in scene.splits.items():
        assert torch.equal(again.splits[name].camera, images.camera)
        assert torch.equal(again.splits[name].time, images.time)
        assert torch.equal(again.splits[name].frame, images.frame)
    with pytest.raises(DataError, match="give the path of the data set"):
        again.images("train").read()


@pytest.mark.parametrize("key", ["cameras", "splits", "transform", "fps"])
def test_damaged_description(key):
    values = describe(load_scene("synthetic:frames=2"))
    for damaged in ({k: v for k, v in values.items() if k != key}, {**values, key: "?"}):
        with pytest.raises(DataError, match=r"scene\.json: damaged"):
            scene_from_description(damaged)


def test_a_split_that_is_not_there_is_named(tmp_path):
    scene = load_scene(data_sets.multiview(tmp_path))
    with pytest.raises(DataError, match="no 'val' split; choose from train, test"):
        scene.images("val")


def test_files_have_no_exact_truth(tmp_path):
    images = load_scene(data_sets.dnerf(tmp_path)).images("train")
    assert not images.has_truth
    with pytest.raises(DataError, match="built-in scene only"):
        images.depth(0)


def test_select_keeps_order_and_rows_together():
    images = load_scene("synthetic:frames=5").images("test")
    chosen = images.select(torch.tensor([7, 1, 4]))
    assert chosen.keys.tolist() == images.keys[[7, 1, 4]].tolist()
    assert torch.equal(chosen.camera, images.camera[[7, 1, 4]])
    assert torch.equal(chosen.time, images.time[[7, 1, 4]])
