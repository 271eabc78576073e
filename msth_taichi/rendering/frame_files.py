"""One frame in a file: a picture (.png), or numbers (.npz, .exr), with what it says of itself.

Letters: H, W image size.
"""

import errno
import json
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngImageFile, PngInfo

from msth_taichi.errors import RunError
from msth_taichi.files import replacing
from msth_taichi.rendering.writers import Metadata

_COMMENT = "Comment"
_CHANNELS = {1: "Z", 3: "RGB", 4: "RGBA"}  # of .exr, by how many there are
_COMPRESSION = 4  # of .png: a third of the time of the default, and as small for renders


def save_frame(path: Path, frame: np.ndarray, metadata: Metadata) -> None:
    """Write a frame in one step; the same frame gives the same file, byte for byte.

    Args:
        path: ends in .png, .npz or .exr.
        frame: (H, W, 3 or 4) uint8 for .png; float32 (H, W) or (H, W, 3 or 4) else.
        metadata: what `load_frame` gives back: the comment of .png and .exr, "metadata" in .npz; its "output" is the
            array's name in .npz.
    Raises:
        RunError: the path cannot be written, or .exr needs a package.
    """
    text = json.dumps(metadata)
    with replacing(path) as temporary:
        if path.suffix == ".npz":
            arrays: dict[str, Any] = {metadata["output"]: frame, "metadata": np.array(text)}
            np.savez_compressed(temporary, **arrays)
        elif path.suffix == ".exr":
            _save_exr(temporary, frame, text)
        else:
            note = PngInfo()
            note.add_text(_COMMENT, text)
            Image.fromarray(frame).save(temporary, pnginfo=note, compress_level=_COMPRESSION)


def load_frame(path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """The frame and the metadata that `save_frame` was given; an exception of any kind where a file is damaged.

    Example:
        >>> depth, metadata = load_frame(Path("orbit-depth/frame_00000.npz"))
        >>> metadata["values"]
        'distance along the ray, units of the data set; nan: nothing'
    """
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            metadata = json.loads(str(file["metadata"]))
            return file[metadata["output"]], metadata
    if path.suffix == ".exr":
        with require_exr().File(str(path)) as file:
            pixels = next(iter(file.channels().values())).pixels
            return pixels, json.loads(file.header()["comments"])
    with PngImageFile(path) as image:  # Image.open refuses more than 179 million pixels
        return np.asarray(image), json.loads(image.info[_COMMENT])


def is_whole(path: Path, size: tuple[int, int], job: str) -> bool:
    """Whether a file holds a frame of this width and height that was rendered for this job."""
    if not path.is_file():  # of which OpenEXR would print a line
        return False
    try:
        if path.suffix == ".png":
            with PngImageFile(path) as image:
                found, metadata = image.size, json.loads(image.info[_COMMENT])
                image.verify()  # checksums, of the end of the file too, which decoding does without
        else:
            frame, metadata = load_frame(path)
            found = frame.shape[1::-1]
    except Exception:  # decoders raise errors of many kinds
        return False
    return found == size and metadata.get("job") == job


def require_exr() -> ModuleType:
    """The package that reads and writes .exr.

    Raises:
        RunError: it is not installed.
    """
    try:
        import OpenEXR  # pyright: ignore[reportMissingImports] -- an extra
    except ImportError:
        raise RunError(
            "--format exr: needs the package OpenEXR; install it with: pip install 'msth_taichi[exr]', or use "
            "--format npz"
        ) from None
    return OpenEXR


def _save_exr(path: Path, frame: np.ndarray, text: str) -> None:
    exr = require_exr()
    header = {"compression": exr.ZIP_COMPRESSION, "type": exr.scanlineimage, "comments": text}
    channels = {_CHANNELS[frame.shape[2] if frame.ndim == 3 else 1]: np.ascontiguousarray(frame)}
    try:
        exr.File(header, channels).write(str(path))
    except RuntimeError as error:  # it does not say what the system said
        full = shutil.disk_usage(path.parent).free < 2 * frame.nbytes
        raise OSError(errno.ENOSPC if full else errno.EIO, str(error)) from error
