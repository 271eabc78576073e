"""Frames decoded by several threads at once: decoders let go of Python's lock."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from tqdm import tqdm

from msth_taichi.scene.scene import Images


def decode(images: Images, use: Callable[[int, np.ndarray], None], title: str, progress: bool = True) -> None:
    """Hand every frame to `use`, with its row of the table; in any order, from any thread.

    Args:
        images: the table to decode.
        use: takes the row and the frame, (H, W, channels) uint8.
        title: of the bar.
        progress: show a bar.
    Raises:
        DataError: the first file in the order of the table that cannot be decoded.

    Example:
        >>> decode(images, lambda row, frame: frames[row].copy_(torch.from_numpy(frame)), "frames")
    """
    stop = threading.Event()
    bar = tqdm(desc=title, total=len(images), unit="frame", leave=False, disable=None if progress else True)

    def read(rows: np.ndarray) -> None:
        for row, frame in zip(rows.tolist(), images.select(torch.from_numpy(rows)).read(), strict=True):
            if stop.is_set():
                return
            use(row, frame)
            with bar.get_lock():
                bar.update()

    groups = images.parts()
    if len(groups) == 1:  # here: the built-in scene launches kernels, which is for the main thread
        with bar:
            read(groups[0])
        return
    with bar, ThreadPoolExecutor(usable_cores()) as pool:
        parts = [pool.submit(read, rows) for rows in groups]
        try:
            for part in parts:
                part.result()
        finally:  # an error, or Ctrl-C: what is left ends with the frame it is at
            stop.set()
            pool.shutdown(cancel_futures=True)


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
