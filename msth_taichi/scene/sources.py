"""Frames from video and image files, decoded one at a time.

Letters: T frames of a video, H image height, W image width.
"""

import itertools
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from msth_taichi.errors import DataError, FrameError
from msth_taichi.files import media_name
from msth_taichi.scene.videos import CONTAINERS, unreadable, video_frames

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")

# by content, whatever the name: of other kinds some are programs (EPS)
_PICTURES = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
# pillow's names of 8-bit pixels, with the channels that they become
_CHANNELS = {**dict.fromkeys(("L", "P", "RGB", "YCbCr", "CMYK"), 3), **dict.fromkeys(("LA", "PA", "RGBA"), 4)}

# pillow's names of grey pixels, of which depth maps are made
_GREY = ("L", "I", "F", "I;16", "I;16B", "I;16L", "I;16N")
_DEPTH_PICTURES = ("PNG", "TIFF")
_ASPECT_TOLERANCE = 0.01
_PARSING = threading.Lock()
"""Held while a header is parsed by `ast`, whose count of nesting in Python 3.11 is one of all threads (CPython issue
106905): where another thread comes between, "AST constructor recursion depth mismatch" is raised."""

_END = object()
_TOGETHER = 8  # images that a thread reads before it looks for more


@dataclass(frozen=True)
class FileInfo:
    """What a file's header says: pixels, channels, frames and frames per second."""

    width: int
    height: int
    channels: int
    frames: int = 1
    fps: float = 0.0


def probe_image(path: Path) -> FileInfo:
    """Read an image's header.

    Raises:
        DataError: missing, unreadable, or not 8 bits a channel.
    """
    _require(path)
    try:
        with Image.open(path, formats=_PICTURES) as image:
            (width, height), mode = image.size, image.mode
    except Exception as error:  # decoders raise errors of many kinds
        raise unreadable(path, "image", error) from error
    if mode not in _CHANNELS:
        raise DataError(f"{path}: pixels of kind {mode}; convert it to 8-bit RGB or RGBA")
    return FileInfo(width, height, _CHANNELS[mode])


def probe_video(path: Path) -> FileInfo:
    """Read a video's header, decode its first frame and count its packets.

    Packets are counted because headers promise what a copy that broke off no longer has, or say nothing.

    Raises:
        DataError: missing, or no frame can be decoded.
    """
    _require(path)
    frames, decoded = 0, False
    try:
        with av.open(media_name(path), container_options=CONTAINERS) as container:
            stream = container.streams.video[0]
            for packet in container.demux(stream):
                frames += packet.size > 0 and not packet.is_discard  # the last packet is empty: it flushes the decoder
                decoded = decoded or len(packet.decode()) > 0
            info = FileInfo(stream.width, stream.height, 3, frames, float(stream.average_rate or 0))
    except Exception as error:  # decoders raise errors of many kinds
        raise unreadable(path, "video", error) from error
    if not decoded:
        raise DataError(f"{path}: no frame can be decoded; restore the file or encode it again")
    return info


@dataclass(frozen=True)
class VideoSource:
    """Videos; the key of a frame is video * num_frames + frame.

    Args:
        files: the videos.
        num_frames: more than any frame that is asked for.
        sizes: width and height of each file, pixels.
        downscale: each output pixel is the mean of this many squared.
    """

    files: tuple[Path, ...]
    num_frames: int
    sizes: tuple[tuple[int, int], ...]
    downscale: int = 1
    channels: int = 3
    masked: bool = False

    def read(self, keys: np.ndarray) -> Iterator[np.ndarray | FrameError]:
        """Frames (H, W, 3) uint8 in the order of `keys`; a step back in time opens the video again."""
        video, frame, frames, found = -1, -1, iter(()), None
        for key in keys.tolist():
            wanted_video, wanted_frame = divmod(key, self.num_frames)
            if (wanted_video, wanted_frame) == (video, frame):  # of a camera slower than the scene
                assert found is not None
                yield found
                continue
            if wanted_video != video or wanted_frame < frame:
                video, frame = wanted_video, wanted_frame - 1
                frames = video_frames(self.files[video], wanted_frame)
            path = self.files[video]
            picture = next(itertools.islice(frames, wanted_frame - frame - 1, None), _END)
            if picture is _END:
                raise DataError(
                    f"{path}: ends before frame {wanted_frame}, which is asked for; "
                    "use a lower data.num_frames or restore the video"
                )
            frame = wanted_frame
            if isinstance(picture, av.VideoFrame):
                found = shrink(_sized(path, picture.to_ndarray(format="rgb24"), self.sizes[video]), self.downscale)
            else:
                message = f"{path}: frame {frame} is damaged; restore the file or encode it again"
                found = FrameError(message, path, frame)
            yield found

    def parts(self, keys: np.ndarray) -> list[np.ndarray]:
        """One for each video."""
        video = keys // self.num_frames
        return np.split(np.arange(len(keys)), np.flatnonzero(np.diff(video)) + 1)

    def fingerprint(self) -> list[Any]:
        """What the frames depend on."""
        return ["video", self.num_frames, self.downscale, *map(file_state, self.files)]


@dataclass(frozen=True)
class DepthMap:
    """How far away what an image shows was measured to be.

    Args:
        file: a grey PNG or TIFF, or a NumPy file; of the image's size, or another with its proportions.
        unit: units of the poses in one of the file's.
    """

    file: Path
    unit: float

    def read(self, size: tuple[int, int], downscale: int = 1) -> np.ndarray:
        """(H, W) float32, units of the poses, 0 where unknown, for an image of this size divided by `downscale`.

        No two distances are averaged, for half way between two surfaces is often nothing: a smaller image has the
        median of each of its pixels' blocks, unknown where most of it is; for a map of another size it is the nearest.

        Args:
            size: width and height of the image's file, pixels.
            downscale: see `ImageSource`.
        Raises:
            DataError: missing, unreadable, not grey, or of other proportions.
        """
        _require(self.file)
        stored = self._stored()
        width, height = size
        if min(stored.shape) < 1 or abs(stored.shape[1] * height / (stored.shape[0] * width) - 1) > _ASPECT_TOLERANCE:
            raise DataError(
                f"{self.file}: a depth map of {stored.shape[1]}x{stored.shape[0]} for an image of {width}x{height}; "
                "bring both to the same proportions"
            )
        with np.errstate(over="ignore", invalid="ignore"):
            depth = stored.astype(np.float32) * np.float32(self.unit)
            depth = np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(0))
        return _fitted(depth, size, downscale)

    def _stored(self) -> np.ndarray:
        """(H, W) numbers as they are in the file."""
        try:
            if self.file.suffix.lower() == ".npy":
                # mapped, so that a header that promises more than the file has takes no memory
                with _PARSING:
                    stored = np.load(self.file, mmap_mode="r", allow_pickle=False)
                if stored.ndim == 3 and stored.shape[2] == 1:
                    stored = stored[..., 0]
                if stored.ndim != 2 or stored.dtype.kind not in "iuf":
                    raise ValueError(f"{stored.dtype} {stored.shape} instead of a number for each pixel")
                return stored
            with Image.open(self.file, formats=_DEPTH_PICTURES) as image:
                if image.mode not in _GREY:
                    raise ValueError(f"pixels of kind {image.mode} instead of grey")
                return np.array(image)
        except Exception as error:  # decoders raise errors of many kinds
            raise unreadable(self.file, "depth map", error) from error


@dataclass(frozen=True)
class ImageSource:
    """Image files; the key of a frame is its file's position.

    Args:
        files: one an image.
        sizes: width and height of each file, pixels.
        colors: 3, or 4 with straight alpha.
        downscale: each output pixel is the mean of this many squared.
        masks: grey images of the same sizes, 0 where a pixel is to be ignored; None for an image without.
        depths: None for an image without. They are not opened before they are asked for.
    """

    files: tuple[Path, ...]
    sizes: tuple[tuple[int, int], ...]
    colors: int
    downscale: int = 1
    masks: tuple[Path | None, ...] = ()
    depths: tuple[DepthMap | None, ...] = ()

    @property
    def channels(self) -> int:
        """Colours, alpha, and last whether the pixel counts (255 or 0) where there are masks."""
        return self.colors + self.masked

    @property
    def masked(self) -> bool:
        """Whether the last channel says which pixels count."""
        return any(self.masks)

    def read(self, keys: np.ndarray) -> Iterator[np.ndarray | FrameError]:
        """Frames (H, W, channels) uint8 in the order of `keys`."""
        for key in keys.tolist():
            try:
                yield self._read(key)
            except FrameError as error:
                yield error

    def _read(self, key: int) -> np.ndarray:
        picture = _read_image(self.files[key], "RGBA" if self.colors == 4 else "RGB")
        frame = shrink(_sized(self.files[key], picture, self.sizes[key]), self.downscale)
        return np.concatenate([frame, self._kept(key, frame)], axis=2) if self.masked else frame

    def _kept(self, key: int, frame: np.ndarray) -> np.ndarray:
        path = self.masks[key]
        if path is None:
            return np.full_like(frame[..., :1], 255)
        mask = _sized(path, _read_image(path, "L"), self.sizes[key])[..., None]
        # a pixel that is partly to be ignored says nothing
        return np.where(shrink(np.where(mask > 0, 255, 0).astype(np.uint8), self.downscale) == 255, 255, 0).astype(
            np.uint8
        )

    def depth_map(self, key: int) -> np.ndarray | None:
        """(H, W) float32 of an image, as the lens measures it, units of the poses, 0 where unknown; None without."""
        depth = self.depths[key] if self.depths else None
        return None if depth is None else depth.read(self.sizes[key], self.downscale)

    def parts(self, keys: np.ndarray) -> list[np.ndarray]:
        """A few images each."""
        return np.split(np.arange(len(keys)), np.arange(_TOGETHER, len(keys), _TOGETHER))

    def fingerprint(self) -> list[Any]:
        """What the frames depend on."""
        files = [*self.files, *(mask for mask in self.masks if mask)]
        return ["image", self.colors, self.downscale, *map(file_state, files)]


def file_state(path: Path) -> list[Any]:
    """What changes when a file does: its place, size and time."""
    state = path.stat()
    return [str(path.resolve()), state.st_size, state.st_mtime_ns]


def shrink(image: np.ndarray, factor: int) -> np.ndarray:
    """Area average over factor x factor pixels; what fills no block is cut off at the right and the bottom.

    Colours under straight alpha are weighted by it, so that what is transparent does not darken edges.

    Args:
        image: (H, W, 3 or 4) uint8.
        factor: at least 1.

    Example:
        >>> shrink(np.array([[[0, 0, 0], [255, 255, 255]]] * 2, np.uint8), 2)[0, 0]
        array([128, 128, 128], dtype=uint8)
    """
    if factor == 1:
        return image
    height, width = image.shape[0] // factor, image.shape[1] // factor
    blocks = image[: height * factor, : width * factor].reshape(height, factor, width, factor, -1).astype(np.float32)
    if image.shape[2] == 4:
        alpha = blocks[..., 3:].sum((1, 3))
        color = (blocks[..., :3] * blocks[..., 3:]).sum((1, 3)) / np.maximum(alpha, 1)
        mean = np.concatenate([color, alpha / factor**2], -1)
    else:
        mean = blocks.mean((1, 3))
    return np.floor(mean + 0.5).astype(np.uint8)


def _fitted(depth: np.ndarray, size: tuple[int, int], factor: int) -> np.ndarray:
    """See `DepthMap.read`."""
    width, height = size
    columns, rows = width // factor, height // factor
    if factor > 1 and depth.shape == (height, width):
        blocks = depth[: rows * factor, : columns * factor].reshape(rows, factor, columns, factor)
        blocks = blocks.swapaxes(1, 2).reshape(rows, columns, -1)
        known = (blocks > 0).sum(-1)
        ordered = np.sort(np.where(blocks > 0, blocks, np.float32(np.inf)), axis=-1)
        middle = np.take_along_axis(ordered, np.maximum(known - 1, 0)[..., None] // 2, -1)[..., 0]
        return np.where(2 * known >= factor**2, middle, np.float32(0))
    row, column = (
        ((np.arange(count) + 0.5) * factor * there / whole).astype(np.int64)
        for count, there, whole in ((rows, depth.shape[0], height), (columns, depth.shape[1], width))
    )
    return depth[row[:, None], column]


def _read_image(path: Path, mode: str) -> np.ndarray:
    try:
        with Image.open(path, formats=_PICTURES) as image:
            return np.array(image.convert(mode))
    except Exception as error:  # decoders raise errors of many kinds
        found = unreadable(path, "image", error)
        # what the system does not give us is not damaged
        raise found if getattr(error, "errno", None) else FrameError(str(found), path) from error


def _sized(path: Path, array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    width, height = size
    if array.shape[:2] != (height, width):
        found = f"{array.shape[1]}x{array.shape[0]}"
        raise DataError(f"{path}: a frame of {found}, expected {width}x{height}; restore the file or correct its size")
    return array


def _require(path: Path) -> None:
    try:
        found = path.is_file()
    except OSError as error:  # a name too long, a folder that may not be entered
        raise DataError(f"{path}: cannot be opened ({error.strerror}); correct its name or its permissions") from error
    if not found:
        raise DataError(f"{path}: missing; restore the file or remove its entry from the json")
