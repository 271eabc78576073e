"""Rendering along a path: what is written, under which name, and that nothing half-written stays."""

import dataclasses
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch

from msth_taichi.errors import RunError
from msth_taichi.model.renderer import render_image
from msth_taichi.rendering import render
from msth_taichi.rendering.paths import make_path
from msth_taichi.rendering.pictures import depth_picture, depth_range
from msth_taichi.rendering.render import OUTPUTS, output_files, render_path


@pytest.fixture
def path(tiny_run):
    return make_path(tiny_run.scene, "test", frames=3)


def files(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


def test_one_output_is_exactly_the_path(tiny_run, path, tmp_path):
    assert render_path(tiny_run, path, output=tmp_path / "a.mp4", progress=False) == [tmp_path / "a.mp4"]
    assert files(tmp_path) == ["a.mp4"]
    assert iio.imread(tmp_path / "a.mp4", plugin="pyav").shape == (3, 18, 24, 3)


def test_every_output_gets_its_own_video(tiny_run, path, tmp_path):
    written = render_path(tiny_run, path, list(OUTPUTS), output=tmp_path / "a.mp4", progress=False)
    assert [file.name for file in written] == [f"a-{name}.mp4" for name in OUTPUTS]
    assert files(tmp_path) == sorted(file.name for file in written)


def test_images_are_the_renders_in_the_order_of_the_path(tiny_run, path, tmp_path):
    outputs = ["rgb", "static", "mask"]
    render_path(tiny_run, path, outputs, output=tmp_path / "a", format="png", progress=False)
    for frame, (camera, time) in enumerate(zip(path.camera, path.time, strict=True)):
        for name in outputs:
            mode, key = OUTPUTS[name]
            expected = render_image(tiny_run.model, path.cameras, int(camera), float(time), mode=mode)[key].cpu()
            found = iio.imread(tmp_path / f"a-{name}" / f"frame_{frame:05d}.png") / 255
            found = found if expected.ndim == 3 else found[..., 0]
            np.testing.assert_allclose(found, expected, atol=0.5 / 255 + 1e-6)


def test_scale_changes_the_number_of_pixels_not_the_view(tiny_run, path, tmp_path):
    for scale in (1, 2):
        render_path(tiny_run, path, output=tmp_path / str(scale), format="png", scale=scale, progress=False)
    small, large = (iio.imread(tmp_path / str(scale) / "frame_00000.png") / 255 for scale in (1, 2))
    assert large.shape == (36, 48, 3)
    blocks = large.reshape(18, 2, 24, 2, 3).mean((1, 3))
    assert np.abs(blocks - small).mean() < 0.02


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"outputs": ["rgb", "normals"]}, "unknown output 'normals'; choose from rgb, depth"),
        ({"outputs": []}, "unknown output"),
        ({"format": "gif"}, "unknown format; use mp4 or png"),
        ({"output": Path("a.avi")}, "ends in .mp4"),
        ({"scale": 0.0}, "--scale 0"),
        ({"scale": float("nan")}, "--scale nan"),
        ({"scale": 1e6}, "--scale 1e+06"),
    ],
)
def test_wrong_requests_are_named_before_any_work(tiny_run, path, tmp_path, monkeypatch, options, says):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError) as error:
        render_path(tiny_run, path, **{"output": Path("a.mp4"), "progress": False, **options})
    assert says in str(error.value)
    assert not files(tmp_path)


def test_what_exists_is_kept_unless_told(tmp_path):
    (tmp_path / "a-depth.mp4").write_bytes(b"mine")
    with pytest.raises(RunError, match=r"a-depth\.mp4: already exists; pass --overwrite"):
        output_files(tmp_path / "a.mp4", ["rgb", "depth"], "mp4", overwrite=False)
    assert len(output_files(tmp_path / "a.mp4", ["rgb", "depth"], "mp4", overwrite=True)) == 2
    (tmp_path / "empty").mkdir()
    assert output_files(tmp_path / "empty", ["rgb"], "png", overwrite=False)


def test_a_failing_render_leaves_nothing(tiny_run, path, tmp_path, monkeypatch):
    calls = []

    def fail(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return render_image(*arguments, **options)

    monkeypatch.setattr(render, "render_image", fail)
    with pytest.raises(KeyboardInterrupt):
        render_path(tiny_run, path, ["rgb", "depth"], output=tmp_path / "a.mp4", progress=False)
    assert not files(tmp_path)


def test_a_failing_writer_stops_the_render(tiny_run, path, tmp_path, monkeypatch):
    def fail(file, frames, fps):
        next(frames)
        raise RunError(f"{file}: cannot be written")

    monkeypatch.setattr(render, "write_video", fail)
    long = dataclasses.replace(path, camera=np.repeat(path.camera, 20), time=np.repeat(path.time, 20))
    with pytest.raises(RunError, match="cannot be written"):
        render_path(tiny_run, long, ["rgb", "depth"], output=tmp_path / "a.mp4", progress=False)
    assert not files(tmp_path)


def test_near_is_red_and_far_is_blue():
    depth = torch.linspace(0.5, 4.0, 200).view(10, 20)
    image = {"depth": depth, "accumulation": torch.ones_like(depth)}
    picture = depth_picture(image, depth_range(image)).astype(int)
    # the ends of the colour map are nearly black
    assert picture[0, 4, 0] > picture[0, 4, 2] + 50 and picture[5, 0, 2] > picture[5, 0, 0] + 50
    unbounded = torch.where(depth > 3.9, 1e6, depth)  # a sky must not push all else into one colour
    low, high = depth_range({**image, "depth": unbounded})
    assert low < 0.3 and high > 1.5


def test_the_depth_of_nothing_is_black_and_leaves_the_other_colours_alone():
    depth = torch.linspace(0.5, 4.0, 200).view(10, 20)
    solid = torch.arange(20).expand(10, 20) < 12
    image = {"depth": torch.where(solid, depth, 1e-3), "accumulation": torch.where(solid, 0.9, 0.3)}
    limits = depth_range(image)
    picture = depth_picture(image, limits)
    assert limits[1] < 2.1 and not picture[~solid.numpy()].any() and picture[solid.numpy()].any(-1).all()
    empty = {**image, "accumulation": torch.zeros_like(depth)}
    assert not depth_picture(empty, depth_range(empty)).any()
