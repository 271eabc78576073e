"""The key editor: what `msth render --path` reads is where the keys were, and no name leads out of the folder."""

import numpy as np
import pytest

from msth_taichi.errors import RunError
from msth_taichi.rendering.path_files import read_path
from msth_taichi.rendering.paths import make_path
from msth_taichi.viewer.keys import MOST_KEYS, Keys, save_path


@pytest.fixture
def keys(tiny_scene) -> Keys:
    made = Keys()
    for k, pose in enumerate(poses(tiny_scene)):
        made.add(pose, time=0.25 * k, fov=40.0 + k)
    return made


def poses(scene) -> np.ndarray:
    return scene.transform.invert_poses(scene.cameras.camera_to_world.double().numpy())[:3]


def test_a_saved_path_goes_through_its_keys(keys, tiny_scene, tmp_path):
    file = save_path(tmp_path / "paths", "flight", keys.path(step=1.0))
    assert file == tmp_path / "paths" / "flight.json"
    path = make_path(tiny_scene, str(file), frames=3)
    np.testing.assert_allclose(
        path.cameras.camera_to_world.numpy(), tiny_scene.cameras.camera_to_world.numpy()[:3], atol=1e-5
    )
    np.testing.assert_allclose(path.time, [0, 0.25, 0.5])
    height = path.cameras.size(0)[1]
    fovs = np.degrees(2 * np.arctan(0.5 * height / path.cameras.intrinsics[:, 1].numpy()))
    np.testing.assert_allclose(fovs, [40, 41, 42], atol=1e-3)


def test_a_closed_path_comes_back(keys, tiny_scene, tmp_path):
    path = read_path(save_path(tmp_path, "round", keys.path(step=2.0, closed=True)), tiny_scene)
    assert path.closed and path.seconds == 6.0


def test_the_way_that_is_drawn_goes_through_the_keys(keys, tiny_scene):
    for closed, ends in ((False, 2), (True, 0)):
        way = keys.poses(10, closed)
        np.testing.assert_allclose(way[[0, 10, 20]], poses(tiny_scene), atol=1e-6)
        np.testing.assert_allclose(way[-1], poses(tiny_scene)[ends], atol=1e-6)


def test_keys_are_replaced_and_removed(keys, tiny_scene):
    keys.replace(0, poses(tiny_scene)[2], time=0.9, fov=30.0)
    keys.remove(1)
    assert [key.time for key in keys.path(1.0).keys] == [0.9, 0.5]


def test_nothing_is_replaced_by_saving(keys, tmp_path):
    names = [save_path(tmp_path, "a", keys.path(1.0)).name for _ in range(3)]
    assert names == ["a.json", "a-2.json", "a-3.json"]


@pytest.mark.parametrize("name", ["", "..", "../a", "/etc/passwd", "a/b", "a.json", "a\n", "-a", "a" * 65, "é"])
def test_names_that_are_no_names_write_nothing(keys, tmp_path, name):
    with pytest.raises(RunError, match="letters, digits"):
        save_path(tmp_path / "paths", name, keys.path(1.0))
    assert not list(tmp_path.rglob("*"))


def test_a_path_without_keys_says_what_to_do():
    with pytest.raises(RunError, match="add one"):
        Keys().path(1.0)


def test_there_is_an_end_to_keys():
    keys = Keys()
    for _ in range(MOST_KEYS):
        keys.add(np.eye(4)[:3], 0.0, 50.0)
    with pytest.raises(RunError, match=str(MOST_KEYS)):
        keys.add(np.eye(4)[:3], 0.0, 50.0)
