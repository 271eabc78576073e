"""Terms that keep features of neighbouring places and times alike, where a batch of rays looks.

Letters: N rays, S samples per ray, L levels, F features per level.
"""

import torch

from msth_taichi.model.encoding import MaskedEncoding

_SPREAD = 61.8  # takes the jitter of a ray apart from the number of the sample it chooses


def chosen_positions(positions: torch.Tensor, choice: torch.Tensor) -> torch.Tensor:
    """One sample of each ray.

    Args:
        positions: (N*S, 3) ray after ray.
        choice: (N,) in [0, 1), the same for the same step.
    Returns:
        (N, 3) contiguous.
    """
    rays = len(choice)
    by_ray = positions.view(rays, -1, 3)
    sample = ((choice * _SPREAD).frac() * by_ray.shape[1]).long().clamp(max=by_ray.shape[1] - 1)
    return by_ray[torch.arange(rays, device=choice.device), sample]


def time_smoothness(
    encoding: MaskedEncoding, positions: torch.Tensor, times: torch.Tensor, compute: torch.dtype
) -> torch.Tensor:
    """mean |e(x, t - h) - 2 e(x, t) + e(x, t + h)|^2, h one cell of the finest level: features move evenly.

    Args:
        encoding: whose features e are meant, with the mask: a static place costs nothing.
        positions: (N, 3) in [0, 1].
        times: (N,) in [0, 1].
        compute: dtype of the features.
    Source: Fridovich-Keil et al. 2023, K-Planes, section 3.2, of planes.
    """
    step = 1 / encoding.dynamic_spec.resolutions[-1][3]
    # within the clip: a moment beyond its ends would be the end itself, and bend what is straight
    middle = times.clamp(step, 1 - step)
    moments = torch.cat([middle - step, middle, middle + step])
    features, _ = encoding(positions.repeat(3, 1), moments, compute)
    before, now, after = features.float().view(len(features), 3, -1).unbind(1)
    return (before - 2 * now + after).square().mean()


def total_variation(
    encoding: MaskedEncoding, positions: torch.Tensor, times: torch.Tensor, compute: torch.dtype, cell: float
) -> torch.Tensor:
    """mean |e(x + h, t) - e(x, t)|^2, h a step of `cell` along one axis, a third of the places each.

    Args:
        encoding: see `time_smoothness`.
        positions: (N, 3) in [0, 1].
        times: (N,) in [0, 1].
        compute: dtype of the features.
        cell: length of the step.
    """
    axis = torch.arange(len(positions), device=positions.device) % 3
    step = cell * torch.nn.functional.one_hot(axis, 3)
    features, _ = encoding(torch.cat([positions, (positions + step).clamp(0, 1)]), times.repeat(2), compute)
    here, there = features.float().view(len(features), 2, -1).unbind(1)
    return (there - here).square().mean()
