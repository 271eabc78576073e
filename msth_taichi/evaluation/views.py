"""One view: a camera that stands still through its frames, or all images of cameras that move.

Its images are compared as they come, and once more when all have been seen, which is when the affine colours and the
pixels that change are known.

Letters: H, W image size.
"""

from typing import Any

import numpy as np
import torch

from msth_taichi.evaluation.affine import AffineFit, apply_affine
from msth_taichi.evaluation.comparison import target_image, valid_pixels
from msth_taichi.evaluation.kept import KeptFrames
from msth_taichi.evaluation.metrics import image_metrics, means, psnr, ssim
from msth_taichi.evaluation.motion import DYNAMIC_VARIANCE, DynamicPixels, psnr_over, temporal_psnr
from msth_taichi.evaluation.perceptual import Perceptual, no_lpips


class ViewScores:
    """Scores of a view's images.

    Args:
        kept: holds them for the second look.
        background: `rays.behind`.
        masked: whether the last channel of a frame says which pixels count.
        still: the camera does not move, so that pixels of different frames can be compared.
        perceptual: LPIPS, if it is wanted.
    """

    def __init__(
        self, kept: KeptFrames, background: str, masked: bool, still: bool, perceptual: Perceptual | None = None
    ):
        self._kept, self._background, self._masked, self._perceptual = kept, background, masked, perceptual
        self._fit = AffineFit()
        self._dynamic = DynamicPixels() if still else None
        self._before: tuple[torch.Tensor, torch.Tensor, torch.Tensor | None] | None = None
        self._frames: dict[int, dict[str, Any]] = {}

    def add(self, row: int, labels: dict[str, Any], image: torch.Tensor, frame: np.ndarray) -> dict[str, Any]:
        """Compare one image; in the order of time.

        Args:
            row: of the table of images.
            labels: what goes before the scores.
            image: (H, W, 3) in [0, 1], the render.
            frame: as read.
        Returns:
            The labels and scores, to which `finish` adds those of the second look.
        """
        target = target_image(frame, self._background, image, self._masked)
        valid = valid_pixels(frame).to(image.device) if self._masked else None
        scores = {**labels, **image_metrics(image, target)}
        scores |= self._perceptual(image, target) if self._perceptual else no_lpips()
        scores["psnr_temporal"] = None
        if self._dynamic is not None:
            self._dynamic.add(target, valid)
            if self._before is not None:
                before, target_before, valid_before = self._before
                both = None if valid is None or valid_before is None else valid & valid_before
                scores["psnr_temporal"] = temporal_psnr(image, before, target, target_before, both)
            self._before = image, target, valid
        self._fit.add(image, target, valid)
        self._kept.add(row, image, frame)
        self._frames[row] = scores
        return scores

    def finish(self, device: torch.device) -> dict[str, Any]:
        """Look a second time.

        Returns:
            Means over the images; `affine` (3, 4), the fitted colours; `dynamic_pixels`, the share of pixels that
            change, None of cameras that move; and `frames`, the scores of each image.
        """
        matrix = self._fit.matrix()
        dynamic = None if self._dynamic is None else self._dynamic.above(DYNAMIC_VARIANCE)
        again = self._kept.again(list(self._frames), device)
        for scores, (image, frame) in zip(self._frames.values(), again, strict=True):
            target = target_image(frame, self._background, image, self._masked)
            scores["psnr_dynamic"] = None if dynamic is None else psnr_over(dynamic, image, target)
            fitted = apply_affine(matrix, image)
            target = target_image(frame, self._background, fitted, self._masked)
            scores["psnr_affine"] = psnr(fitted, target)
            scores["ssim_affine"] = ssim(fitted, target)
        frames = list(self._frames.values())
        return {
            **means(frames),
            "affine": matrix.tolist(),
            "dynamic_pixels": None if dynamic is None else dynamic.double().mean().item(),
            "frames": frames,
        }
