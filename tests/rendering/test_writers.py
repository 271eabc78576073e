"""Videos and images on disk: what is read back, and what a failure leaves."""

import imageio.v3 as iio
import numpy as np
import pytest

from msth_taichi.errors import RunError
from msth_taichi.rendering.writers import colorize, mosaic, save_image, to_uint8, write_images, write_video


def ramp(height=48, width=64, shift=0.0):
    """A smooth picture, which a lossy codec must keep."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x / width, y / height, np.full_like(x, 0.2, dtype=float) + shift], axis=-1)


def failing(count):
    yield from (ramp() for _ in range(count))
    raise ZeroDivisionError("the renderer failed")


@pytest.mark.parametrize("size", [(48, 64), (47, 63), (48, 63)])
def test_video_is_read_back(tmp_path, size):
    height, width = size
    frames = [ramp(height, width, shift) for shift in np.linspace(0, 0.7, 12)]
    path = tmp_path / "new" / "video.mp4"
    assert write_video(path, iter(frames), fps=12.5) == 12
    read = iio.imread(path, plugin="pyav")
    assert read.shape == (12, height + height % 2, width + width % 2, 3)
    difference = read[:, :height, :width].astype(float) - np.stack(frames) * 255
    assert np.abs(difference).mean() < 3
    # the extra row and column repeat the edge: no dark seam
    assert np.abs(read[:, -1].astype(float) - read[:, height - 1]).mean() < 6
    assert iio.immeta(path, plugin="pyav")["fps"] == 12.5
    assert iio.improps(path, plugin="pyav").shape[0] == 12
    assert [p.name for p in path.parent.iterdir()] == ["video.mp4"]


def test_video_uses_the_format_every_player_knows(tmp_path):
    write_video(tmp_path / "a.mp4", [ramp()], fps=30)
    metadata = iio.immeta(tmp_path / "a.mp4", plugin="pyav")
    assert metadata["codec"] == "h264" and metadata["video_format"] == "yuv420p"


def test_images_are_read_back_exactly(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (3, 5, 7, 3), dtype=np.uint8)
    assert write_images(tmp_path / "frames", frames) == 3
    assert sorted(p.name for p in (tmp_path / "frames").iterdir()) == [f"frame_0000{i}.png" for i in range(3)]
    for i, frame in enumerate(frames):
        np.testing.assert_array_equal(iio.imread(tmp_path / f"frames/frame_0000{i}.png"), frame)


def test_a_shorter_sequence_leaves_no_old_frames(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    write_images(tmp_path, [ramp()] * 4)
    write_images(tmp_path, [ramp(8, 8)] * 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["frame_00000.png", "frame_00001.png", "notes.txt"]
    assert iio.imread(tmp_path / "frame_00000.png").shape == (8, 8, 3)


@pytest.mark.parametrize("count", [0, 5])
@pytest.mark.parametrize("write", [lambda path, frames: write_video(path, frames, 10), write_images])
def test_failure_midway_leaves_what_was_there(tmp_path, write, count):
    path = tmp_path / "out.mp4"
    with pytest.raises(ZeroDivisionError):
        write(path, failing(count))
    assert not path.is_file() and not [p for p in tmp_path.rglob("*") if p.is_file()]

    write(path, [ramp()] * 2)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert before
    with pytest.raises(ZeroDivisionError):
        write(path, failing(count))
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("write", [lambda path, frames: write_video(path, frames, 10), write_images])
def test_unusable_frames_and_paths_are_named(tmp_path, write):
    with pytest.raises(RunError, match=r"out.mp4: no frames"):
        write(tmp_path / "out.mp4", [])
    with pytest.raises(RunError, match=r"out.mp4: frame 1 is 63x48, the first is 64x48"):
        write(tmp_path / "out.mp4", [ramp(), ramp(48, 63)])
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match=r"a.mp4: cannot be written"):
        write(tmp_path / "file" / "a.mp4", [ramp()])
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [tmp_path / "file"]


def test_image_is_replaced_whole(tmp_path):
    path = tmp_path / "a.png"
    save_image(path, ramp())
    save_image(path, np.full((4, 6), 0.5))  # grey
    np.testing.assert_array_equal(iio.imread(path), np.full((4, 6, 3), 128, np.uint8))
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
    with pytest.raises(RunError, match="is a folder"):
        save_image(tmp_path, ramp())


def test_floats_are_clamped_and_rounded():
    image = np.array([[-1.0, 0.0, 0.5, 0.999], [1.0, 7.0, np.nan, np.inf]])
    assert to_uint8(image)[..., 0].tolist() == [[0, 0, 128, 255], [255, 255, 0, 255]]
    every = np.arange(256, dtype=np.uint8)[None]
    np.testing.assert_array_equal(to_uint8(every / 255.0)[..., 1], every)


def test_colours_run_from_blue_over_green_to_red():
    blue, green, red = colorize(np.array([[2.4, 5.0, 7.6]]), 2, 8)[0]
    assert blue.argmax() == 2 and green.argmax() == 1 and red.argmax() == 0


def test_colours_are_clamped_to_the_range():
    colors = colorize(np.array([[-5.0, 0.0, 1.0, 9.0, np.nan, np.inf]]), 0, 1)[0]
    assert colors.dtype == np.uint8
    assert (colors[0] == colors[1]).all() and (colors[2] == colors[3]).all()
    assert (colors[4:] == 0).all()
    assert (colorize(np.array([[3.0, 4.0]]), 3, 3) == colors[0]).all()


def test_neighbouring_values_have_neighbouring_colours():
    colors = colorize(np.linspace(0, 1, 1024)[None], 0, 1)[0].astype(int)
    assert np.abs(np.diff(colors, axis=0)).max() <= 4


def test_mosaic_keeps_pictures_and_names_them():
    panels = {
        "target": ramp(40, 50),
        "mask": np.full((40, 30), 0.25),
        "a name longer than its panel": ramp(40, 30),
    }
    picture = mosaic(panels)
    strip = picture.shape[0] - 40
    assert picture.shape == (40 + strip, 110, 3) and strip > 0
    np.testing.assert_array_equal(picture[strip:, :50], to_uint8(panels["target"]))
    assert (picture[strip:, 50:80] == 64).all()
    for left, right in ((0, 50), (50, 80), (80, 110)):
        assert picture[:strip, left:right].max() > 150  # a caption
    # each caption stays within its own panel, whatever its length
    assert (picture[:strip, :80] == mosaic({k: panels[k] for k in ("target", "mask")})[:strip]).all()
