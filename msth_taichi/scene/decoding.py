"""Frames decoded by several threads at once: decoders let go of Python's lock."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from tqdm import tqdm

from msth_taichi.errors import FrameError
from msth_taichi.machine import usable_cores
from msth_taichi.scene.damage import Damage, require_few
from msth_taichi.scene.scene import Images


def decode(images: Images, use: Callable[[int, np.ndarray], None], title: str, progress: bool = True) -> Damage:
    """Hand every frame to `use`, with its row of the table; in any order, from any thread.

    Few frames that are damaged are passed over.

    Args:
        images: the table to decode.
        use: takes the row and the frame, (H, W, channels) uint8.
        title: of the bar.
        progress: show a bar.
    Returns:
        What is wrong with frames that were passed over, by row.
    Raises:
        DataError: the first file in the order of the table that cannot be decoded, or too many damaged frames.

    Example:
        >>> decode(images, lambda row, frame: frames[row].copy_(torch.from_numpy(frame)), "frames")
    """
    stop, damage = threading.Event(), Damage()
    bar = tqdm(desc=title, total=len(images), unit="frame", leave=False, disable=None if progress else True)

    def read(rows: np.ndarray) -> None:
        for row, frame in zip(rows.tolist(), images.select(torch.from_numpy(rows)).attempt(), strict=True):
            if stop.is_set():
                return
            if isinstance(frame, FrameError):
                damage[row] = frame
            else:
                use(row, frame)
            with bar.get_lock():
                bar.update()

    groups = images.parts()
    if len(groups) == 1:  # here: the built-in scene launches kernels, which is for the main thread
        with bar:
            read(groups[0])
        return _few(damage, images)
    with bar, ThreadPoolExecutor(usable_cores()) as pool:
        parts = [pool.submit(read, rows) for rows in groups]
        try:
            for part in parts:
                part.result()
        finally:  # an error, or Ctrl-C: what is left ends with the frame it is at
            stop.set()
            pool.shutdown(cancel_futures=True)
    return _few(damage, images)


def _few(damage: Damage, images: Images) -> Damage:
    require_few(damage, len(images))
    return dict(sorted(damage.items()))
