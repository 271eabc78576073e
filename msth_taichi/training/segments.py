"""A long video as segments: which frames each has, what it sees of the scene, and how two share a moment.

Neighbours overlap by a few frames, so that a render can pass from one to the next bit by bit.

    RUN/segments.json          the segments
        shared.safetensors     parameters that all segments have in common, from the first one
        segments/000, 001 ...  a run folder each, on a time axis of its own

Letters: T frames.
"""

import json
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from msth_taichi.config import CamerasConfig
from msth_taichi.errors import ConfigError, RunError
from msth_taichi.files import write_json
from msth_taichi.scene.scene import Images, Scene

RECORD = "segments.json"
SHARED = "shared.safetensors"

OVERLAP = 1 / 30
"""Of the frames of a segment: those it shares with the next one. Fewer show as a jump, more cost two renders each."""

_SMOOTH = 8  # frames over which a change of fields does not show as a jump; half of a segment where that is less
_LEAST = 2  # frames: of those that two share, the first is the one's alone, the last the other's


@dataclass(frozen=True)
class Segment:
    """A stretch of a video that has a field of its own.

    Args:
        first: number of its first frame.
        frames: how many it has, those that it shares with the next one too.
        start: time of its first frame, in [0, 1] of the whole.
        last: time of its last frame.
        end: time of the first frame after it, where its own time is 1.
    """

    first: int
    frames: int
    start: float
    last: float
    end: float

    def local(self, time: float) -> float:
        """A time of the whole, in [0, 1] of the segment.

        Example:
            >>> Segment(first=3, frames=3, start=0.5, last=0.75, end=1.0).local(0.75)
            0.5
        """
        return min(max((time - self.start) / (self.end - self.start), 0.0), 1.0)


@dataclass(frozen=True)
class Cut:
    """The segments of a video.

    Args:
        segments: in the order of time.
        parallel: all of them but the first begin from the first, so that each can be trained for itself.
    """

    segments: tuple[Segment, ...]
    parallel: bool = False

    def weights(self, time: float) -> list[tuple[int, float]]:
        """Which one or two segments show a time, and their shares of it; the shares are 1 together.

        From the first frame that two have in common to the last, one gives way to the other evenly.

        Example:
            >>> cut_frames(np.arange(8) / 8, most=4).weights(0.25)
            [(0, 1.0)]
        """
        number = max((k for k, segment in enumerate(self.segments) if segment.start <= time), default=0)
        before, after = self.segments[max(number - 1, 0)], self.segments[number]
        if number == 0 or time >= before.last:
            return [(number, 1.0)]
        share = (time - after.start) / (before.last - after.start)
        return [(k, w) for k, w in ((number - 1, 1 - share), (number, share)) if w > 0]


def cut_frames(times: np.ndarray, most: int, parallel: bool = False) -> Cut:
    """Cut a video into as few segments as there must be, of nearly the same length.

    Args:
        times: (T,) ascending, in [0, 1].
        most: frames of a segment, those that it shares with the next one not counted.
        parallel: see `Cut`.
    Raises:
        ConfigError: fewer than two frames a segment.

    Example:
        >>> [(s.first, s.frames) for s in cut_frames(np.arange(1200) / 1200, most=300).segments]
        [(0, 310), (300, 310), (600, 310), (900, 300)]
    """
    if most < _LEAST:
        raise ConfigError(f"--segment-frames {most}: out of range; use {_LEAST} or more, such as 300")
    total = len(times)
    count = max(-(-total // most), 1)
    overlap = max(_LEAST, min(_SMOOTH, most // 2), round(OVERLAP * most))
    starts = [round(k * total / count) for k in range(count + 1)]
    # what comes after the last frame: so much later as the frames are apart, but no later than 1
    after = min(1.0, float(times[-1]) + float(times[-1] - times[0]) / max(total - 1, 1)) if total > 1 else 1.0
    ends = [*times.tolist(), max(after, float(times[-1]))]
    segments = []
    for first, until in pairwise(starts):
        until = min(until + overlap, total)
        segments.append(Segment(first, until - first, ends[first], ends[until - 1], ends[until]))
    return Cut(tuple(segments), parallel)


def frame_times(scene: Scene) -> np.ndarray:
    """(T,) float64 time of each frame of a scene."""
    found = np.full(scene.num_frames, np.nan)
    for images in scene.splits.values():
        found[images.frame.numpy()] = images.time.double().numpy()
    known = np.isfinite(found)
    return np.interp(np.arange(len(found)), np.flatnonzero(known), found[known])


def part_of(scene: Scene, segment: Segment) -> Scene:
    """What a segment sees of a scene: all cameras, its own frames, and its own time from 0 to 1.

    Raises:
        ConfigError: no training image falls into it.

    Example:
        >>> part_of(scene, cut_frames(frame_times(scene), 300).segments[1]).num_frames
        310
    """
    splits = {name: _images_of(images, segment) for name, images in scene.splits.items()}
    if not len(splits["train"]):
        raise ConfigError(
            f"frames {segment.first} to {segment.first + segment.frames - 1} have no training image; use larger "
            "--segment-frames"
        )
    return replace(
        scene,
        splits={name: images for name, images in splits.items() if len(images)},
        num_frames=segment.frames,
    )


def _images_of(images: Images, segment: Segment) -> Images:
    frame = images.frame - segment.first
    kept = images.select(((frame >= 0) & (frame < segment.frames)).nonzero()[:, 0])
    time = (kept.time.double() - segment.start) / (segment.end - segment.start)
    return replace(kept, frame=kept.frame - segment.first, time=time.clamp(0, 1).float())


def require_same_cameras_throughout(scene: Scene, cut: Cut, config: CamerasConfig) -> None:
    """Raise ConfigError if something is learnt of cameras that not all segments are seen by."""
    if (config.colors, config.poses, config.appearance) == ("none", "none", 0):
        return
    seen = [part_of(scene, segment).images("train").camera.unique() for segment in cut.segments]
    if any(not torch.equal(seen[0], cameras) for cameras in seen[1:]):
        raise ConfigError(
            f"the segments of '{scene.name}' are seen by different cameras, which share no colours, poses or "
            "appearances: use cameras.colors=none, cameras.poses=none and cameras.appearance=0, or no --segment-frames"
        )


def segment_path(run: Path, number: int) -> Path:
    """Run folder of a segment.

    Example:
        >>> segment_path(Path("runs/long"), 1)
        PosixPath('runs/long/segments/001')
    """
    return run / "segments" / f"{number:03d}"


def chain_of(run: Path) -> Path | None:
    """The run whose segment a run folder is; None of any other."""
    above = run.absolute().parent
    return above.parent if above.name == "segments" and is_chain(above.parent) else None


def is_chain(run: Path) -> bool:
    """Whether a run folder is one of segments."""
    return (run / RECORD).is_file()


def write_cut(run: Path, cut: Cut) -> None:
    """Note the segments in a run folder."""
    write_json(run / RECORD, asdict(cut))


def read_cut(run: Path) -> Cut:
    """What `write_cut` noted.

    Raises:
        RunError: it is missing or damaged.
    """
    path = run / RECORD
    try:
        values = json.loads(path.read_text())
        segments = tuple(Segment(**segment) for segment in values["segments"])
        if not segments or any(s.end <= s.start for s in segments):
            raise ValueError("no segments")
        return Cut(segments, bool(values["parallel"]))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RunError(f"{path}: missing or damaged ({error}); restore it or train again") from error
