"""How much each pixel of a camera that stands still changes over time, and what it mostly shows.

Letters: U cameras seen, T frames of a camera, K frames looked at, H image height, W image width.
"""

from collections.abc import Iterator

import torch

from msth_taichi.scene.frames import FrameStore
from msth_taichi.scene.scene import Images

_BLOCK = 8  # frames looked at together: bounds the memory, whatever the length of the video

WORKING_BYTES = 2**29
"""What one look at many frames may take on the device; images are cut into strips of rows that keep to it."""


def temporal_variance(store: FrameStore, images: Images) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Population variance over time of colours in [0, 1], mean over red, green and blue.

    Sums of bytes and of their squares are exact integers, so that a pixel that never changes has variance 0. Frames
    whose mask says that a pixel does not count are left out; a pixel that never counts has variance 0.

    Args:
        store: the frames of `images`, row for row.
        images: of cameras that stand still.
    Returns:
        cameras (U,) int64, rows of the scene's cameras in ascending order, and the variance of each, (H, W) float32,
        on `store.device`.

    Example:
        >>> cameras, variance = temporal_variance(store, scene.images("train"))
        >>> dynamic = [v > 0.03 for v in variance]
    """
    cameras = images.camera.unique()
    masked = has_masks(images)
    variances = [_variance(store, (images.camera == camera).nonzero()[:, 0], masked) for camera in cameras]
    return cameras.to(store.device), variances


def temporal_median(store: FrameStore, rows: torch.Tensor, frames: int, masked: bool) -> torch.Tensor:
    """Median over time of each colour of a pixel, of at most `frames` frames that are evenly spaced.

    Of an even number of values it is the lower of the middle two. Frames whose mask says that a pixel does not count
    are left out; a pixel that never counts is 0.

    Args:
        store: of all frames.
        rows: (T,) int64, rows of one camera's frames in the store, in order of time.
        frames: most frames looked at; the memory this takes does not grow with T.
        masked: the last channel is 0 where a pixel does not count.
    Returns:
        (H, W, 3) uint8 on `store.device`.
    """
    chosen = rows[torch.linspace(0, len(rows) - 1, min(frames, len(rows))).round().long()].tolist()
    width, height = store.sizes[chosen[0]].tolist()
    # bytes and their copy while they are ordered, which has to have room for "not a number" where there are masks
    per_pixel = len(chosen) * (3 + 4 + 4 if masked else 3 + 3) * 3
    median = torch.empty(height, width, 3, dtype=torch.uint8, device=store.device)
    for first, last in strips(height, width * per_pixel):
        values = torch.stack([store.raw(k)[first:last] for k in chosen])
        if masked:
            colors = values[..., :3].float().masked_fill(values[..., -1:] == 0, torch.nan)
            median[first:last] = colors.nanmedian(dim=0).values.nan_to_num(0).to(torch.uint8)
        else:
            median[first:last] = values[..., :3].median(dim=0).values
    return median


def strips(height: int, bytes_per_row: int, multiple: int = 1) -> Iterator[tuple[int, int]]:
    """First row of each strip of an image and the row after its last: as many rows as WORKING_BYTES allow.

    Args:
        height: H.
        bytes_per_row: that working on one row takes.
        multiple: strips are so many rows, or a multiple; only the last may be shorter.
    """
    rows = max(WORKING_BYTES // (bytes_per_row * multiple), 1) * multiple
    for first in range(0, height, rows):
        yield first, min(first + rows, height)


def has_masks(images: Images) -> bool:
    """Whether the last channel says which pixels count; False of images without a source."""
    return images.source is not None and images.masked


def _variance(store: FrameStore, rows: torch.Tensor, masked: bool) -> torch.Tensor:
    """(H, W) variance over the frames at `rows`."""
    width, height = store.sizes[rows[0]].tolist()
    total = torch.zeros(height, width, 3, dtype=torch.int64, device=store.device)
    squares = torch.zeros_like(total)
    count = torch.zeros(height, width, 1, dtype=torch.int64, device=store.device)
    for block in rows.split(_BLOCK):
        values = torch.stack([store.raw(k) for k in block.tolist()])
        frames = values[..., :3].int()
        if masked:
            kept = values[..., -1:] > 0
            frames *= kept
            count += kept.sum(0)
        else:
            count += len(block)
        total += frames.sum(0)
        squares += frames.square().sum(0)
    # count^2 255^2 variance, before anything is rounded
    scaled = (count * squares - total * total).double() / (count.clamp(min=1) * 255) ** 2
    return scaled.mean(-1).float()
