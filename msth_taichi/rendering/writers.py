"""Images and videos on disk, whole or not at all, and pictures made for looking at.

A picture is a numpy array, (H, W, 3) or grey (H, W), uint8 or float in [0, 1].
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import av
import imageio.v3 as iio
import numpy as np
from av.error import FFmpegError
from PIL import Image, ImageDraw, ImageFont

from msth_taichi.errors import RunError
from msth_taichi.files import media_name, replacing

Metadata = Mapping[str, Any]
"""What a file says of itself, as json: in the comment of a video, the comment or description of a preview."""

# Turbo as polynomials in x, constant term first, a row for each of red, green, blue.
# Mikhailov 2019, "Turbo, An Improved Rainbow Colormap for Visualization", Google AI blog; the fit is by Du
_TURBO = np.array(
    [
        [0.13572138, 4.61539260, -42.66032258, 132.13108234, -152.94239396, 59.28637943],
        [0.09140261, 2.19418839, 4.84296658, -14.18503333, 4.27729857, 2.82956604],
        [0.10667330, 12.64194608, -60.58204836, 110.36276771, -89.90310912, 27.34824973],
    ]
)

_FASTEST_GIF = 50  # frames per second; viewers slow down what is faster
_LONGEST_GIF = 655_350  # milliseconds that a frame can be shown
_PREVIEW_QUALITY = 85
_DESCRIPTION = 0x010E  # Exif: ImageDescription

# else swscale takes BT.601's matrix, and players that of BT.709 for what is large
_COLORS = {"colorspace": "bt709", "color_primaries": "bt709", "color_trc": "bt709", "color_range": "tv"}

_REORDERED = 3  # frames; of fewer, x265 leaves the order of decoding unset, and some encodings fail

_CAPTION_BACKGROUND, _CAPTION_COLOR = (24, 24, 24), (235, 235, 235)


@dataclass(frozen=True)
class Codec:
    """How a video is encoded: so that the same frames give the same bytes.

    x264's bytes depend on the number of threads, and with its macroblock tree they differ from one encoding to the
    next (core 165, images of 320x180 for instance); x265's depend on the number of frames at a time, and rows at a
    time have been seen to make a difference (its issue 769).

    Args:
        encoder: its name in ffmpeg.
        options: of the encoder.
        tag: four letters by which players know the stream.
        least: pixels along an edge.
    """

    encoder: str
    options: Mapping[str, str]
    tag: str
    least: int = 1


CODECS = {
    "h264": Codec("libx264", {"crf": "18", "threads": "4", "x264-params": "mbtree=0"}, "avc1"),
    "h265": Codec("libx265", {"crf": "20", "x265-params": "frame-threads=4:wpp=0:info=0:log-level=error"}, "hvc1", 16),
}


def require_codec(name: str) -> None:
    """Make sure that a video can be encoded.

    Raises:
        RunError: unknown codec, or this build of ffmpeg has no encoder of it.
    """
    if name not in CODECS:
        raise RunError(f"--codec {name}: unknown codec; use {' or '.join(CODECS)}")
    try:
        av.Codec(CODECS[name].encoder, "w")
    except ValueError:
        raise RunError(
            f"--codec {name}: the installed PyAV has no encoder {CODECS[name].encoder}; use another --codec or "
            "--format png, or install the wheel: pip install --force-reinstall --only-binary av av"
        ) from None


def write_video(
    path: Path, frames: Iterable[np.ndarray], fps: float, codec: str = "h264", metadata: Metadata | None = None
) -> int:
    """Write pictures of one size as a video, yuv420p of BT.709 in limited range so that every player shows it.

    Frames are taken one at a time. An odd width or height is made even by repeating the last column or row. The same
    frames give the same file, byte for byte.

    Args:
        path: ends in .mp4; an existing file is replaced once the new one is complete.
        frames: at least one; (H, W, 3).
        fps: frames per second.
        codec: a name of `CODECS`.
        metadata: for `read_metadata`.
    Returns:
        The number of frames.
    Raises:
        RunError: no frames, frames of different sizes, a codec that is not there, or a path that cannot be written.

    Example:
        >>> write_video(Path("grey.mp4"), np.full((10, 64, 64, 3), 0.5), fps=25)
        10
    """
    require_codec(codec)
    kind, rate, count = CODECS[codec], Fraction(fps).limit_denominator(1001), 0
    with replacing(path) as temporary:
        pictures = _same_size(frames, path)
        first = next(pictures)  # before the encoder starts, which complains when closed without any
        with av.open(media_name(temporary), "w", format="mp4", container_options={"fflags": "+bitexact"}) as container:
            container.metadata["comment"] = json.dumps(metadata or {})
            stream: Any = container.add_stream(kind.encoder, rate=rate, options={**kind.options, **_COLORS})
            height, width = (n + n % 2 for n in first.shape[:2])
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            stream.codec_context.codec_tag = kind.tag
            for count, picture in enumerate(chain([first], pictures), 1):
                height, width = picture.shape[:2]
                even = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
                shown = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
                frame = shown.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
                frame.pts, frame.time_base = count - 1, 1 / rate
                container.mux(stream.encode(frame))
            for packet in stream.encode():
                if count < _REORDERED:
                    packet.dts = packet.pts
                container.mux(packet)
    return count


def write_animation(path: Path, frames: Iterable[np.ndarray], fps: float, metadata: Metadata | None = None) -> int:
    """Write pictures of one size as a preview that web pages show: .webp, with transparency where frames have it, or
    .gif, which has 256 colours and at most 50 frames per second: of faster ones every n-th is kept. All frames are
    held in memory.

    Args:
        path: ends in .webp or .gif; an existing file is replaced once the new one is complete.
        frames: at least one; (H, W, 3), or (H, W, 4) with straight alpha for .webp.
        fps: frames per second.
        metadata: for `read_metadata`.
    Returns:
        The number of frames that were given.
    Raises:
        RunError: no frames, frames of different sizes, or a path that cannot be written.

    Example:
        >>> write_animation(Path("grey.gif"), np.full((10, 64, 64, 3), 0.5), fps=25)
        10
    """
    pictures = list(_same_size(frames, path))
    gif, text = path.suffix.lower() == ".gif", json.dumps(metadata or {})
    step = math.ceil(fps / _FASTEST_GIF) if gif else 1
    images = [Image.fromarray(picture) for picture in pictures[::step]]
    unit = 10 if gif else 1  # milliseconds; durations are whole multiples, whose errors must not add up
    ends = [round(k * step * 1000 / fps / unit) * unit for k in range(len(images) + 1)]
    options: dict[str, Any] = {"comment": text.encode()}
    if not gif:
        exif = Image.Exif()
        exif[_DESCRIPTION] = text
        options = {"exif": exif, "quality": _PREVIEW_QUALITY}
    with replacing(path) as temporary:
        durations = np.diff(ends).clip(max=_LONGEST_GIF).tolist()
        images[0].save(temporary, save_all=True, append_images=images[1:], duration=durations, loop=0, **options)
    return len(pictures)


def read_metadata(path: Path) -> dict[str, Any]:
    """What `write_video` or `write_animation` was told to note in a file; empty where there is nothing to read.

    Example:
        >>> read_metadata(Path("orbit-depth.mp4"))["limits"]
        [0.21, 0.95]
    """
    try:
        if path.suffix.lower() == ".mp4":
            with av.open(media_name(path)) as container:
                text = container.metadata.get("comment", "")
        else:
            with Image.open(path) as image:
                text = image.info.get("comment", b"").decode() or image.getexif().get(_DESCRIPTION, "")
        found = json.loads(text)
    except (OSError, ValueError, FFmpegError, Image.DecompressionBombError):
        return {}
    return found if isinstance(found, dict) else {}


def save_image(path: Path, image: np.ndarray) -> None:
    """Write a picture in the format of the path's suffix, such as .png.

    Raises:
        RunError: the path cannot be written.

    Example:
        >>> save_image(Path("ramp.png"), np.linspace(0, 1, 64)[None].repeat(8, 0))
    """
    with replacing(path) as temporary:
        iio.imwrite(temporary, to_uint8(image))


def to_uint8(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 of a picture, (H, W, 4) where it has alpha; floats are clamped to [0, 1] and NaN is black."""
    image = np.asarray(image)
    if image.dtype != np.uint8:
        image = (np.nan_to_num(image).clip(0, 1) * 255 + 0.5).astype(np.uint8)
    return image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2)


def over_black(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 of a picture that may have an alpha channel, for files that have none."""
    if image.shape[-1] == 3:
        return image
    return to_uint8(image[..., :3] / 255.0 * (image[..., 3:] / 255.0))


def colorize(values: np.ndarray, lo: float, hi: float) -> np.ndarray:
    """Colours from dark blue (lo) over green to dark red (hi) by the Turbo map.

    Args:
        values: (H, W), depths for instance; clamped to [lo, hi], and black where not finite.
        lo: value at the blue end.
        hi: value at the red end; all is blue if it does not exceed lo.
    Returns:
        (H, W, 3) uint8.

    Example:
        >>> colorize(np.array([[0.0, 0.5, 1.0]]), 0, 1).tolist()
        [[[35, 23, 27], [150, 250, 80], [144, 13, 0]]]
    """
    values = np.asarray(values, dtype=np.float64)
    finite = np.isfinite(values)
    x = (np.where(finite, values, lo) - lo) / (hi - lo) if hi > lo else np.zeros_like(values)
    colors = np.polynomial.polynomial.polyval(x.clip(0, 1), _TURBO.T)
    return to_uint8(np.moveaxis(colors, 0, -1) * finite[..., None])


def mosaic(images: Mapping[str, np.ndarray]) -> np.ndarray:
    """Pictures of one height side by side, each under its name.

    Args:
        images: name -> picture, in the order from left to right.
    Returns:
        (H + strip, sum of widths, 3) uint8.

    Example:
        >>> mosaic({"target": np.ones((64, 80, 3)), "mask": np.zeros((64, 80))}).shape
        (82, 160, 3)
    """
    panels = {name: to_uint8(image) for name, image in images.items()}
    height = max(panel.shape[0] for panel in panels.values())
    size = max(12, height // 24)
    return np.concatenate(
        [np.concatenate([_caption(name, panel.shape[1], size), panel]) for name, panel in panels.items()],
        axis=1,
    )


def _same_size(frames: Iterable[np.ndarray], path: Path) -> Iterator[np.ndarray]:
    size = None
    for index, frame in enumerate(frames):
        picture = to_uint8(frame)
        size = size or picture.shape
        if picture.shape != size:
            raise RunError(
                f"{path}: frame {index} is {picture.shape[1]}x{picture.shape[0]}, the first is "
                f"{size[1]}x{size[0]}; render all frames at one size"
            )
        yield picture
    if size is None:
        raise RunError(f"{path}: no frames to write; ask for at least one")


def _caption(text: str, width: int, size: int) -> np.ndarray:
    """(1.5 size, width, 3) uint8 strip with centred text, made smaller where it would not fit."""
    strip = Image.new("RGB", (width, size * 3 // 2), _CAPTION_BACKGROUND)
    draw = ImageDraw.Draw(strip)
    font = ImageFont.load_default(size)
    while draw.textlength(text, font=font) > width and size > 6:
        size -= 1
        font = ImageFont.load_default(size)
    draw.text((width / 2, strip.height / 2), text, fill=_CAPTION_COLOR, font=font, anchor="mm")
    return np.asarray(strip)
