"""From a render's tensors to pictures.

Letters: H, W image size.
"""

import numpy as np
import torch

from msth_taichi.rendering.writers import colorize

DepthRange = tuple[float, float]
"""Farthest and nearest inverse depth of a picture's colours."""


def depth_range(depth: torch.Tensor) -> DepthRange:
    """The inverse depths between which a picture's colours run: the 1st and 99th percentile of an image.

    Take it from the first frame of a video and keep it, or the colours flicker.
    """
    far, near = np.percentile(_inverse(depth), [1, 99])
    return float(far), float(near)


def depth_picture(depth: torch.Tensor, limits: DepthRange) -> np.ndarray:
    """(H, W, 3) uint8 of (H, W) depths: red is near, blue is far, even steps are even in inverse depth."""
    return colorize(_inverse(depth), *limits)


def as_array(image: torch.Tensor) -> np.ndarray:
    """float32 on the CPU."""
    return image.float().cpu().numpy()


def _inverse(depth: torch.Tensor) -> np.ndarray:
    return 1.0 / as_array(depth).clip(1e-6, None)
