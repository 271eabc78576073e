"""`resize_videos.py`: pixels, frames and calibration of the smaller data set."""

import json
from fractions import Fraction

import av
import numpy as np
import pytest

from msth_taichi.ops.rays import generate_rays
from msth_taichi.scene.scene import load_scene
from msth_taichi.scene.sources import VideoSource, probe_video
from tests.scene.rig import AS_IS, room_rig, write_video

WIDTH, HEIGHT, FRAMES = 32, 24, 6


def decode(path):
    info = probe_video(path)
    source = VideoSource((path,), info.frames, ((info.width, info.height),))
    return np.stack(list(source.read(np.arange(info.frames))))


def ramp(frames=FRAMES, width=WIDTH, height=HEIGHT):
    """Frames whose brightness tells their number."""
    return [np.full((height, width, 3), (20 + 30 * t) % 256, np.uint8) for t in range(frames)]


@pytest.fixture
def resize():
    from resize_videos import resize

    return resize


@pytest.fixture
def rig_folder(tmp_path):
    """Two cameras of the built-in scene in the project's format, distortion and all."""
    rig = room_rig(cameras=2, frames=4)
    folder = tmp_path / "in"
    for split, v in (("train", 0), ("test", 1)):
        write_video(folder / "videos" / f"cam{v}.mp4", rig.frames[v])
        view = rig.views[v]
        entry = {
            "file_path": f"videos/cam{v}.mp4",
            "transform_matrix": [*view.pose.tolist(), [0, 0, 0, 1]],
            **dict(zip(("fl_x", "fl_y", "cx", "cy"), view.intrinsics, strict=True)),
            "k1": 0.05,
        }
        top = {"w": view.width, "h": view.height, "num_frames": 4, "fps": 25, "frames": [entry]}
        (folder / f"transforms_{split}.json").write_text(json.dumps(top))
    (folder / "notes.txt").write_text("kept")
    return folder


def test_half_the_size_averages_areas(resize, call, tmp_path):
    frame = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    frame[::2] = 200
    write_video(tmp_path / "in" / "cam00.mp4", [frame] * 3)
    code, _, err = call(resize, tmp_path / "in", "--output", tmp_path / "out", "--scale", "0.5", "--lossless")
    assert code == 0, err
    small = decode(tmp_path / "out" / "cam00.mp4")
    assert small.shape == (3, HEIGHT // 2, WIDTH // 2, 3)
    assert np.abs(small.astype(int) - 100).max() <= 2


@pytest.mark.parametrize("pixels", ["rgb24", "yuv420p", "yuv444p", "yuvj420p"])
def test_colours_stay(resize, call, tmp_path, pixels):
    path = tmp_path / "in" / "cam00.mp4"
    path.parent.mkdir()
    color = np.array([230, 60, 120])
    frame = av.VideoFrame.from_ndarray(np.full((HEIGHT, WIDTH, 3), color, np.uint8), format="rgb24")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264rgb" if pixels == "rgb24" else "libx264", rate=25, options={"crf": "0"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pixels
        for _ in range(2):
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    before = decode(path)
    assert np.abs(before - color.astype(float)).max() < 4, "the test's own video"
    for option in ([], ["--lossless"]):
        out = tmp_path / f"out{len(option)}"
        code, _, err = call(resize, tmp_path / "in", "--output", out, "--scale", "0.5", "--crf", "4", *option)
        assert code == 0, err
        assert np.abs(decode(out / "cam00.mp4").astype(float) - before[:, :12, :16]).max() < 4


@pytest.mark.parametrize(("option", "size"), [(("--height", "12"), (16, 12)), (("--scale", "0.3"), (10, 7))])
def test_sizes_odd_ones_too(resize, call, tmp_path, option, size):
    write_video(tmp_path / "in" / "cam00.mp4", ramp())
    code, _, err = call(resize, tmp_path / "in", "--output", tmp_path / "out", *option)
    assert code == 0, err
    info = probe_video(tmp_path / "out" / "cam00.mp4")
    assert (info.width, info.height) == size and info.frames == FRAMES


@pytest.mark.parametrize(("fps", "kept"), [(30, [0, 1, 2, 3, 4, 5]), (15, [0, 2, 4]), (20, [0, 1, 3, 4]), (60, None)])
def test_frame_rates(resize, call, tmp_path, fps, kept):
    from resize_videos import frames_at_rate

    write_video(tmp_path / "in" / "cam00.mp4", ramp(), fps=30)
    code, _, err = call(resize, tmp_path / "in", "--output", tmp_path / "out", "--fps", fps, "--lossless")
    assert code == 0, err
    found = decode(tmp_path / "out" / "cam00.mp4")[:, 0, 0, 0]
    expected = [t for t in range(FRAMES) for _ in (0, 1)] if kept is None else kept
    assert found.tolist() == [20 + 30 * t for t in expected]
    assert len(found) == frames_at_rate(FRAMES, Fraction(30), Fraction(fps))
    assert probe_video(tmp_path / "out" / "cam00.mp4").fps == pytest.approx(fps)


def test_small_scene_sees_the_same_rays(resize, call, rig_folder, tmp_path):
    out = tmp_path / "out"
    code, _, err = call(resize, rig_folder, "--output", out, "--scale", "0.5", "--fps", "12.5", "--lossless")
    assert code == 0, err
    before, after = load_scene(rig_folder, AS_IS), load_scene(out, AS_IS)
    assert after.num_frames == 2 and after.fps == 12.5
    assert after.cameras.sizes.tolist() == [[16, 12]] * 2
    pixels = np.array([[0.0, 0.0], [3.0, 7.0], [16.0, 12.0]], np.float32)
    for i in range(2):
        big, small = (rays(scene.cameras.select([i]), pixels * k) for scene, k in ((before, 2), (after, 1)))
        np.testing.assert_allclose(big, small, atol=1e-6)
    first = [next(iter(scene.images("test").read())).astype(float) for scene in (before, after)]
    blocks = first[0].reshape(12, 2, 16, 2, 3).mean((1, 3))
    assert np.abs(blocks - first[1]).mean() < 1
    assert (out / "notes.txt").read_text() == "kept"


def rays(cameras, pixels):
    import torch

    return np.concatenate(
        generate_rays(
            torch.from_numpy(pixels),
            torch.zeros(len(pixels), dtype=torch.int32),
            cameras.camera_to_world,
            cameras.intrinsics,
            cameras.distortion,
            cameras.lens,
        ),
        axis=1,
    )


def test_second_call_writes_nothing_and_other_settings_are_refused(resize, call, rig_folder, tmp_path):
    out = tmp_path / "out"
    call(resize, rig_folder, "--output", out, "--scale", "0.5")
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*.mp4")}
    code, text, _ = call(resize, rig_folder, "--output", out, "--scale", "0.5")
    assert code == 0 and "0 videos written, 2 there already" in text
    assert times == {path: path.stat().st_mtime_ns for path in out.rglob("*.mp4")}
    code, _, err = call(resize, rig_folder, "--output", out, "--height", "8")
    assert code == 2 and "--overwrite" in err and err.count("\n") == 1
    code, _, _ = call(resize, rig_folder, "--output", out, "--height", "8", "--overwrite")
    assert code == 0 and load_scene(out, AS_IS).cameras.sizes.tolist() == [[11, 8]] * 2


def test_broken_video_leaves_no_half_file(resize, call, tmp_path):
    source = tmp_path / "in" / "cam00.mp4"
    write_video(source, ramp(30))
    source.write_bytes(source.read_bytes()[:-400])
    code, _, err = call(resize, tmp_path / "in", "--output", tmp_path / "out", "--scale", "0.5")
    assert code == 2 and err.startswith("error: ") and "cam00.mp4" in err and err.count("\n") == 1
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--scale or --height"),
        (("--scale", "0.5", "--height", "9"), "--scale or --height"),
        (("--scale", "0"), "0.01"),
    ],
)
def test_wrong_options(resize, call, tmp_path, arguments, message):
    write_video(tmp_path / "in" / "cam00.mp4", ramp(1))
    code, _, err = call(resize, tmp_path / "in", "--output", tmp_path / "out", *arguments)
    assert code == 2 and message in err and err.count("\n") == 1


def test_no_videos_and_output_inside_the_input(resize, call, tmp_path):
    code, _, err = call(resize, tmp_path, "--output", tmp_path / "out", "--scale", "0.5")
    assert code == 2 and "lies in the input" in err
    (tmp_path / "in").mkdir()
    code, _, err = call(resize, tmp_path / "in", "--output", tmp_path / "out", "--scale", "0.5")
    assert code == 2 and "no video" in err
