"""Depth and mask against the exact depth and motion that the built-in scene knows.

Letters: H, W image size; M = H*W pixels.
"""

import numpy as np
import torch

from msth_taichi.model.renderer import RadianceField
from msth_taichi.scene.cameras import Cameras

MOVES = 0.5
"""A mask below this says that a place moves."""

MASK_BINS = 32
"""Of a histogram of masks; even, so that `MOVES` is an edge."""


def mask_histogram(mask: np.ndarray) -> np.ndarray:
    """(MASK_BINS,) int64 counts of masks, any shape, in even bins from 0 to 1.

    Example:
        >>> mask_histogram(np.array([0.0, 1.0, 1.0]))[[0, -1]].tolist()
        [1, 2]
    """
    return np.histogram(mask.clip(0, 1), MASK_BINS, (0, 1))[0]


def depth_errors(depth: torch.Tensor, exact: np.ndarray) -> dict[str, float]:
    """Mean over pixels of |d - d'|, scene units, and of |d - d'| / d', d' the exact depth.

    Args:
        depth: (H, W) of a render.
        exact: (H, W) float32 distance along the ray, of surfaces everywhere.

    Example:
        >>> depth_errors(torch.tensor([[1.0, 3.0]]), np.array([[1.0, 2.0]], np.float32))
        {'depth_error': 0.5, 'depth_error_relative': 0.25}
    """
    known = torch.from_numpy(exact).to(depth.device).double()
    wrong = (depth.double() - known).abs()
    return {"depth_error": wrong.mean().item(), "depth_error_relative": (wrong / known).mean().item()}


def surface_mask(model: RadianceField, cameras: Cameras, camera: int, exact: np.ndarray, time: float) -> torch.Tensor:
    """The field's mask at the surfaces that pixel centres see, (H, W).

    Args:
        model: a field.
        cameras: in scene units.
        camera: which of them.
        exact: (H, W) float32 exact depth.
        time: in [0, 1].
    """
    device = next(model.parameters()).device
    depth = torch.from_numpy(exact).flatten().to(device)
    pixels = torch.arange(len(depth), device=device)
    cameras = cameras.select([camera]).to(device)
    width, _ = cameras.size(0)
    times = torch.full_like(depth, time)
    rays = model.rays(cameras, torch.zeros_like(pixels), pixels // width, pixels % width, times)
    return model.mask(rays.origins + rays.directions * depth[:, None], times).view(exact.shape)


class MaskScores:
    """The mask on static and on moving surfaces, over the pixels of any number of images."""

    def __init__(self) -> None:
        self._at_surface: list[torch.Tensor] = []
        self._rendered: list[torch.Tensor] = []
        self._moving: list[torch.Tensor] = []

    def add(self, at_surface: torch.Tensor, rendered: torch.Tensor, moving: np.ndarray) -> None:
        """Take in one image.

        Args:
            at_surface: (H, W) mask at the exact surfaces, 1 is static.
            rendered: (H, W) mask of the render.
            moving: (H, W) bool, what truly moves.
        """
        self._at_surface.append(at_surface.flatten().cpu())
        self._rendered.append(rendered.flatten().cpu())
        self._moving.append(torch.from_numpy(moving).flatten())

    def result(self) -> dict[str, float | None]:
        """Mean mask on static and on moving surfaces and their difference; `iou` and `iou_rendered`, the
        intersection over union of "mask < 0.5" with what moves. None where there is no such surface."""
        mask, rendered, moving = (torch.cat(parts) for parts in (self._at_surface, self._rendered, self._moving))
        static, dynamic = (m.mean().item() if len(m) else None for m in (mask[~moving], mask[moving]))
        return {
            "static": static,
            "moving": dynamic,
            "difference": None if static is None or dynamic is None else static - dynamic,
            "iou": iou(mask < MOVES, moving),
            "iou_rendered": iou(rendered < MOVES, moving),
        }


def iou(a: torch.Tensor, b: torch.Tensor) -> float | None:
    """|a and b| / |a or b| of two sets of pixels, bool of one shape; None if both are empty.

    Example:
        >>> iou(torch.tensor([True, True, False]), torch.tensor([False, True, False]))
        0.5
    """
    union = (a | b).sum().item()
    return (a & b).sum().item() / union if union else None
