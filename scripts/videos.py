"""Reading and writing videos frame by frame."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import av
import numpy as np
import typer
from av.video.reformatter import ColorRange

from msth_taichi.errors import DataError
from msth_taichi.files import media_name, replacing
from msth_taichi.scene.sources import VIDEO_SUFFIXES

Crf = Annotated[
    int, typer.Option(min=0, max=51, help="Quality of H.264: 0 is best, 17 looks like the original, 23 is small.")
]
Lossless = Annotated[bool, typer.Option("--lossless", help="Keep every pixel; files are some ten times larger.")]


@dataclass(frozen=True)
class Encoding:
    """How a video is written.

    Args:
        width: pixels.
        height: pixels.
        rate: frames per second.
        crf: H.264's quality, lower is better.
        lossless: RGB as it is, for which `crf` does not count.
    """

    width: int
    height: int
    rate: Fraction
    crf: int = 12
    lossless: bool = False


def find_videos(folder: Path) -> list[Path]:
    """Videos of a folder and those below it, sorted by name; copies that a Mac leaves (._x.mp4) are no videos.

    Raises:
        DataError: there are none.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: not a folder; give the folder of the videos")
    hidden = [path for path in folder.rglob("*") if path.name.startswith(".") and path.is_dir()]
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in VIDEO_SUFFIXES
        and not path.name.startswith(".")
        and not any(parent in hidden for parent in path.parents)
    )
    if not files:
        raise DataError(f"{folder}: no video ({', '.join(VIDEO_SUFFIXES)}); give the folder of the videos")
    return files


def rate_of(path: Path) -> Fraction:
    """Frames per second that a video's header states.

    Raises:
        DataError: unreadable, or it states none.
    """
    try:
        with av.open(media_name(path)) as container:
            rate = container.streams.video[0].average_rate
    except Exception as error:  # decoders raise errors of many kinds
        raise _unreadable(path, error) from error
    if not rate:
        raise DataError(f"{path}: states no frame rate; encode it again")
    return Fraction(rate)


def read_frames(path: Path) -> Iterator[av.VideoFrame]:
    """All frames of a video in order.

    Raises:
        DataError: a frame cannot be decoded.
    """
    try:
        with av.open(media_name(path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            yield from container.decode(stream)
    except Exception as error:  # decoders raise errors of many kinds
        raise _unreadable(path, error) from error


def write_video(path: Path, frames: Iterable[av.VideoFrame], encoding: Encoding) -> int:
    """Write an mp4 in one step; frames of another size are averaged over areas.

    Returns:
        How many frames were written.
    Raises:
        DataError: there is no frame.
        RunError: the disk refuses.
    """
    count = 0
    with replacing(path) as temporary:
        with av.open(media_name(temporary), "w", format="mp4") as container:
            codec, options = "libx264", {"crf": str(encoding.crf)}
            # 4:2:0 halves both axes, which odd sizes do not allow
            pixels = "yuv444p" if encoding.width % 2 or encoding.height % 2 else "yuv420p"
            if encoding.lossless:
                codec, options, pixels = "libx264rgb", {"qp": "0"}, "rgb24"
            stream: Any = container.add_stream(codec, rate=encoding.rate, options=options)
            stream.width, stream.height, stream.pix_fmt = encoding.width, encoding.height, pixels
            for count, frame in enumerate(frames, 1):
                levels = _levels(frame, encoding.lossless)
                if count == 1:
                    stream.codec_context.color_range, stream.codec_context.colorspace = levels, frame.colorspace
                scaled = frame.reformat(
                    encoding.width, encoding.height, pixels, interpolation="AREA", dst_color_range=levels
                )
                scaled.pts, scaled.time_base = count - 1, 1 / encoding.rate
                container.mux(stream.encode(scaled))
            container.mux(stream.encode())
        if not count:
            raise DataError(f"{path}: there is no frame to write; check the input")
    return count


def frame_of(array: np.ndarray) -> av.VideoFrame:
    """A frame from (H, W, 3) uint8."""
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(array), format="rgb24")


def _levels(frame: av.VideoFrame, lossless: bool) -> int:
    """Whether 0 to 255 or 16 to 235 is written: what the input has, as nothing is gained by a conversion."""
    if lossless or (frame.format.name.startswith("yuv") and frame.color_range == ColorRange.JPEG):
        return ColorRange.JPEG
    return ColorRange.MPEG


def _unreadable(path: Path, error: Exception) -> DataError:
    detail = (str(error).splitlines() or [""])[0]
    return DataError(f"{path}: unreadable video ({detail or type(error).__name__}); restore the file")
