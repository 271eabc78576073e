"""Which moment of the scene each frame of a video shows.

Letters: F frames of the video, T moments of the scene; times are in [0, 1].
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from msth_taichi.errors import RunError
from msth_taichi.scene.scene import Scene

LONGEST = 100_000
SLOWEST, FASTEST = 1e-3, 1e6  # frames per second
STILL_FRAMES = 120  # frames of a camera move through a scene that has one moment only

_FORMS = "play, freeze=T, sweep=A:B or ping-pong, with times from 0 (start) to 1 (end)"


@dataclass(frozen=True)
class Timing:
    """How a video goes through the time of a scene.

    At speed 1 it shows the scene as fast as it happened. Half the speed at the same frame rate, or twice the frame
    rate at the same speed, makes twice the frames, at times between those of the data set.

    Args:
        kind: forwards ("play", "sweep"), not at all ("freeze"), or there and back ("ping-pong").
        start: first time.
        end: last time, or the turning point of "ping-pong".
        rate: moments of the data set per unit of time; 0 where there is but one.
        span: time of the data set, which the camera of a frozen video is given.
        frames: F, where asked for.
        fps: of the video, where asked for.
        speed: of the video.
        scene_fps: of the data set.
    """

    kind: Literal["play", "freeze", "sweep", "ping-pong"]
    start: float
    end: float
    rate: float
    span: float
    frames: int | None
    fps: float | None
    speed: float
    scene_fps: float

    @property
    def seconds(self) -> float:
        """How long the video is at speed 1."""
        way = {"freeze": self.span, "ping-pong": 2 * self.span}.get(self.kind, abs(self.end - self.start))
        return (way * self.rate or STILL_FRAMES - 1.0) / self.scene_fps

    @property
    def count(self) -> int:
        """F: as asked for, or as many as the scene's time takes."""
        return self.count_of(self.seconds, self.kind == "ping-pong", self.scene_fps)

    def count_of(self, seconds: float, closed: bool, fps: float) -> int:
        """F of a video of so many seconds at speed 1, with a frame at its end unless that is its beginning.

        Raises:
            RunError: too many.
        """
        if self.frames is not None:
            return self.frames
        count = seconds * (self.fps or fps) / self.speed + (not closed)
        if not count < LONGEST + 0.5:
            raise RunError(
                f"--speed {self.speed:g} at {self.fps or fps:g} frames per second: makes {count:.3g} frames of "
                f"{seconds:.3g} seconds; use --frames, up to {LONGEST}"
            )
        return max(round(count), 1)

    def times(self, count: int) -> np.ndarray:
        """(F,) float64 of `count` frames."""
        if self.kind == "ping-pong":
            share = 1 - np.abs(1 - 2 * np.arange(count) / count)
            return self.start + (self.end - self.start) * share
        return np.linspace(self.start, self.end, count)

    @property
    def plain(self) -> bool:
        """Whether each moment of the data set is one frame."""
        return self.kind == "play" and self.speed == 1 and self.fps in (None, self.scene_fps)


def make_timing(scene: Scene, time: str, frames: int | None, fps: float | None, speed: float) -> Timing:
    """Check what was asked for.

    Args:
        scene: times suffice.
        time: "play", "freeze=T", "sweep=A:B" or "ping-pong".
        frames: F; None for as many as `fps` and `speed` make.
        fps: of the video; None for the scene's.
        speed: above 0; 0.25 is four times slower.
    Raises:
        RunError: names the option, what is wrong with it, and the remedy.

    Example:
        >>> make_timing(load_scene("demo"), "sweep=0.5:0", None, fps=24.0, speed=0.5).count
        25
    """
    if frames is not None and not 1 <= frames <= LONGEST:
        raise RunError(f"--frames {frames}: out of range; use a number from 1 to {LONGEST}")
    if fps is not None and not SLOWEST <= fps <= FASTEST:
        raise RunError(f"--fps {fps:g}: out of range; use a number from {SLOWEST:g} to {FASTEST:.0f}, such as 30")
    if not (math.isfinite(speed) and speed > 0):
        raise RunError(f"--speed {speed:g}: out of range; use a number above 0, such as 0.25")
    if frames is not None and speed != 1:
        raise RunError(f"--frames {frames} and --speed {speed:g}: both say how long the video is; leave one out")
    train = scene.images("train").time
    first, last = float(train.min()), float(train.max())
    every = [float(bound) for images in scene.splits.values() for bound in (images.time.min(), images.time.max())]
    rate = (scene.num_frames - 1) / (max(every) - min(every)) if max(every) > min(every) else 0.0
    kind, start, end = _parse(time, first, last)
    return Timing(kind, start, end, rate, last - first, frames, fps, speed, scene.fps)


def _parse(
    text: str, first: float, last: float
) -> tuple[Literal["play", "freeze", "sweep", "ping-pong"], float, float]:
    kind, equals, rest = text.partition("=")
    if kind == "play" and not equals:
        return "play", first, last
    if kind == "ping-pong" and not equals:
        return "ping-pong", first, last
    if kind == "freeze" and equals:
        time = _time(text, rest)
        return "freeze", time, time
    if kind == "sweep" and rest.count(":") == 1:
        start, end = (_time(text, part) for part in rest.split(":"))
        if start == end:
            raise RunError(f"--time {text}: begins where it ends; use freeze={start:g}")
        return "sweep", start, end
    raise RunError(f"--time {text}: not a way through time; use {_FORMS}")


def _time(text: str, number: str) -> float:
    try:
        time = float(number)
    except ValueError:
        raise RunError(f"--time {text}: '{number}' is not a number; use {_FORMS}") from None
    if not 0 <= time <= 1:
        raise RunError(f"--time {text}: {time:g} is outside of [0, 1]; 0 is the start and 1 the end of the scene")
    return time
