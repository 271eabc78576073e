"""Times of a video's frames: how many there are, where they begin and end, and what is refused."""

import numpy as np
import pytest

from msth_taichi.errors import RunError
from msth_taichi.rendering.timing import LONGEST, STILL_FRAMES, Timing, make_timing
from tests.rendering.rigs import RIGS, scene

RIG = scene(RIGS["pair"], frames=5)  # at 0, 0.2, ... 0.8, 30 a second


def timing(time: str = "play", frames: int | None = None, fps: float | None = None, speed: float = 1.0) -> Timing:
    return make_timing(RIG, time, frames, fps, speed)


def times(*arguments, **options) -> list[float]:
    made = timing(*arguments, **options)
    return made.times(made.count).round(6).tolist()


def test_play_shows_each_moment_once():
    assert times("play") == [0, 0.2, 0.4, 0.6, 0.8]


def test_slow_motion_falls_on_every_moment_and_between_them():
    assert times(speed=0.5) == [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]
    assert times(speed=0.25)[::4] == times()
    assert times(speed=2) == [0, 0.4, 0.8]


def test_a_frame_rate_changes_the_frames_not_the_duration():
    assert times(fps=60.0) == times(speed=0.5)
    assert times(fps=15.0) == [0, 0.4, 0.8]
    assert times(fps=15.0, speed=0.5) == times()


def test_frames_are_spread_over_the_whole():
    assert times(frames=3) == [0, 0.4, 0.8]
    assert times("sweep=1:0", frames=5) == [1, 0.75, 0.5, 0.25, 0]
    assert times(frames=1) == [0]


def test_sweeps_go_both_ways_at_the_pace_of_the_scene():
    assert times("sweep=0.2:0.6") == [0.2, 0.4, 0.6]
    assert times("sweep=0.6:0.2") == [0.6, 0.4, 0.2]
    assert times("sweep=0.2:0.4", speed=0.25) == [0.2, 0.25, 0.3, 0.35, 0.4]


def test_ping_pong_comes_back_and_loops():
    assert times("ping-pong") == [0, 0.2, 0.4, 0.6, 0.8, 0.6, 0.4, 0.2]


def test_frozen_time_gives_the_camera_as_long_as_the_scene_takes():
    assert times("freeze=0.3") == [0.3] * 5
    assert len(times("freeze=1", speed=0.5)) == 9


@pytest.mark.parametrize("time", ["play", "freeze=0.5", "ping-pong"])
def test_a_scene_of_one_moment_leaves_time_for_the_camera(time):
    made = make_timing(scene(RIGS["pair"], frames=1), time, None, None, 1.0)
    assert abs(made.count - STILL_FRAMES) <= 1
    assert len(set(made.times(made.count).tolist())) == 1


@pytest.mark.parametrize("time", ["play", "sweep=1:0", "freeze=1", "ping-pong"])
@pytest.mark.parametrize("speed", [0.13, 1.0, 7.0])
def test_times_stay_within_the_scene(time, speed):
    made = timing(time, speed=speed, fps=24.0)
    found = made.times(made.count)
    assert len(found) == made.count >= 1 and found.min() >= 0 and found.max() <= 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"time": "backwards"}, "--time backwards: not a way through time; use play, freeze=T"),
        ({"time": "freeze"}, "--time freeze: not a way"),
        ({"time": "play=1"}, "--time play=1: not a way"),
        ({"time": "freeze=1.5"}, "--time freeze=1.5: 1.5 is outside of [0, 1]"),
        ({"time": "freeze=nan"}, "nan is outside of [0, 1]"),
        ({"time": "freeze=noon"}, "'noon' is not a number"),
        ({"time": "sweep=0.5"}, "--time sweep=0.5: not a way"),
        ({"time": "sweep=-0.1:1"}, "-0.1 is outside of [0, 1]"),
        ({"time": "sweep=0.5:0.5"}, "use freeze=0.5"),
        ({"speed": 0.0}, "--speed 0: out of range"),
        ({"speed": -1.0}, "--speed -1: out of range"),
        ({"speed": np.inf}, "--speed inf: out of range"),
        ({"speed": 1e-9}, f"use --frames, up to {LONGEST}"),
        ({"speed": 5e-324}, f"use --frames, up to {LONGEST}"),
        ({"fps": 0.0}, "--fps 0: out of range"),
        ({"fps": np.nan}, "--fps nan: out of range"),
        ({"fps": 1e-4}, "--fps 0.0001: out of range; use a number from 0.001 to 1000000"),
        ({"fps": 1e7}, "--fps 1e+07: out of range"),
        ({"frames": 0}, "--frames 0: out of range"),
        ({"frames": LONGEST + 1}, f"from 1 to {LONGEST}"),
        ({"frames": 10, "speed": 0.5}, "--frames 10 and --speed 0.5: both say how long"),
    ],
)
def test_wrong_times_are_named(options, says):
    with pytest.raises(RunError) as error:
        _ = timing(**options).count
    assert says in str(error.value) and "\n" not in str(error.value)
