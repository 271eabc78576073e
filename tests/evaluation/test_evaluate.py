"""Evaluation: numbers are those of the renders, the protocol is stated, the mask is measured on surfaces."""

import dataclasses
import json
import math
import re

import imageio.v3 as iio
import numpy as np
import pytest
import torch

from msth_taichi.errors import DataError
from msth_taichi.evaluation.comparison import target_image
from msth_taichi.evaluation.evaluate import evaluate, page_path, scene_of
from msth_taichi.evaluation.motion import DYNAMIC_VARIANCE
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
    assert len(result["mask_histogram"]) == 32 and sum(result["mask_histogram"]) == 4 * 24 * 18
    assert set(protocol["versions"]) == {"msth_taichi", "torch", "taichi"}
    folder = run.path / "eval" / f"step-{run.step:08d}"
    worst = min(result["views"]["test00"]["frames"], key=lambda frame: frame["psnr"])
    pictures = [folder / "test00.png", folder / "worst" / f"test00-{worst['frame']:05d}.png"]
    files = {file for file in folder.rglob("*") if file.is_file()}
    assert files == {folder / "psnr.svg", *pictures}
    assert all(iio.imread(picture).shape[1] >= 5 * 24 for picture in pictures)
    assert {folder.parent / file for file in picture_files(result)} == files
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

    def mask(points: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        assert times.tolist() == [pytest.approx(images.time[len(seen)].item())] * len(times)
        seen.append(points)
        return next(exact).to(points.device)

    monkeypatch.setattr(run.model, "mask", mask)
    statistics = evaluate(run, tiny_scene, every=1, progress=False)["mask"]
    rendered = statistics.pop("iou_rendered")
    assert statistics == pytest.approx({"static": 1.0, "moving": 0.0, "difference": 1.0, "iou": 1.0})
    assert rendered is not None and rendered < 1
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
    assert len(result["views"]["train"]["affine"]) == 3
    # two images of cameras that move differ everywhere
    assert result["psnr_temporal"] is None and result["psnr_dynamic"] is None
    assert "Over time" not in (run.path / "eval" / f"step-{run.step:08d}-train.md").read_text()
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
    [affine] = [line for line in lines if "affine" in line]
    assert f"PSNR {result['psnr_affine']:.2f}" in affine and f"{result['psnr']:.2f}" not in affine


@pytest.fixture
def exact_renders(tiny_scene, monkeypatch):
    """exact_renders(change) makes the field render the frames of the tiny scene, changed by a function of the colours
    and the time, and their exact depth."""
    images = tiny_scene.images("test")
    frames = {float(time): frame for time, frame in zip(images.time, images.read(), strict=True)}
    depths = {float(time): images.depth(row) for row, time in enumerate(images.time)}

    def install(change):
        def render(model, cameras, index, time):
            color = torch.from_numpy(frames[time]).float() / 255
            ones = torch.ones(color.shape[:2])
            depth = torch.from_numpy(depths[time])
            return {"rgb": change(color, time).clamp(0, 1), "depth": depth * 1.5, "accumulation": ones, "mask": ones}

        monkeypatch.setattr("msth_taichi.training.run.render_image", render)

    return install


def test_a_camera_with_other_colours_is_right_after_the_fit(run, tiny_scene, exact_renders):
    exact_renders(lambda color, time: 0.1 + 0.8 * color)
    result = evaluate(run, tiny_scene, every=1, progress=False)
    assert result["psnr"] < 35
    assert result["psnr_affine"] > 95
    assert result["ssim_affine"] == pytest.approx(1, abs=1e-4) and result["ssim"] < 0.999
    matrix = torch.tensor(result["views"]["test00"]["affine"])
    expected = torch.cat([torch.eye(3) / 0.8, torch.full((3, 1), -0.125)], 1)
    torch.testing.assert_close(matrix, expected, atol=1e-3, rtol=0)


def test_a_constant_error_does_not_flicker_and_a_changing_one_does(run, tiny_scene, exact_renders):
    exact_renders(lambda color, time: 0.1 + 0.9 * color.clamp(max=0.99))
    steady = evaluate(run, tiny_scene, every=1, progress=False)
    exact_renders(lambda color, time: color + (0.1 if time == 0.25 else 0.0))
    frames = evaluate(run, tiny_scene, every=1, progress=False)["views"]["test00"]["frames"]
    # frame 1 is off by 0.1: so are two of the three differences
    assert frames[0]["psnr_temporal"] is None
    assert [frame["psnr_temporal"] for frame in frames[1:]] == pytest.approx([20, 20, 100], abs=0.01)
    assert steady["psnr_temporal"] > steady["psnr"] + 10


def test_dynamic_pixels_are_those_that_change(run, tiny_scene, exact_renders):
    exact_renders(lambda color, time: color + 0.01)
    result = evaluate(run, tiny_scene, every=1, progress=False)
    frames = np.stack(list(tiny_scene.images("test").read())) / 255
    share = (frames.var(0).mean(-1) > DYNAMIC_VARIANCE).mean()
    assert 0 < share < 0.5
    assert result["views"]["test00"]["dynamic_pixels"] == pytest.approx(share)
    assert result["psnr_dynamic"] == pytest.approx(40, abs=0.01)
    # of one frame nothing is known to change
    assert evaluate(run, tiny_scene, every=4, progress=False)["psnr_dynamic"] is None


def test_depth_is_compared_with_the_exact_one(run, tiny_scene, exact_renders):
    exact_renders(lambda color, time: color)
    result = evaluate(run, tiny_scene, every=1, progress=False)
    depth = np.stack([tiny_scene.images("test").depth(row) for row in range(4)])
    assert result["depth_error_relative"] == pytest.approx(0.5, abs=1e-5)
    assert result["depth_error"] == pytest.approx(0.5 * depth.mean(), rel=1e-5)


def test_what_does_not_fit_in_memory_is_rendered_and_read_again(run, tiny_scene, monkeypatch):
    kept = evaluate(run, tiny_scene, every=1, progress=False)
    monkeypatch.setattr("msth_taichi.evaluation.kept.LIMIT", 24 * 18 * 3 * 3 * 2)  # two of four frames
    again = evaluate(run, tiny_scene, every=1, progress=False)
    for name in ("psnr_affine", "ssim_affine", "psnr_dynamic"):
        assert again[name] == pytest.approx(kept[name], abs=1e-4)


def test_worst_frames_of_an_earlier_evaluation_are_removed(run, tiny_scene, exact_renders):
    def files():
        return [file.name for file in run.path.rglob("worst/*.png")]

    exact_renders(lambda color, time: color + (0.1 if time == 0.75 else 0.0))
    evaluate(run, tiny_scene, every=1, progress=False)
    assert files() == ["test00-00003.png"]
    exact_renders(lambda color, time: color + (0.1 if time == 0.5 else 0.0))
    evaluate(run, tiny_scene, every=1, progress=False)
    assert files() == ["test00-00002.png"]


def test_ignored_pixels_make_no_difference_to_any_metric(run, tiny_scene, exact_renders):
    images = tiny_scene.images("test")
    source = MaskedSource(images.source)
    masked = dataclasses.replace(images, source=source)
    scene = dataclasses.replace(tiny_scene, splits={**tiny_scene.splits, "test": masked})
    exact_renders(lambda color, time: 0.1 + 0.8 * color)
    result = evaluate(run, scene, every=1, progress=False)
    # left of the middle the frames are black, which no affine change of the render is
    assert result["psnr_affine"] > 95
    assert result["views"]["test00"]["affine"][0][3] == pytest.approx(-0.125, abs=1e-3)
    assert result["mask"] is None and "depth_error" not in result
    assert "exact scene" not in page_path(run).read_text()


class MaskedSource:
    """Frames whose left half is spoilt, and masked as such."""

    masked, channels = True, 4

    def __init__(self, source):
        self.source = source

    def read(self, keys):
        for frame in self.source.read(keys):
            valid = np.zeros((*frame.shape[:2], 1), np.uint8)
            valid[:, frame.shape[1] // 2 :] = 255
            yield np.concatenate([frame * (valid > 0), valid], 2)


def picture_files(result):
    pictures = result["pictures"]
    return [pictures["curves"], *pictures["first"].values(), *(worst["file"] for worst in pictures["worst"])]


def test_page_agrees_with_the_numbers(run, tiny_scene):
    result = evaluate(run, tiny_scene, every=1, progress=False)
    page = page_path(run).read_text()
    raw, affine = page.split("## After an affine colour fit")
    means = f"| **mean** | 4 | {result['psnr']:.2f} | {result['ssim']:.4f} | {result['ssim2']:.4f} |"
    assert means in raw and f"all images together: {result['psnr_pooled']:.2f}" in raw
    assert f"| test00 | 4 | {result['psnr_affine']:.2f} | {result['ssim_affine']:.4f} |" in affine
    assert "psnr_affine" not in raw and f"{result['mask']['iou']:.3f}" in page
    for name in ("near", "background", "color"):
        assert f"| {name} | {str(result['protocol'][name]).replace('[', chr(92) + '[')[:20]}" in page
    links = re.findall(r"\]\((\S+)\)", page)
    assert sorted(links) == sorted(picture_files(result))
    assert all((run.path / "eval" / link).is_file() for link in links)
