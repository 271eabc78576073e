"""How close a rendered image is to a photograph.

Images are (H, W, 3) tensors in [0, 1], sRGB as stored. Published numbers differ in convention more than many
methods do in quality, so each convention has its own name here:

    psnr          10 log10(1 / MSE), the mean of it over images
    psnr_pooled   the same of the MSE over all images: below the mean, and ruled by the worst image
    ssim          data range 1, 11x11 Gaussian window of sigma 1.5
    ssim2         data range 2: not what SSIM means for such images; some published D-SSIM figures follow it
    ms_ssim       five scales, data range 1
    d_ssim        (1 - ssim) / 2         d_ssim2  (1 - ssim2) / 2        d_ms_ssim  (1 - ms_ssim) / 2

`perceptual` has LPIPS, `motion` what needs more than one image, `affine` the colours that are fitted afterwards.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from msth_taichi.errors import TensorError
from msth_taichi.evaluation.structure import WINDOW, Moments, moments, multiscale_similarity, similarity

LABELS = ("name", "frame", "time")
"""What says which image a row of metrics is of."""

PARTIAL = ("psnr_temporal", "psnr_dynamic")
"""Metrics that some images lack by their nature, such as the first of a view; their means are over the others."""

# the window must fit more than once at the fifth scale, where an image is 16 times smaller
_MS_SSIM_SIZE = 16 * WINDOW

# 100 dB, far below the rounding of 8-bit images (59 dB), so that means stay finite and JSON stays valid
_MIN_MSE = 1e-10


def mse(image: torch.Tensor, target: torch.Tensor) -> float:
    """Mean squared error over pixels and channels, summed in float64."""
    _check(image, target)
    return (image.double() - target.double()).square().mean().item()


def psnr(image: torch.Tensor, target: torch.Tensor) -> float:
    """Peak signal-to-noise ratio in dB for a peak of 1; 100 for equal images.

    Args:
        image: (H, W, 3) in [0, 1].
        target: (H, W, 3) in [0, 1].
    Raises:
        TensorError: shapes differ or are not (H, W, 3).

    Example:
        >>> psnr(torch.full((4, 4, 3), 0.6), torch.full((4, 4, 3), 0.5))
        20.0
    """
    return psnr_from_mse(mse(image, target))


def psnr_from_mse(error: float) -> float:
    """10 log10(1 / MSE) in dB, at most 100."""
    return -10 * math.log10(max(error, _MIN_MSE))


def ssim(image: torch.Tensor, target: torch.Tensor, data_range: float = 1.0) -> float | None:
    """Structural similarity, at most 1; None for images smaller than its window of 11 pixels.

    Args:
        image: (H, W, 3) in [0, 1].
        target: (H, W, 3) in [0, 1].
        data_range: 1 for such images; 2 is the convention called `ssim2`, which is closer to 1.
    Raises:
        TensorError: shapes differ or are not (H, W, 3).
    Source: Wang et al. 2004.

    Example:
        >>> ssim(torch.ones(16, 16, 3), torch.ones(16, 16, 3))
        1.0
    """
    found = _moments(image, target)
    return None if found is None else similarity(found, data_range)


def ms_ssim(image: torch.Tensor, target: torch.Tensor) -> float | None:
    """Multi-scale structural similarity over five scales; None for images below 176 pixels along an edge.

    Args:
        image: (H, W, 3) in [0, 1].
        target: (H, W, 3) in [0, 1].
    Raises:
        TensorError: shapes differ or are not (H, W, 3).
    Source: Wang et al. 2003.
    """
    return _ms_ssim(image, target, _moments(image, target))


def image_metrics(image: torch.Tensor, target: torch.Tensor) -> dict[str, float | None]:
    """Every metric of one image, by the names in this module's description, and `mse`.

    Example:
        >>> image_metrics(torch.full((8, 8, 3), 0.6), torch.full((8, 8, 3), 0.5))["ssim"] is None
        True
    """
    error, found = mse(image, target), _moments(image, target)
    values: dict[str, float | None] = {
        "mse": error,
        "psnr": psnr_from_mse(error),
        "ssim": None if found is None else similarity(found),
        "ssim2": None if found is None else similarity(found, data_range=2.0),
        "ms_ssim": _ms_ssim(image, target, found),
    }
    for name, source in (("d_ssim", "ssim"), ("d_ssim2", "ssim2"), ("d_ms_ssim", "ms_ssim")):
        value = values[source]
        values[name] = None if value is None else (1 - value) / 2
    return values


def aggregate(rows: Sequence[dict[str, float | None]]) -> dict[str, float | None]:
    """The mean of each metric over images of one size, and `psnr_pooled`.

    Args:
        rows: from `image_metrics`, at least one. A metric that any image is too small for has no mean, None; but
            see `PARTIAL`.

    Example:
        >>> aggregate([{"mse": 0.01, "psnr": 20.0}, {"mse": 0.0001, "psnr": 40.0}])["psnr"]
        30.0
    """
    if not rows:
        raise ValueError("no images to aggregate")
    result: dict[str, float | None] = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        known = [value for value in values if value is not None]
        enough = len(known) == len(values) or name in PARTIAL
        result[name] = sum(known) / len(known) if known and enough else None
    error = result["mse"]
    result["psnr_pooled"] = None if error is None else psnr_from_mse(error)
    return result


def means(frames: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """`aggregate` of rows that say which images they are of."""
    return aggregate([{k: v for k, v in frame.items() if k not in LABELS} for frame in frames])


def _moments(image: torch.Tensor, target: torch.Tensor) -> Moments | None:
    """Of images that SSIM is defined on."""
    _check(image, target)
    return moments(image.permute(2, 0, 1), target.permute(2, 0, 1)) if min(image.shape[:2]) >= WINDOW else None


def _ms_ssim(image: torch.Tensor, target: torch.Tensor, found: Moments | None) -> float | None:
    if found is None or min(image.shape[:2]) < _MS_SSIM_SIZE:
        return None
    return multiscale_similarity(image.permute(2, 0, 1), target.permute(2, 0, 1), found)


def _check(image: torch.Tensor, target: torch.Tensor) -> None:
    if image.ndim != 3 or image.shape[-1] != 3 or image.shape != target.shape or not image.numel():
        raise TensorError(
            f"images: expected two of shape (H, W, 3), got {tuple(image.shape)} and {tuple(target.shape)}"
        )
