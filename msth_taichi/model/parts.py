"""Rays a part at a time, in smaller parts where the GPU has too little memory for as many.

Letters: N rays.
"""

import sys
from collections.abc import Callable
from typing import TypeVar

import torch
from tqdm import tqdm

from msth_taichi.errors import DeviceError
from msth_taichi.model.rays import Rays

FEWEST = 2**10
"""Rays of a part: where even these do not fit into memory, something else is wrong."""

Found = TypeVar("Found")
Many = TypeVar("Many", torch.Tensor, Rays)

_fits = 2**62  # rays at once that this process's device has shown to have no more memory than for


def in_parts(rays: Many, size: int, use: Callable[[Many], Found]) -> list[Found]:
    """What `use` makes of N rays, so many at a time; half as many from then on whenever the GPU is out of memory.

    Parts are of nearly the same size: a GPU takes as long for a small one as for one that fills it.

    Args:
        rays: N rays, their numbers (N,), or whatever has a row for each.
        size: rays at once, at most.
        use: takes a part of `rays`; called again with half of it where memory did not suffice.
    Raises:
        DeviceError: there is no memory even for `FEWEST` rays.

    Example:
        >>> in_parts(torch.arange(5), 2, len)
        [2, 2, 1]
    """
    global _fits
    found: list[Found] = []
    first, halved = 0, False
    parts = -(-len(rays) // min(size, _fits))
    size = -(-len(rays) // max(parts, 1))
    while first < len(rays):
        part = rays[first : first + min(size, _fits)]
        try:
            found.append(use(part))
            first += len(part)
            continue
        except torch.OutOfMemoryError as error:
            if len(part) <= FEWEST:
                raise DeviceError(
                    f"the GPU is out of memory for as few as {len(part)} rays; end other programs that use it"
                ) from error
        # here the error is gone, and what it held with it
        _fits, halved = max(len(part) // 2, FEWEST), True
        torch.cuda.empty_cache()
    if halved:
        tqdm.write(
            f"warning: the GPU is out of memory; it renders {_fits} rays at once from here on, which is slower",
            file=sys.stderr,
        )
    return found
