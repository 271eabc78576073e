"""What mask and uncertainty tell of each other by their correlation, in plain PyTorch and float64.

Letters: N rays, every k-th of which is looked at: N' of them; S samples per ray.
"""

import torch

from msth_taichi.thresholds import LEAST_VARIANCE, MOST_CORRELATION


def correlation_information(
    mask: torch.Tensor,
    level: torch.Tensor,
    weights: torch.Tensor,
    kept: torch.Tensor | None = None,
    interval: int = 1,
) -> torch.Tensor:
    """See `msth_taichi.ops.correlation_information`."""
    rays, samples = weights.shape
    if not level.numel():
        return mask.sum() * 0
    a = mask[: rays * samples].view(rays, samples)[::interval].flatten().double()
    weights = weights.detach() if kept is None else weights.detach() * kept[:, None]
    share = weights[::interval].flatten().double() + torch.finfo(torch.float32).tiny
    share = share / share.sum()
    a, b = (x - (share * x).sum() for x in (a, level.detach().double()))
    covariance, *variances = ((share * x * y).sum() for x, y in ((a, b), (a, a), (b, b)))
    correlation = covariance / ((variances[0] + LEAST_VARIANCE) * (variances[1] + LEAST_VARIANCE)).sqrt()
    return -torch.atanh(MOST_CORRELATION * correlation).to(mask.dtype)
