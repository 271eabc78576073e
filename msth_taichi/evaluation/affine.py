"""The affine change of colours that brings renders closest to what was photographed.

Cameras of one rig differ in exposure and white balance, and nothing tells a field what those of a held-out camera
are. It is customary to fit them afterwards; what that gains is no merit of the field, so such numbers have names of
their own.

Letters: H, W image size; x a rendered colour, y the true one, (x, 1) x and a one.
"""

import torch

# eigenvalues below this share of the largest are colours that a view does not show, such as all but grey in grey
# images; the fit leaves them as they are
_RANK = 1e-9


class AffineFit:
    """Least squares over any number of images, of which only sums are kept.

        A = argmin sum |A (x, 1) - y|^2

    over pixels; among equally good A the one closest to changing nothing.

    Example:
        >>> fit = AffineFit()
        >>> fit.add(render, 0.8 * render + 0.1)
        >>> fit.matrix()[0].tolist()
        [0.8, 0.0, 0.0, 0.1]
    """

    def __init__(self) -> None:
        self._squares = torch.zeros(4, 4, dtype=torch.float64)
        self._residuals = torch.zeros(4, 3, dtype=torch.float64)

    def add(self, image: torch.Tensor, target: torch.Tensor, valid: torch.Tensor | None = None) -> None:
        """Take in one render.

        Args:
            image: (H, W, 3), what is to be changed.
            target: (H, W, 3), what it is to become.
            valid: (H, W) bool, pixels that count; None for all.
        """
        x, y = image.double().reshape(-1, 3), target.double().reshape(-1, 3)
        if valid is not None:
            x, y = x[valid.flatten()], y[valid.flatten()]
        padded = torch.nn.functional.pad(x, (0, 1), value=1.0)
        self._squares += (padded.T @ padded).cpu()
        self._residuals += (padded.T @ (y - x)).cpu()

    def matrix(self) -> torch.Tensor:
        """A, (3, 4) float64 on the CPU; where no pixel counts, the one that changes nothing."""
        change = torch.linalg.pinv(self._squares, hermitian=True, rtol=_RANK) @ self._residuals
        return torch.eye(3, 4, dtype=torch.float64) + change.T


def apply_affine(matrix: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """A (x, 1) of every pixel, clamped to [0, 1].

    Args:
        matrix: (3, 4).
        image: (H, W, 3).
    Returns:
        (H, W, 3) float32.

    Example:
        >>> apply_affine(torch.eye(3, 4), torch.full((1, 1, 3), 0.5)).tolist()
        [[[0.5, 0.5, 0.5]]]
    """
    matrix = matrix.to(image.device, torch.float64)
    return (image.double() @ matrix[:, :3].T + matrix[:, 3]).clamp(0, 1).float()
