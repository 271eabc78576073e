"""How much each pixel of a camera that stands still changes over time.

Letters: U cameras seen, T frames of a camera, H image height, W image width.
"""

import torch

from msth_taichi.scene.frames import FrameStore
from msth_taichi.scene.scene import Images

_BLOCK = 8  # frames looked at together: bounds the memory, whatever the length of the video


def temporal_variance(store: FrameStore, images: Images) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Population variance over time of colours in [0, 1], mean over red, green and blue.

    Sums of bytes and of their squares are exact integers, so that a pixel that never changes has variance 0.

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
    variances = [_variance(store, (images.camera == camera).nonzero()[:, 0]) for camera in cameras]
    return cameras.to(store.device), variances


def _variance(store: FrameStore, rows: torch.Tensor) -> torch.Tensor:
    """(H, W) variance over the frames at `rows`."""
    width, height = store.sizes[rows[0]].tolist()
    total = torch.zeros(height, width, 3, dtype=torch.int64, device=store.device)
    squares = torch.zeros_like(total)
    for block in rows.split(_BLOCK):
        frames = torch.stack([store.raw(k)[..., :3] for k in block.tolist()]).int()
        total += frames.sum(0)
        squares += frames.square().sum(0)
    count = len(rows)
    # count^2 255^2 variance, before anything is rounded
    scaled = (count * squares - total * total).double() / (count * 255) ** 2
    return scaled.mean(-1).float()
