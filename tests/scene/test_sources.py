"""Files of pictures and videos: what is taken, what is refused."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from msth_taichi.errors import DataError, FrameError
from msth_taichi.scene import videos
from msth_taichi.scene.sources import FileInfo, ImageSource, VideoSource, probe_image, probe_video, shrink
from tests.scene.rig import write_video

SIZE = (64, 48)
NOISE = np.random.default_rng(0).integers(0, 256, (*SIZE[::-1], 3), np.uint8)


def video(path: Path, frames: int = 4) -> VideoSource:
    write_video(path, [np.roll(NOISE, t) for t in range(frames)])
    return VideoSource((path,), frames, (SIZE,))


def refused(use: Callable[[], object]) -> str:
    with pytest.raises(DataError) as error:
        use()
    return str(error.value)


def test_area_average_rounds_to_nearest_and_cuts_what_fills_no_block():
    image = np.zeros((5, 7, 3), np.uint8)
    image[0, 0], image[0, 1], image[2:4, 4:6] = 5, 1, 200
    small = shrink(image, 2)
    assert small.shape == (2, 3, 3)
    assert small[0, 0].tolist() == [2, 2, 2]  # 6 / 4 = 1.5
    assert small[1, 2].tolist() == [200] * 3
    assert small.sum() == 3 * 202


def test_transparent_pixels_do_not_darken_colours():
    image = np.zeros((2, 2, 4), np.uint8)
    image[0] = [200, 100, 50, 255]
    assert shrink(image, 2)[0, 0].tolist() == [200, 100, 50, 128]


@pytest.mark.parametrize("channels", [3, 4])
def test_factor_1_changes_nothing(channels):
    image = np.random.default_rng(0).integers(0, 256, (3, 4, channels), dtype=np.uint8)
    assert np.array_equal(shrink(image, 1), image)


@pytest.mark.parametrize(
    ("mode", "suffix", "channels"),
    [("RGB", "png", 3), ("RGBA", "png", 4), ("L", "png", 3), ("LA", "png", 4), ("P", "png", 3), ("CMYK", "jpg", 3)],
)
def test_every_picture_of_8_bits_becomes_rgb_or_rgba(tmp_path, mode, suffix, channels):
    path = tmp_path / f"a.{suffix}"
    Image.new(mode, (5, 4)).save(path)
    assert probe_image(path) == FileInfo(5, 4, channels)
    assert next(ImageSource((path,), ((5, 4),), channels).read(np.array([0]))).shape == (4, 5, channels)


@pytest.mark.parametrize("mode", ["1", "I;16"])
def test_pictures_of_other_bits_are_refused(tmp_path, mode):
    Image.new(mode, (5, 4)).save(tmp_path / "a.png")
    assert "8-bit" in refused(lambda: probe_image(tmp_path / "a.png"))


def test_a_program_that_is_called_a_picture_is_not_run(tmp_path, monkeypatch):
    """PostScript is one; pillow would hand it to Ghostscript."""
    path = tmp_path / "a.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 4\n%%EndComments\nshowpage\n%%EOF\n")
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("something was run"))
    assert "a.png" in refused(lambda: probe_image(path))
    (found,) = ImageSource((path,), ((5, 4),), 3).read(np.array([0]))
    assert isinstance(found, FrameError) and "a.png" in str(found)


def test_a_list_of_files_that_is_called_a_video_is_not_followed(tmp_path):
    video(tmp_path / "a.mp4")
    (tmp_path / "b.mp4").write_text("ffconcat version 1.0\nfile a.mp4\n")
    assert "b.mp4" in refused(lambda: probe_video(tmp_path / "b.mp4"))


def test_frames_that_the_decoder_made_up_are_told(tmp_path):
    """It hides damage by what it knows of other frames, and only notes that it did."""
    source = video(tmp_path / "a.mp4")
    data = bytearray((tmp_path / "a.mp4").read_bytes())
    middle = data.index(b"mdat") + len(data) // 2
    data[middle : middle + 100] = bytes(100)
    (tmp_path / "a.mp4").write_bytes(data)
    assert probe_video(tmp_path / "a.mp4").frames == 4
    *whole, damaged, after = source.read(np.arange(4))
    assert all(np.array_equal(frame, np.roll(NOISE, t)) for t, frame in enumerate(whole)) and len(whole) == 2
    assert isinstance(damaged, FrameError) and "frame 2 is damaged; restore" in str(damaged) and damaged.frame == 2
    assert isinstance(after, FrameError), "it is made from the one before"


def test_a_frame_that_is_asked_for_again_is_not_decoded_again(tmp_path, monkeypatch):
    source = video(tmp_path / "a.mp4")
    opened = []
    inner = source.read.__globals__["video_frames"]
    monkeypatch.setitem(
        source.read.__globals__, "video_frames", lambda path, first: opened.append(path) or inner(path, first)
    )
    frames = list(source.read(np.array([0, 0, 1, 1, 3])))
    assert all((frame == np.roll(NOISE, t)).all() for frame, t in zip(frames, (0, 0, 1, 1, 3), strict=True))
    assert len(opened) == 1


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
def test_frames_late_in_a_video_are_found_without_decoding_those_before(tmp_path, monkeypatch, suffix):
    """Also where frames refer to later ones, and where a file does not say when its frames are shown."""
    path, size = tmp_path / f"a.{suffix}", (16, 16)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"g": "12", "bf": "2", "x264-params": "scenecut=0"})
        stream.width, stream.height = size
        for t in range(150):
            picture = np.full((16, 16, 3), t, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    source = VideoSource((path,), 150, (size,))
    every = list(source.read(np.arange(150)))
    assert len({frame.mean().round() for frame in every}) > 100, "the frames can be told apart"
    decoded, inner = [], videos._frames

    def counted(*given):
        for frame in inner(*given):
            decoded.append(frame)
            yield frame

    monkeypatch.setattr(videos, "_frames", counted)
    for keys in ([100, 101, 110], [149], [61, 60], [100, 5]):
        decoded.clear()
        found = list(source.read(np.array(keys)))
        assert all((frame == every[key]).all() for frame, key in zip(found, keys, strict=True)), keys
        if keys == [100, 101, 110] and suffix != "avi":
            assert len(decoded) < 2 * 12 + 10
