"""`convert_dynerf_images.py`: frames to videos and back."""

import imageio.v3 as iio
import numpy as np
import pytest

from msth_taichi.scene.sources import VideoSource, probe_video

FRAMES = np.random.default_rng(5).integers(0, 255, (2, 4, 12, 16, 3), dtype=np.uint8)


def write_frames(folder, inner="", suffix="png", first=0):
    for c, frames in enumerate(FRAMES):
        target = folder / f"cam{c:02d}" / inner
        target.mkdir(parents=True)
        for t, frame in enumerate(frames):
            iio.imwrite(target / f"frame_{first + t:04d}.{suffix}", frame)
    np.save(folder / "poses_bounds.npy", np.zeros((2, 17)))


def decode(path):
    info = probe_video(path)
    source = VideoSource((path,), info.frames, ((info.width, info.height),))
    return np.stack(list(source.read(np.arange(info.frames))))


@pytest.fixture
def commands():
    from convert_dynerf_images import images, videos

    return videos, images


@pytest.mark.parametrize(("inner", "first"), [("", 0), ("images", 1)])
def test_there_and_back_is_exact(commands, call, tmp_path, inner, first):
    write_frames(tmp_path / "in", inner, first=first)
    code, out, err = call(
        commands, "videos", tmp_path / "in", "--output", tmp_path / "videos", "--fps", "25", "--lossless"
    )
    assert code == 0 and "2 videos written" in out, err
    for c in range(2):
        path = tmp_path / "videos" / f"cam{c:02d}.mp4"
        np.testing.assert_array_equal(decode(path), FRAMES[c])
        assert probe_video(path).fps == 25
    assert (tmp_path / "videos" / "poses_bounds.npy").is_file()

    code, _, err = call(commands, "images", tmp_path / "videos", "--output", tmp_path / "out")
    assert code == 0, err
    for c in range(2):
        files = sorted((tmp_path / "out" / f"cam{c:02d}").iterdir())
        assert [file.name for file in files] == [f"{t:04d}.png" for t in range(4)]
        np.testing.assert_array_equal(np.stack([iio.imread(file) for file in files]), FRAMES[c])


def test_every_second_frame_as_jpg(commands, call, tmp_path):
    write_frames(tmp_path / "in")
    call(commands, "videos", tmp_path / "in", "--output", tmp_path / "videos")
    code, _, err = call(
        commands, "images", tmp_path / "videos", "--output", tmp_path / "out", "--suffix", "jpg", "--every", "2"
    )
    assert code == 0, err
    assert sorted(path.name for path in (tmp_path / "out" / "cam01").iterdir()) == ["0000.jpg", "0001.jpg"]


def test_second_call_skips(commands, call, tmp_path):
    write_frames(tmp_path / "in")
    call(commands, "videos", tmp_path / "in", "--output", tmp_path / "out")
    code, out, _ = call(commands, "videos", tmp_path / "in", "--output", tmp_path / "out")
    assert code == 0 and "0 videos written, 2 there already" in out
    code, out, _ = call(commands, "images", tmp_path / "out", "--output", tmp_path / "frames")
    code, out, _ = call(commands, "images", tmp_path / "out", "--output", tmp_path / "frames")
    assert code == 0 and "of 0 videos written, 2 there already" in out


def spoil_remove(folder):
    (folder / "cam00" / "frame_0002.png").unlink()


def spoil_end(folder):
    (folder / "cam01" / "frame_0003.png").unlink()


def spoil_size(folder):
    iio.imwrite(folder / "cam00" / "frame_0002.png", FRAMES[0, 0, :, :8])


def spoil_content(folder):
    (folder / "cam00" / "frame_0002.png").write_bytes(b"no picture")


def spoil_alpha(folder):
    for file in (folder / "cam00").iterdir():
        iio.imwrite(file, np.zeros((12, 16, 4), np.uint8))


def spoil_name(folder):
    (folder / "cam00" / "frame_0002.png").rename(folder / "cam00" / "two.png")


def spoil_twice(folder):
    iio.imwrite(folder / "cam00" / "x2.png", FRAMES[0, 0])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_remove, "after frame_0001.png is missing"),
        (spoil_end, "3 frames, but cam00 has 4"),
        (spoil_size, "8x12, but"),
        (spoil_content, "frame_0002.png"),
        (spoil_alpha, "has alpha"),
        (spoil_name, "no number"),
        (spoil_twice, "same number"),
    ],
)
def test_bad_frames_are_one_line(commands, call, tmp_path, spoil, message):
    write_frames(tmp_path / "in")
    spoil(tmp_path / "in")
    code, _, err = call(commands, "videos", tmp_path / "in", "--output", tmp_path / "out")
    assert code == 2 and message in err and err.count("\n") == 1
    assert not (tmp_path / "out" / "cam00.mp4").exists()


def test_no_frames(commands, call, tmp_path):
    code, _, err = call(commands, "videos", tmp_path, "--output", tmp_path / "out")
    assert code == 2 and "no folder with images" in err
