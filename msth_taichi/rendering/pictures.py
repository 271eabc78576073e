"""From a render's tensors to pictures.

Letters: H, W image size.
"""

from collections.abc import Mapping

import numpy as np
import torch

from msth_taichi.rendering.writers import colorize

DepthRange = tuple[float, float]
"""Farthest and nearest inverse depth of a picture's colours."""


def depth_range(image: Mapping[str, torch.Tensor]) -> DepthRange:
    """`inverse_range` of a render.

    Args:
        image: from `render_image`.
    """
    return inverse_range(_inverse(image))


def inverse_range(inverse: np.ndarray) -> DepthRange:
    """The inverse depths between which a picture's colours run: the 1st and 99th percentile of what rays meet.

    Take it from the first frame of a video and keep it, or the colours flicker.

    Args:
        inverse: (H, W) inverse depth; not finite where a ray meets nothing.
    """
    solid = inverse[np.isfinite(inverse)]
    far, near = np.percentile(solid, [1, 99]) if solid.size else (0.0, 1.0)
    return float(far), float(near)


def depth_picture(image: Mapping[str, torch.Tensor], limits: DepthRange) -> np.ndarray:
    """(H, W, 3) uint8 of depths: red is near, blue is far, black is nothing; even steps are even in inverse depth.

    Args:
        image: from `render_image`.
        limits: from `depth_range`.
    """
    return colorize(_inverse(image), *limits)


def as_array(image: torch.Tensor) -> np.ndarray:
    """float32 on the CPU."""
    return image.float().cpu().numpy()


def _inverse(image: Mapping[str, torch.Tensor]) -> np.ndarray:
    """(H, W) inverse depth; NaN where less than half of a ray is absorbed, and its median depth means nothing."""
    solid = as_array(image["accumulation"]) >= 0.5
    return np.where(solid, 1.0 / as_array(image["depth"]).clip(1e-6, None), np.nan)
