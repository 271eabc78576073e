"""The frames of a video, each at its own number whatever became of those before it.

A decoder gives the pictures that it can make, in order, and says little of those that it cannot: some it leaves out,
so that all after them would come too early. So pictures are told apart by the times of the file's packets. A picture
that is wrong spoils all that are made from it, up to the next key frame.
"""

from collections.abc import Iterator
from functools import lru_cache
from itertools import dropwhile, islice, repeat
from pathlib import Path
from typing import Any, NamedTuple

import av
from av.error import FFmpegError

from msth_taichi.errors import DataError
from msth_taichi.files import media_name

MOST_DAMAGED = 0.5
"""Share of a video's frames beyond which it is not used."""

# by content, whatever the name: of other kinds some are lists of other files (concat, HLS)
CONTAINERS = {"format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts", "protocol_whitelist": "file"}

_HIDING = ("vp8",)  # codecs with packets that are never shown
_TIMED = ("mov", "matroska", "mpegts")  # the others tell no times of frames that refer to later ones, or guess them
_SEEKING = _TIMED[:2]
_NEAR = 60  # frames that are decoded as fast as a later one is found
_REMEMBERED = 256  # videos


def video_frames(path: Path, first: int = 0) -> Iterator[av.VideoFrame | None]:
    """The frames of a video from number `first` on in the order of time; None in place of one that is damaged.

    Raises:
        DataError: the file cannot be read, or most of it is damaged.
    """
    try:
        times, _, seeks = _packets(path)
        start = first if seeks and _NEAR <= first < len(times) else 0
        sound = start
        try:
            for number, frame in enumerate(_decoded(path, times[start] if start else None), start):
                if number == 0 and frame.pts not in times:
                    times = []  # the decoder counts time in another way
                if frame.is_corrupt or (times and times[number : number + 1] != [frame.pts]):
                    break
                if number >= first:
                    yield frame
                sound += 1
        except FFmpegError as error:
            if isinstance(error, OSError) or not times:
                raise
        if sound < len(times):
            yield from islice(_sound_frames(path, times), max(sound, first), None)
    except Exception as error:  # decoders raise errors of many kinds
        raise error if isinstance(error, DataError) else unreadable(path, "video", error) from error


def _sound_frames(path: Path, times: list[int]) -> Iterator[av.VideoFrame | None]:
    """As `video_frames`, slowly: errors are those of the packet that is being decoded."""
    state, due = path.stat(), 0
    damaged = _damaged(path, state.st_size, state.st_mtime_ns)
    numbers = {time: number for number, time in enumerate(times)}
    for frame in _decoded(path, careful=True):
        number = -1 if frame.pts is None else numbers.get(frame.pts, -1)
        if number < due or number in damaged:
            continue
        yield from repeat(None, number - due)
        yield frame
        due = number + 1
    yield from repeat(None, len(times) - due)


@lru_cache(maxsize=_REMEMBERED)
def _damaged(path: Path, size: int, changed: int) -> frozenset[int]:
    """Numbers of the frames of a file, of this size and last change, that are damaged."""
    times, keys, _ = _packets(path)
    sound = {frame.pts for frame in _decoded(path, careful=True) if not frame.is_corrupt}
    damaged, spoilt = set(), False
    for number, time in enumerate(times):
        spoilt = time not in sound or (spoilt and time not in keys)
        if spoilt:
            damaged.add(number)
    if len(damaged) > MOST_DAMAGED * len(times):
        raise DataError(
            f"{path}: {len(damaged)} of {len(times)} frames are damaged or made from damaged ones; restore the file "
            "or encode it again"
        )
    return frozenset(damaged)


class _Packets(NamedTuple):
    """Times at which frames are shown, in order, and those of key frames, none where the file does not say; and
    whether a frame is found by its time."""

    times: list[int]
    keys: set[int]
    seeks: bool


def _packets(path: Path) -> _Packets:
    state = path.stat()
    return _packets_of(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=_REMEMBERED)
def _packets_of(path: Path, size: int, changed: int) -> _Packets:
    """Of a file, of this size and last change; nothing is decoded."""
    with _opened(path) as container:
        stream = container.streams.video[0]
        shown = [packet for packet in container.demux(stream) if packet.size and not packet.is_discard]
        times = [packet.pts for packet in shown if packet.pts is not None]
        keys = {packet.pts for packet in shown if packet.is_keyframe and packet.pts is not None}
        timed = container.format.name.startswith(_TIMED) and stream.codec_context.name not in _HIDING
        if len(set(times)) < len(shown) or not timed:
            return _Packets([], set(), False)
        return _Packets(sorted(times), keys, container.format.name.startswith(_SEEKING))


def _decoded(path: Path, start: int | None = None, careful: bool = False) -> Iterator[av.VideoFrame]:
    """What the decoder gives, from the frame that is shown at `start` on; `careful` goes on after errors, and with one
    thread."""
    # PyAV itself: imageio collects all of Python's garbage whenever it closes a video, 0.3 s next to torch
    with _opened(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        if careful:
            stream.codec_context.thread_count = 1
        if start is not None:
            container.seek(start, stream=stream)
        frames = _frames(container.demux(stream), careful)
        yield from frames if start is None else dropwhile(lambda frame: frame.pts != start, frames)


def _frames(packets: Iterator[Any], careful: bool) -> Iterator[av.VideoFrame]:
    for packet in packets:
        try:
            frames = packet.decode()
        except FFmpegError:
            if not careful:
                raise
            continue
        yield from frames  # type: ignore[misc] of a video stream


def _opened(path: Path) -> Any:
    return av.open(media_name(path), container_options=CONTAINERS)


def unreadable(path: Path, kind: str, error: Any) -> DataError:
    """What to say of a file that a decoder does not take."""
    detail = (str(error).splitlines() or [""])[0]
    reason = f"{type(error).__name__}: {detail}" if detail else type(error).__name__
    return DataError(f"{path}: unreadable {kind} ({reason}); restore the file or encode it again")
