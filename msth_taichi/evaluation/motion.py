"""What changes in the view of a camera that stands still, and whether renders change alike.

Letters: H, W image size; T frames.
"""

import torch

from msth_taichi.evaluation.metrics import psnr_from_mse

DYNAMIC_VARIANCE = 0.003
"""Temporal variance above which a pixel is dynamic: a standard deviation of 14 of 255 grey levels, more than noise
and compression make, less than most of what moves."""


def temporal_psnr(
    image: torch.Tensor,
    before: torch.Tensor,
    target: torch.Tensor,
    target_before: torch.Tensor,
    valid: torch.Tensor | None = None,
) -> float:
    """PSNR of how a render differs from the one before it, against how the frames differ: what flickers scores low,
    and an error that stays scores as none.

        10 log10(1 / mean ((image - before) - (target - target_before))^2)

    Args:
        image: (H, W, 3) in [0, 1], the render of a frame.
        before: (H, W, 3), the render of the frame before.
        target: (H, W, 3), the frame.
        target_before: (H, W, 3), the frame before.
        valid: (H, W) bool, pixels known in both frames, the others are no error; None for all.

    Example:
        >>> temporal_psnr(render, render, render + 0.1, render + 0.1)
        100.0
    """
    wrong = (image.double() - before.double()) - (target.double() - target_before.double())
    if valid is not None:
        wrong = wrong * valid[..., None]
    return psnr_from_mse(wrong.square().mean().item())


class DynamicPixels:
    """Which pixels of a camera change, from frames taken in one after the other.

    Example:
        >>> pixels = DynamicPixels()
        >>> for target in frames:
        ...     pixels.add(target)
        >>> pixels.above(DYNAMIC_VARIANCE).float().mean()
        0.04
    """

    def __init__(self) -> None:
        self._count = 0
        self._total = self._squares = torch.zeros(())  # of a frame's shape and on its device from the first on
        self._valid: torch.Tensor | None = None

    def add(self, target: torch.Tensor, valid: torch.Tensor | None = None) -> None:
        """Take in one frame (H, W, 3) in [0, 1]; a pixel that is not valid, (H, W), is never dynamic."""
        value = target.double()
        self._count += 1
        self._total = self._total.to(value) + value
        self._squares = self._squares.to(value) + value.square()
        if valid is not None:
            self._valid = valid if self._valid is None else self._valid & valid

    def above(self, threshold: float) -> torch.Tensor:
        """(H, W) bool: population variance over the T frames, mean over red, green and blue, above a threshold."""
        variance = (self._squares / self._count - (self._total / self._count).square()).mean(-1)
        dynamic = variance > threshold
        return dynamic if self._valid is None else dynamic & self._valid


def psnr_over(pixels: torch.Tensor, image: torch.Tensor, target: torch.Tensor) -> float | None:
    """PSNR over some pixels only; None if there are none.

    Args:
        pixels: (H, W) bool.
        image: (H, W, 3) in [0, 1].
        target: (H, W, 3) in [0, 1].
    """
    wrong = (image[pixels].double() - target[pixels].double()).square()
    return psnr_from_mse(wrong.mean().item()) if wrong.numel() else None
