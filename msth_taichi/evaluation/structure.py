"""Structural similarity from windowed moments, of which several conventions are made at the cost of one.

The same numbers as torchmetrics' (tests hold it to them), an order of magnitude sooner on a CPU: its window is one
convolution of 11 x 11 in float64, which libraries have no fast code for; here it is eleven shifted sums along each
axis.

Letters: H, W image size; x, y the two images, mx, my their windowed means.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F

WINDOW = 11
"""Pixels along an edge of the window, the smallest image SSIM is defined on."""

SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of MS-SSIM's scales, each half as fine as the one before."""

_SIGMA = 1.5
_PAD = WINDOW // 2


class Moments(NamedTuple):
    """Windowed means of two images, their variances and covariance: (3, H, W) float64 each."""

    mean_x: torch.Tensor
    mean_y: torch.Tensor
    variances: torch.Tensor
    covariance: torch.Tensor


def moments(image: torch.Tensor, target: torch.Tensor) -> Moments:
    """Moments under a Gaussian window, images continued by reflection at their borders.

    Args:
        image: (3, H, W), H and W at least 11.
        target: (3, H, W).
    """
    # variances are differences of means of squares: float32 is off by 2e-4 where an image is flat and bright
    x, y = (F.pad(picture.double()[None], (_PAD,) * 4, mode="reflect")[0] for picture in (image, target))
    blurred = _blur(torch.stack([x, y, x * x, y * y, x * y]))
    mean_x, mean_y, square_x, square_y, product = blurred
    variances = (square_x - mean_x * mean_x).clamp(min=0) + (square_y - mean_y * mean_y).clamp(min=0)
    return Moments(mean_x, mean_y, variances, product - mean_x * mean_y)


def contrast(found: Moments, data_range: float = 1.0) -> torch.Tensor:
    """(3, H, W), the part of SSIM that does not compare brightness: (2 cov + c2) / (var x + var y + c2)."""
    c2 = (0.03 * data_range) ** 2
    return (2 * found.covariance + c2) / (found.variances + c2)


def similarity(found: Moments, data_range: float = 1.0) -> float:
    """Mean SSIM: (2 mx my + c1) / (mx^2 + my^2 + c1) times `contrast`, c1 = (0.01 range)^2, c2 = (0.03 range)^2.

    Source: Wang et al. 2004.
    """
    c1 = (0.01 * data_range) ** 2
    x, y = found.mean_x, found.mean_y
    return ((2 * x * y + c1) / (x * x + y * y + c1) * contrast(found, data_range)).mean().item()


def multiscale_similarity(image: torch.Tensor, target: torch.Tensor, finest: Moments) -> float:
    """Product over scales of mean contrast, at the coarsest of mean SSIM, each to its power in `SCALES`; data range 1.

    Args:
        image: (3, H, W), H and W at least 16 windows.
        target: (3, H, W).
        finest: their moments.
    Source: Wang et al. 2003.
    """
    factors, found = [], finest
    x, y = image.double(), target.double()
    for scale in range(len(SCALES)):
        if scale:
            x, y = (F.avg_pool2d(picture[None], 2)[0] for picture in (x, y))
            found = moments(x, y)
        inside = contrast(found)[..., _PAD:-_PAD, _PAD:-_PAD]
        factors.append(similarity(found) if scale == len(SCALES) - 1 else inside.mean().item())
    return math.prod(max(factor, 0.0) ** power for factor, power in zip(factors, SCALES, strict=True))


def _blur(maps: torch.Tensor) -> torch.Tensor:
    """(..., H, W) of maps (..., H + 10, W + 10) under the window: a weight per row times a weight per column."""
    offsets = torch.arange(WINDOW, dtype=torch.float64) - _PAD
    weights = torch.exp(-0.5 * (offsets / _SIGMA) ** 2)
    weights = (weights / weights.sum()).tolist()
    for axis in (-2, -1):
        size = maps.shape[axis] - WINDOW + 1
        blurred = maps.narrow(axis, 0, size) * weights[0]
        for offset in range(1, WINDOW):
            blurred.add_(maps.narrow(axis, offset, size), alpha=weights[offset])
        maps = blurred
    return maps
