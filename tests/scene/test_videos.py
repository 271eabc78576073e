"""Frames of damaged videos: each at its own number, or not at all."""

import numpy as np
import pytest

from msth_taichi.errors import DataError
from msth_taichi.scene import videos
from msth_taichi.scene.videos import video_frames
from tests.scene.damaging import spoil, write_groups

FRAMES, GROUP = 20, 5
NOISE = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
PICTURES = [np.roll(NOISE, 8 * t, 1) // 2 + 5 * t for t in range(FRAMES)]


def found(path) -> list[int | None]:
    """What each frame shows, by the picture that is nearest."""
    frames = [None if frame is None else frame.to_ndarray(format="rgb24").astype(int) for frame in video_frames(path)]
    return [f if f is None else int(np.argmin([abs(f - p).mean() for p in PICTURES])) for f in frames]


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
@pytest.mark.parametrize("between", [0, 2])
@pytest.mark.parametrize("frame", [7, 10])
def test_a_lost_packet_costs_what_is_made_from_it_and_moves_nothing(tmp_path, codec, between, frame):
    path = tmp_path / "a.mp4"
    write_groups(path, PICTURES, GROUP, codec, between)
    assert found(path) == list(range(FRAMES))
    spoil(path, frame)
    numbers = found(path)
    assert len(numbers) == FRAMES and all(number in (None, t) for t, number in enumerate(numbers))
    after = -(-(frame + 1) // GROUP) * GROUP
    assert numbers[frame:after] == [None] * (after - frame)
    # of frames between two others, those before it may be lost with it
    assert numbers[: frame - between] == list(range(frame - between)) and numbers[after:] == list(range(after, FRAMES))


def test_damage_that_the_decoder_hides_is_seen(tmp_path):
    """Of some sizes at least: the encoder's bytes are not always the same, and may bear the loss of a few."""
    seen = []
    for size in (40, 46, 50, 54):
        path = tmp_path / f"{size}.mp4"
        write_groups(path, PICTURES, GROUP)
        spoil(path, 12, size=size)
        seen.append([t for t, number in enumerate(found(path)) if number is None])
    assert [12, 13, 14] in seen and all(lost in ([], [12, 13, 14]) for lost in seen)


def test_a_video_that_is_mostly_damaged_is_refused(tmp_path):
    path = tmp_path / "a.mp4"
    write_groups(path, PICTURES, GROUP)
    for frame in (1, 5, 10):
        spoil(path, frame)
    with pytest.raises(DataError, match=r"a.mp4: 14 of 20 frames are damaged .* restore the file"):
        list(video_frames(path))


def test_a_sound_video_is_decoded_once_and_a_damaged_one_is_looked_through_once(tmp_path, monkeypatch):
    opened, inner = [], videos._decoded
    monkeypatch.setattr(
        videos, "_decoded", lambda *given, careful=False: opened.append(careful) or inner(*given, careful=careful)
    )
    path = tmp_path / "a.mp4"
    write_groups(path, PICTURES, GROUP)
    found(path)
    assert opened == [False]
    spoil(path, 7)
    assert found(path) == found(path)
    assert opened[1:] == [False, True, True, False, True]


def test_a_file_that_is_not_given_to_us_is_no_damage(tmp_path, monkeypatch):
    path = tmp_path / "a.mp4"
    write_groups(path, PICTURES, GROUP)
    frames = video_frames(path)
    next(frames)

    def broken(*_, **__):
        raise OSError(5, "Input/output error")

    spoil(path, 7)
    monkeypatch.setattr(videos, "_opened", broken)
    with pytest.raises(DataError, match=r"a.mp4: unreadable video .*Input/output error"):
        list(video_frames(path))
