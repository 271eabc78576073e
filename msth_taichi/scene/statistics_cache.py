"""What was found out about all frames of a data set, kept on disk beside cached frames.

A file is named after all that its contents depend on: the files of the frames with their sizes and times, the
cameras and times of the images, and the settings. A change of any gives another name, and `msth cache --clear`
removes them all.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from msth_taichi.config import DataConfig
from msth_taichi.errors import RunError
from msth_taichi.files import replacing, write_json
from msth_taichi.scene.frame_cache import STATISTICS_SUFFIX, cache_folder, cache_key
from msth_taichi.scene.frames import FrameStore
from msth_taichi.scene.scene import Images

VERSION = 1
"""Of what is kept and how it is worked out; raised when either changes."""

WORTHWHILE = 2**28
"""Bytes of frames below which nothing is kept: it is worked out again in a second or so."""

Tensors = dict[str, torch.Tensor]


def cached_statistics(
    store: FrameStore,
    images: Images,
    settings: Mapping[str, Any],
    compute: Callable[[], Tensors],
    data: DataConfig | None,
) -> Tensors:
    """What `compute` returns, from disk if it was worked out before.

    A folder that cannot be written, or a file that cannot be read, costs time and is no error.

    Args:
        store: the frames of `images`, row for row.
        images: that the statistics are of.
        settings: plain values that the statistics depend on, with a name of what they are.
        compute: works them out, on `store.device`.
        data: for the folder; None keeps nothing.
    Returns:
        tensors on `store.device`.

    Example:
        >>> found = cached_statistics(store, images, {"kind": "mean"}, lambda: {"mean": mean(store)}, config.data)
    """
    if data is None or images.source is None or store.nbytes < WORTHWHILE:
        return compute()
    description = {
        "version": VERSION,
        "settings": dict(settings),
        "images": images.fingerprint(),
        "sizes": store.sizes.tolist(),
        "cameras": images.camera.tolist(),
        "times": images.time.tolist(),
    }
    path = cache_folder(data) / f"{cache_key(description)}{STATISTICS_SUFFIX}"
    found: Tensors | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):  # another process may be working on the same
            found = _read(path, store.device)
            if found is None:
                found = compute()
                _write(path, found, images)
    except (OSError, RunError, SafetensorError):
        found = found or compute()
    return found


def _read(path: Path, device: torch.device) -> Tensors | None:
    """What the file holds; None if it is not there or damaged."""
    try:
        return load_file(path, device=str(device))
    except (OSError, SafetensorError):
        return None


def _write(path: Path, tensors: Tensors, images: Images) -> None:
    with replacing(path) as temporary:
        save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, temporary)
    write_json(path.with_suffix(".json"), {"images": len(images), "source": images.origin})
