"""Images and videos on disk, whole or not at all, and pictures made for looking at.

A picture is a numpy array, (H, W, 3) or grey (H, W), uint8 or float in [0, 1].
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path

import imageio.v3 as iio
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from msth_taichi.errors import RunError
from msth_taichi.files import replacing, unwritable

# Turbo as polynomials in x, constant term first, a row for each of red, green, blue.
# Mikhailov 2019, "Turbo, An Improved Rainbow Colormap for Visualization", Google AI blog; the fit is by Du
_TURBO = np.array(
    [
        [0.13572138, 4.61539260, -42.66032258, 132.13108234, -152.94239396, 59.28637943],
        [0.09140261, 2.19418839, 4.84296658, -14.18503333, 4.27729857, 2.82956604],
        [0.10667330, 12.64194608, -60.58204836, 110.36276771, -89.90310912, 27.34824973],
    ]
)

_CAPTION_BACKGROUND, _CAPTION_COLOR = (24, 24, 24), (235, 235, 235)


def write_video(path: Path, frames: Iterable[np.ndarray], fps: float) -> int:
    """Write pictures of one size as an H.264 video, yuv420p so that every player shows it.

    Frames are taken one at a time. An odd width or height is made even by repeating the last column or row.

    Args:
        path: ends in .mp4; an existing file is replaced once the new one is complete.
        frames: at least one.
        fps: frames per second.
    Returns:
        The number of frames.
    Raises:
        RunError: no frames, frames of different sizes, or a path that cannot be written.

    Example:
        >>> write_video(Path("grey.mp4"), np.full((10, 64, 64, 3), 0.5), fps=25)
        10
    """
    count = 0
    with replacing(path) as temporary:
        pictures = _same_size(frames, path)
        first = next(pictures)  # before the encoder starts, which complains when closed without any
        with iio.imopen(temporary, "w", plugin="pyav") as video:
            video.init_video_stream("libx264", fps=float(fps), pixel_format="yuv420p")
            for picture in chain([first], pictures):
                height, width = picture.shape[:2]
                video.write_frame(np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge"))
                count += 1
    return count


def write_images(folder: Path, frames: Iterable[np.ndarray]) -> int:
    """Write pictures as folder/frame_00000.png, frame_00001.png, ...

    Frames that an earlier sequence left in the folder are removed once the new ones are complete; other files
    stay.

    Args:
        folder: created if it is not there.
        frames: at least one.
    Returns:
        The number of frames.
    Raises:
        RunError: no frames, frames of different sizes, or a folder that cannot be written.

    Example:
        >>> write_images(Path("frames"), np.zeros((3, 4, 4, 3)))
        3
    """
    new: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for picture in _same_size(frames, folder):
            new.append(folder / f".frame_{len(new):05d}.{os.getpid()}.png")
            iio.imwrite(new[-1], picture)
        for old in folder.glob("frame_*.png"):
            old.unlink()
        for index, path in enumerate(new):
            path.replace(folder / f"frame_{index:05d}.png")
    except OSError as error:
        raise unwritable(folder, error) from error
    finally:
        for path in new:
            path.unlink(missing_ok=True)
    return len(new)


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
    """(H, W, 3) uint8 of a picture; floats are clamped to [0, 1] and NaN is black."""
    image = np.asarray(image)
    if image.dtype != np.uint8:
        image = (np.nan_to_num(image).clip(0, 1) * 255 + 0.5).astype(np.uint8)
    return image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2)


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
