"""Evaluation: numbers are those of the renders, the protocol is stated, the mask is measured on surfaces."""

import dataclasses
import json
import math

import imageio.v3 as iio
import numpy as np
import pytest
import torch

from msth_taichi.errors import DataError
from msth_taichi.evaluation.comparison import target_image
from msth_taichi.evaluation.evaluate import evaluate, scene_of
from msth_taichi.evaluation.report import evaluation_lines
from msth_taichi.model.renderer import render_image
from msth_taichi.training.run import load_run


@pytest.fixture
def run(tiny_run_copy):
    return load_run(tiny_run_copy)


def test_result_is_saved_with_its_protocol_and_pictures(run, tiny_scene):
    result = evaluate(run, tiny_scene, every=1, progress=False)
    assert json.loads((run.path / "eval" / f"step-{run.step:08d}.json").read_text()) == result
    protocol = result["protocol"]
    assert protocol["split"] == "test" and protocol["every"] == 1 and protocol["images"] == 4
    assert protocol["resolution"] == [24, 18] and protocol["background"] == run.config.rays.background
    assert set(protocol["versions"]) == {"msth_taichi", "torch", "taichi"}
    pictures = list((run.path / "eval" / f"step-{run.step:08d}").iterdir())
    assert [picture.name for picture in pictures] == ["test00.png"]
    assert iio.imread(pictures[0]).shape[1] >= 5 * 24
    assert not list((run.path / "eval").rglob(".*")), "temporary files are left"


def test_numbers_are_those_of_the_renders(run, tiny_scene):
    result = evaluate(run, tiny_scene, every=2, progress=False)
    images = tiny_scene.images("test")
    frames = result["views"]["test00"]["frames"]
    assert [frame["frame"] for frame in frames] == [0, 2]
    device = next(run.model.parameters()).device
    errors = []
    for frame, target in zip(frames, images.select([0, 2]).read(), strict=True):
        image = render_image(run.model, tiny_scene.cameras.to(device), 3, frame["time"])["rgb"].cpu().numpy()
        errors.append(float(((image - target / 255.0) ** 2).mean()))
        assert frame["psnr"] == pytest.approx(-10 * math.log10(errors[-1]), abs=1e-3)
    assert result["psnr"] == pytest.approx(np.mean([-10 * math.log10(e) for e in errors]), abs=1e-3)
    assert result["psnr_pooled"] == pytest.approx(-10 * math.log10(np.mean(errors)), abs=1e-3)
    assert result["d_ssim"] == pytest.approx((1 - result["ssim"]) / 2)


def test_mask_is_averaged_over_static_and_moving_surfaces(run, tiny_scene, monkeypatch):
    images = tiny_scene.images("test")
    exact = iter([torch.from_numpy(~images.moving(row)).flatten().float() for row in range(len(images))])
    seen = []

    def mask(points: torch.Tensor) -> torch.Tensor:
        seen.append(points)
        return next(exact).to(points.device)

    monkeypatch.setattr(run.model, "mask", mask)
    statistics = evaluate(run, tiny_scene, every=1, progress=False)["mask"]
    assert statistics == pytest.approx({"static": 1.0, "moving": 0.0, "difference": 1.0})
    # the points are at the exact depth along each ray
    position = tiny_scene.cameras.camera_to_world[3, :, 3]
    distance = (seen[0].cpu() - position).norm(dim=1)
    torch.testing.assert_close(distance, torch.from_numpy(images.depth(0)).flatten(), rtol=1e-4, atol=1e-4)


def test_moving_cameras_are_one_view_in_the_order_of_time(run, tiny_scene):
    moving = dataclasses.replace(tiny_scene, static_cameras=False)
    result = evaluate(run, moving, split="train", every=3, progress=False)
    assert list(result["views"]) == ["train"]
    times = [frame["time"] for frame in result["views"]["train"]["frames"]]
    assert len(times) == 4 and times == sorted(times)
    assert [file.name for file in (run.path / "eval").glob("*.json")] == [f"step-{run.step:08d}-train.json"]


def test_unknown_split_is_named(run, tiny_scene):
    with pytest.raises(DataError, match="no 'val' split"):
        evaluate(run, tiny_scene, split="val", progress=False)


@pytest.mark.parametrize(
    ("background", "value"), [("white", 1.0), ("black", 0.0), ("last_sample", 0.0), ("random", 0.5)]
)
def test_straight_alpha_is_composited_on_the_background(background, value):
    frame = np.array([[[255, 0, 0, 255], [255, 0, 0, 0], [0, 255, 0, 51]]], np.uint8)
    expected = torch.tensor([[[1.0, 0, 0], [value] * 3, [0.8 * value, 0.2 + 0.8 * value, 0.8 * value]]])
    torch.testing.assert_close(target_image(frame, background, torch.zeros(*frame.shape[:2], 3)), expected)


def test_scene_is_found_again_and_another_one_refused(run, tiny_scene):
    again = scene_of(run)
    torch.testing.assert_close(again.cameras.camera_to_world, tiny_scene.cameras.camera_to_world)
    assert next(again.images("test").read()).shape == (18, 24, 3)
    with pytest.raises(DataError, match="its cameras are not those of"):
        scene_of(run, "synthetic:cameras=5,test_cameras=1,frames=4,width=24,height=18")


def test_table_shows_each_view_and_the_mean(run, tiny_scene):
    result = evaluate(run, tiny_scene, every=1, progress=False)
    lines = evaluation_lines(result)
    assert lines[1].split() == ["test00", "4", f"{result['psnr']:.2f}", f"{result['ssim']:.4f}"]
    assert lines[2].split()[0] == "mean"
    assert any("difference" in line for line in lines)
