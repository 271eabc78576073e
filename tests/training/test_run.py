"""Run folders: opened without the data set, and never replaced by accident."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch

from msth_taichi.checking.geometry import project
from msth_taichi.config import load_config
from msth_taichi.errors import ConfigError, DataError, RunError
from msth_taichi.evaluation.evaluate import evaluate
from msth_taichi.evaluation.report import run_lines
from msth_taichi.scene.normalize import SceneTransform
from msth_taichi.training.run import RenderedImage, compute_dtype, load_run, read_scene, require_free, write_run
from msth_taichi.training.trainer import train
from tests.settings import changed


def test_a_loaded_run_renders_what_the_trained_one_did(tiny_run):
    loaded = load_run(tiny_run.path)
    assert loaded.step == tiny_run.step == 10
    assert loaded.config == tiny_run.config
    assert not loaded.model.training and not any(p.requires_grad for p in loaded.model.parameters())
    for mode in ("full", "static", "dynamic"):
        expected = tiny_run.render(3, 0.5, mode=mode)
        image = loaded.render(3, 0.5, mode=mode)
        for name, values in expected.items():
            assert torch.allclose(image[name], values, atol=1e-6), (mode, name)
    assert image["rgb"].shape == (18, 24, 3)


def test_a_camera_is_a_name_a_number_or_one_of_ones_own(tiny_run):
    expected = tiny_run.renderer.image(tiny_run.scene.cameras, 3, 0.5)
    for camera in ("test00", 3, tiny_run.scene.cameras.select([3])):
        image = tiny_run.render(camera, 0.5)
        assert image.keys() == RenderedImage.__annotations__.keys() == expected.keys()
        assert all(torch.equal(image[name], expected[name]) for name in expected)
    assert tiny_run.render(tiny_run.camera("test00").scaled(0.5), 0.5)["depth"].shape == (9, 12)


@pytest.mark.parametrize(
    ("camera", "time", "says"),
    [
        ("cam99", 0.5, "camera 'cam99': none of the 4 of the scene; such are cam0"),
        ("left", 0.5, "such are cam00, cam01"),
        (4, 0.5, "camera 4: the scene has cameras 0 to 3"),
        (-1, 0.5, "camera -1"),
        ("cam00", 1.5, "time 1.5: outside of the scene; use a number from 0"),
        ("cam00", float("nan"), "time nan"),
    ],
)
def test_what_cannot_be_rendered_is_told(tiny_run, camera, time, says):
    with pytest.raises(RunError, match=says):
        tiny_run.render(camera, time)


def test_one_camera_and_a_known_mode_are_wanted(tiny_run):
    with pytest.raises(RunError, match=r"4 cameras given where one is seen through"):
        tiny_run.render(tiny_run.scene.cameras, 0.5)
    with pytest.raises(RunError, match="mode 'moving': unknown; use one of full, static, dynamic"):
        tiny_run.render(0, 0.5, mode="moving")


def test_a_new_camera_stands_and_looks_where_the_user_says(tiny_run):
    """In the user's coordinates, which here are turned, moved and scaled against the scene's."""
    turn = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    transform = SceneTransform(turn, np.array([1.0, 2.0, 3.0]), 0.5)
    run = dataclasses.replace(tiny_run, scene=dataclasses.replace(tiny_run.scene, transform=transform))
    position, target = np.array([2.0, 1.0, -2.0]), np.array([-1.0, 0.5, -3.0])
    camera = run.look_at(position.tolist(), target.tolist(), fov=90, size=(20, 10))
    assert camera.size(0) == (20, 10) and len(camera) == 1
    place = project(camera, 0, transform.apply_points(target[None]))
    assert place[0] == pytest.approx([0.5, 0.5], abs=1e-5)
    pose = transform.invert_poses(camera.camera_to_world[0].numpy())
    assert pose[:, 3] == pytest.approx(position, abs=1e-5)
    edge = pose @ [0.0, 1.0, -1.0, 1.0]  # 45 degrees above the axis: the top of the image
    assert project(camera, 0, transform.apply_points(edge[None] * 0.999 + 0.001 * target))[0, 1] < 0.01
    assert run.render(camera, 0.5)["rgb"].shape == (10, 20, 3)
    assert run.look_at(position.tolist(), target.tolist()).size(0) == (24, 18)


@pytest.mark.parametrize(("fov", "size", "says"), [(180, (4, 4), "fov 180"), (50, (0, 4), "size 0 x 4")])
def test_a_camera_that_cannot_be_is_told(tiny_run, fov, size, says):
    with pytest.raises(DataError, match=says):
        tiny_run.look_at((0, 0, 0), (1, 0, 0), fov=fov, size=size)


def test_the_scene_of_a_run_has_everything_but_frames(tiny_run, tiny_scene):
    scene = read_scene(tiny_run.path)
    assert scene.cameras.names == tiny_scene.cameras.names
    assert torch.equal(scene.cameras.camera_to_world, tiny_scene.cameras.camera_to_world)
    assert torch.equal(scene.images("test").time, tiny_scene.images("test").time)
    with pytest.raises(DataError, match="data set"):
        next(scene.images("train").read())


def test_an_earlier_checkpoint_can_be_opened(tiny_run):
    earlier = load_run(tiny_run.path, step=5)
    assert earlier.step == 5
    table = earlier.model.field.encoding.static_table
    assert not torch.equal(table.cpu(), tiny_run.model.field.encoding.static_table.cpu())
    with pytest.raises(RunError, match="no checkpoint of step 7; there are 5, 10"):
        load_run(tiny_run.path, step=7)


def test_what_is_not_a_run_is_told(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(RunError, match="not a run folder"):
            load_run(path)


def test_a_run_without_checkpoint_is_told(tiny_run_copy):
    shutil.rmtree(tiny_run_copy / "checkpoints")
    with pytest.raises(RunError, match="no checkpoint; train first"):
        load_run(tiny_run_copy)


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("config.toml", "[training]\nsteps = ", ConfigError),
        ("config.toml", "[training]\nstep = 5\n", ConfigError),
        ("scene.json", '{"name": ', RunError),
        ("scene.json", "{}", DataError),
        ("scene.json", "[]", DataError),
        ("scene.json", None, RunError),
    ],
)
def test_damaged_files_are_named(tiny_run_copy, name, content, error):
    (tiny_run_copy / name).unlink()
    if content is not None:
        (tiny_run_copy / name).write_text(content)
    with pytest.raises(error, match=f"^{tiny_run_copy / name}: "):
        load_run(tiny_run_copy)


@pytest.mark.parametrize("name", ["model.safetensors", "state.json"])
def test_a_truncated_checkpoint_is_named(tiny_run_copy, name):
    for step in ("step-00000010", "step-00000005"):
        path = tiny_run_copy / "checkpoints" / step / name
        path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(RunError, match=rf"step-00000010/{name}: missing or damaged"):
        load_run(tiny_run_copy)


def test_the_written_part_of_a_run_is_read_back(tiny_scene, tiny_config, tmp_path):
    write_run(tmp_path / "run", tiny_config, tiny_scene)
    assert load_config(tmp_path / "run" / "config.toml") == tiny_config
    assert json.loads((tmp_path / "run" / "scene.json").read_text())["cameras"]["sizes"][0] == [24, 18]


def test_precision_follows_the_device(tiny_config):
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    half, single = (changed(tiny_config, f"training.precision={name}") for name in ("float16", "float32"))
    assert compute_dtype(tiny_config, cpu) == torch.float32
    assert compute_dtype(tiny_config, cuda) == torch.float16
    assert compute_dtype(single, cuda) == torch.float32
    assert compute_dtype(half, cuda) == torch.float16
    with pytest.raises(ConfigError, match=r"training.precision = 'float16' needs a CUDA GPU"):
        compute_dtype(half, cpu)


def test_a_run_needs_a_free_place(tmp_path, tiny_run):
    for overwrite in (False, True):
        require_free(tmp_path / "new", overwrite)
        require_free(tmp_path, overwrite)  # an empty folder
    with pytest.raises(RunError, match="already exists; pass --overwrite"):
        require_free(tiny_run.path, overwrite=False)
    require_free(tiny_run.path, overwrite=True)
    (tmp_path / "thesis.tex").write_text("years of work")
    for path in (tmp_path, tmp_path / "thesis.tex"):
        with pytest.raises(RunError, match="already exists"):
            require_free(path, overwrite=False)
        with pytest.raises(RunError, match="not a run folder, so it is not overwritten"):
            require_free(path, overwrite=True)


def test_a_run_whose_masks_change_with_time(tiny_scene, tiny_config, tmp_path):
    """Is trained, evaluated, told of, and renders the same when it is opened again."""
    settings = ("field.mask_times=3", "proposals.0.mask_times=2", "loss.mask=0")
    run = train(tiny_scene, changed(tiny_config, *settings), tmp_path / "run", progress=False)
    logits = run.model.field.encoding.mask_logits.view(-1)[: 3 * 125].view(3, 125)
    moved = (logits != tiny_config.field.mask_init).any(1)
    assert moved.all(), "every moment of the clip has learnt"
    assert not torch.equal(logits[0], logits[1])
    scores = evaluate(run, tiny_scene, progress=False)["mask"]
    assert 0 < scores["static"] < 1
    loaded = load_run(run.path)
    assert any("mask 4 x 3 times" in line for line in run_lines(loaded))
    for mode in ("full", "static", "dynamic"):
        expected = run.render(3, 0.6, mode=mode)
        for name, values in loaded.render(3, 0.6, mode=mode).items():
            assert torch.allclose(values, expected[name], atol=1e-6), (mode, name)
