"""Videos and images on disk: what is read back, and what a failure leaves."""

from pathlib import Path

import av
import imageio.v3 as iio
import numpy as np
import pytest
from PIL import Image

from msth_taichi.errors import RunError
from msth_taichi.rendering.timing import FASTEST, SLOWEST
from msth_taichi.rendering.writers import (
    colorize,
    mosaic,
    over_black,
    read_metadata,
    save_image,
    to_uint8,
    write_animation,
    write_video,
)

WRITERS = [
    lambda path, frames: write_video(path, frames, 10),
    lambda path, frames: write_animation(path.with_suffix(".webp"), frames, 10),
]


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


def test_h265_is_one_that_players_know(tmp_path):
    frames = [ramp(shift=shift) for shift in np.linspace(0, 0.7, 12)]
    assert write_video(tmp_path / "a.mp4", frames, 30, "h265") == 12
    with av.open(str(tmp_path / "a.mp4")) as container:
        codec = container.streams.video[0].codec_context
        assert codec.name == "hevc" and codec.codec_tag == "hvc1"
    difference = iio.imread(tmp_path / "a.mp4", plugin="pyav").astype(float) - np.stack(frames) * 255
    assert np.abs(difference).mean() < 3


@pytest.mark.parametrize("codec", ["h264", "h265"])
def test_colours_are_those_of_bt709_and_say_so(tmp_path, codec):
    color = np.array([200, 30, 60])
    write_video(tmp_path / "a.mp4", [np.broadcast_to(color, (720, 1280, 3)).astype(np.uint8)], 30, codec)
    with av.open(str(tmp_path / "a.mp4")) as container:
        found = container.streams.video[0].codec_context
        assert (found.colorspace, found.color_primaries, found.color_trc, found.color_range) == (1, 1, 1, 1)
        frame = next(container.decode(video=0))
    luma = 16 + 219 / 255 * (np.array([0.2126, 0.7152, 0.0722]) @ color)
    assert abs(frame.to_ndarray()[360, 640] - luma) < 1.5
    assert np.abs(iio.imread(tmp_path / "a.mp4", plugin="pyav")[0] - color).max() <= 3


@pytest.mark.parametrize("codec", ["h264", "h265"])
@pytest.mark.parametrize("count", [1, 2])
def test_one_or_two_frames_make_a_video(tmp_path, codec, count):
    # x265 leaves numbers of so few packets as its memory is, so once proves little
    frames = np.random.default_rng(0).random((count, 24, 24, 3))
    for k in range(4):
        assert write_video(tmp_path / f"{k}.mp4", frames, 25, codec) == count
        assert len(iio.imread(tmp_path / f"{k}.mp4", plugin="pyav")) == count
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


@pytest.mark.parametrize("codec", ["h264", "h265"])
def test_the_same_frames_make_the_same_bytes(tmp_path, codec):
    # x264's macroblock tree makes a difference at this size within a few encodings
    noise = np.random.default_rng(0)
    frames = [np.roll(ramp(), 3 * k, 1) + noise.normal(0, 0.03, (48, 64, 3)) for k in range(24)]
    for k in range(12):
        write_video(tmp_path / f"{k}.mp4", frames, 25, codec, {"output": "rgb"})
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_previews_are_read_back(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    frames = [ramp(shift=shift) for shift in np.linspace(0, 0.7, 10)]
    assert write_animation(path, iter(frames), fps=30) == 10
    with Image.open(path) as preview:
        assert preview.n_frames == 10 and preview.info["loop"] == 0
        durations = []
        for k, frame in enumerate(frames):
            preview.seek(k)
            found = np.asarray(preview.convert("RGB")).astype(float)
            durations.append(preview.info["duration"])
            assert np.abs(found - to_uint8(frame)).mean() < 8
    assert abs(sum(durations) - 1000 * 10 / 30) <= 5  # single ones are rounded, their sum is not


def test_a_fast_gif_leaves_frames_out_rather_than_slow_down(tmp_path):
    assert write_animation(tmp_path / "a.gif", [ramp(shift=k / 12) for k in range(12)], fps=120) == 12
    with Image.open(tmp_path / "a.gif") as preview:
        assert preview.n_frames == 4 and preview.info["duration"] in (20, 30)


@pytest.mark.parametrize("fps", [SLOWEST, FASTEST])
@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.webp"])
def test_the_slowest_and_the_fastest_are_written(tmp_path, name, fps):
    write = write_video if name == "a.mp4" else write_animation
    assert write(tmp_path / name, [ramp(), ramp(shift=0.7)], fps) == 2
    if name == "a.mp4":
        assert iio.immeta(tmp_path / name, plugin="pyav")["fps"] == pytest.approx(fps)


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.webp"])
def test_files_say_what_they_show(tmp_path, name):
    metadata = {"output": "depth", "colors": "turbo \u2192 1 / depth", "limits": [0.1, 2.0]}
    write = write_video if name == "a.mp4" else write_animation
    write(tmp_path / name, [ramp()] * 2, 30, metadata=metadata)
    assert read_metadata(tmp_path / name) == metadata
    (tmp_path / name).write_bytes(b"damaged")
    assert read_metadata(tmp_path / name) == {}
    assert read_metadata(tmp_path / f"missing-{name}") == {}


@pytest.mark.parametrize("name", ["A.MP4", "A.GIF", "A.WEBP", "test:0.mp4", "test:0.gif", "test:0.webp"])
def test_names_may_have_capitals_and_colons(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write = write_video if name.lower().endswith(".mp4") else write_animation
    write(Path(name), [ramp(shift=k / 12) for k in range(12)], 120, metadata={"output": "rgb"})
    assert read_metadata(Path(name)) == {"output": "rgb"}
    assert [file.name for file in tmp_path.iterdir()] == [name]
    if name == "A.GIF":
        with Image.open(name) as preview:
            assert preview.n_frames == 4


@pytest.mark.parametrize("count", [0, 5])
@pytest.mark.parametrize("write", WRITERS)
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


@pytest.mark.parametrize("write", WRITERS)
def test_unusable_frames_and_paths_are_named(tmp_path, write):
    with pytest.raises(RunError, match=r"out.(mp4|webp): no frames"):
        write(tmp_path / "out.mp4", [])
    with pytest.raises(RunError, match=r"out.(mp4|webp): frame 1 is 63x48, the first is 64x48"):
        write(tmp_path / "out.mp4", [ramp(), ramp(48, 63)])
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match=r"a.(mp4|webp): cannot be written"):
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


def test_transparent_pictures_are_laid_over_black():
    image = np.array([[[200, 100, 50, 255], [200, 100, 50, 128], [200, 100, 50, 0]]], np.uint8)
    assert over_black(image).tolist() == [[[200, 100, 50], [100, 50, 25], [0, 0, 0]]]
    assert to_uint8(image / 255.0).tolist() == image.tolist()
    assert (over_black(image[..., :3]) == image[..., :3]).all()


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
