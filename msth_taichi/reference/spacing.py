"""Spacing of samples along a ray in plain PyTorch. Letters: x distance, g spacing function, s in [0, 1]."""

from typing import Literal

import torch

Spacing = Literal["piecewise", "uniform", "lindisp"]


def to_spacing(x: torch.Tensor, spacing: Spacing = "piecewise", middle: float = 1.0) -> torch.Tensor:
    """g(x), increasing: samples are evenly spaced in it.

    piecewise: x / (2k) if x < k, else 1 - k / (2x), with k = middle;  uniform: x;  lindisp: 1 - 1 / (x + 1).
    """
    if spacing == "piecewise":
        return torch.where(x < middle, x / (2 * middle), 1 - middle / (2 * x))
    return x if spacing == "uniform" else 1 - 1 / (x + 1)


def from_spacing(g: torch.Tensor, spacing: Spacing = "piecewise", middle: float = 1.0) -> torch.Tensor:
    """The distance x at which to_spacing(x) = g."""
    if spacing == "piecewise":
        return torch.where(g < 0.5, 2 * middle * g, middle / (2 - 2 * g))
    return g if spacing == "uniform" else 1 / (1 - g) - 1


def distances(s: torch.Tensor, near: torch.Tensor, far: torch.Tensor, spacing: Spacing, middle: float) -> torch.Tensor:
    """Distances (N, E) of the positions s (N, E) between near (N,) and far (N,), in the dtype of s.

    Computed in float64: where g tends to 1, float32 has no digits left for distant samples.
    """
    near, far = near.double()[:, None], far.double()[:, None]
    g_near, g_far = to_spacing(near, spacing, middle), to_spacing(far, spacing, middle)
    x = from_spacing(s.double() * g_far + (1 - s.double()) * g_near, spacing, middle)
    return x.clamp(near, far).to(s.dtype)
