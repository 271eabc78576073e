"""Scripts from published formats to the project's: the same scene comes out."""

import importlib

import pytest

from msth_taichi.scene.scene import load_scene
from tests.scene.formats.nerfies import distorted, write_nerfies
from tests.scene.formats.test_colmap import rig_folder, sequence
from tests.scene.formats.test_immersive import rig as immersive_rig
from tests.scene.formats.test_immersive import write as write_immersive
from tests.scene.formats.test_n3v import write as write_n3v
from tests.scene.rig import AS_IS, assert_same_scene, room_rig, room_sweep

IDS = [f"{v:06d}" for v in range(9)]
fisheye_rig = immersive_rig


@pytest.fixture(scope="module")
def rig():
    return room_rig(cameras=4, frames=3)


@pytest.fixture(scope="module")
def sweep():
    return room_sweep(9)


def command(name):
    return getattr(importlib.import_module(f"convert_{name}"), f"convert_{name}")


@pytest.mark.parametrize("copy", [[], ["--copy"]], ids=["link", "copy"])
def test_neural_3d_video(call, rig, tmp_path, copy):
    write_n3v(rig, tmp_path / "in")
    code, out, err = call(command("n3v"), tmp_path / "in", "--output", tmp_path / "out", *copy)
    assert code == 0 and "3 train, 1 test" in out and f"next: msth info {tmp_path / 'out'}" in out, err
    scene = load_scene(tmp_path / "out", AS_IS)
    assert_same_scene(scene, rig, {"train": [1, 2, 3], "test": [0]})
    assert (tmp_path / "out" / "videos" / "cam00.mp4").is_symlink() is not bool(copy)


def test_immersive(call, fisheye_rig, tmp_path):
    write_immersive(fisheye_rig, tmp_path / "in")
    code, _, err = call(command("immersive"), tmp_path / "in", "--output", tmp_path / "out")
    assert code == 0, err
    assert_same_scene(load_scene(tmp_path / "out", AS_IS), fisheye_rig, {"train": [1, 2, 3], "test": [0]})


def test_hypernerf(call, sweep, tmp_path):
    bent = distorted(sweep)
    write_nerfies(tmp_path / "in", bent, IDS, [0, 2, 4, 6, 8], [1, 3, 5, 7])
    code, _, err = call(command("hypernerf"), tmp_path / "in", "--output", tmp_path / "out")
    assert code == 0, err
    scene = load_scene(tmp_path / "out", AS_IS)
    assert_same_scene(scene, bent, {"train": [0, 2, 4, 6, 8], "test": [1, 3, 5, 7]})

    code, _, err = call(command("hypernerf"), tmp_path / "in", "--output", tmp_path / "half", "--scale", "2")
    assert code == 0 and load_scene(tmp_path / "half", AS_IS).cameras.size(0) == (16, 12), err
    code, _, err = call(command("hypernerf"), tmp_path / "in", "--output", tmp_path / "x", "--scale", "4")
    assert code == 2 and "choose from 1, 2" in err and err.count("\n") == 1


def test_colmap_of_a_moving_camera(call, sweep, tmp_path):
    sequence(tmp_path / "in", sweep)
    code, _, err = call(command("colmap"), tmp_path / "in", "--output", tmp_path / "out")
    assert code == 0, err
    assert_same_scene(load_scene(tmp_path / "out", AS_IS), sweep, {"train": [0, 1, 2, 3, 5, 6, 7, 8], "test": [4]})


def test_colmap_of_a_rig(call, rig, tmp_path):
    rig_folder(tmp_path / "in", rig)
    code, _, err = call(command("colmap"), tmp_path / "in", "--output", tmp_path / "out")
    assert code == 0, err
    assert_same_scene(load_scene(tmp_path / "out", AS_IS), rig, {"train": [1, 2, 3], "test": [0]})


def test_second_call_leaves_what_is_there(call, rig, tmp_path):
    write_n3v(rig, tmp_path / "in")
    call(command("n3v"), tmp_path / "in", "--output", tmp_path / "out")
    path = tmp_path / "out" / "transforms_train.json"
    path.write_text(path.read_text().replace("cam01.mp4", "cam02.mp4"))
    edited = path.read_text()
    code, out, _ = call(command("n3v"), tmp_path / "in", "--output", tmp_path / "out")
    assert code == 0 and "there already" in out and path.read_text() == edited
    code, _, _ = call(command("n3v"), tmp_path / "in", "--output", tmp_path / "out", "--overwrite")
    assert code == 0 and path.read_text() != edited


@pytest.mark.parametrize("name", ["n3v", "immersive", "hypernerf", "colmap"])
def test_wrong_folders_are_one_line(call, tmp_path, name):
    for source in (tmp_path, tmp_path / "missing"):
        code, _, err = call(command(name), source, "--output", tmp_path.parent / "out")
        assert code == 2 and err.startswith("error: ") and err.count("\n") == 1
    code, _, err = call(command(name))
    assert code == 0


def test_output_inside_the_input(call, rig, tmp_path):
    write_n3v(rig, tmp_path / "in")
    for output in (tmp_path / "in", tmp_path / "in" / "out"):
        code, _, err = call(command("n3v"), tmp_path / "in", "--output", output)
        assert code == 2 and "lies in the input" in err
