"""How much a pixel of a camera that stands still matters at a time, read from the frames strip by strip.

Weights are whole numbers, in units of 1 / UNIT: their sums are exact, and so alike on every device and whatever the
strips are.

Letters: T frames of a camera in order of time, H height, W width, R rows of a strip, c colour in [0, 1] of one pixel
and channel, m its median over time, g gamma, a floor, S shift.
Source: DyNeRF (Li et al. 2022, Neural 3D Video Synthesis from Multi-view Video), "hierarchical training" and its
appendix on importance sampling.
"""

from collections.abc import Callable, Iterator

import torch

from msth_taichi.scene.frames import FrameStore
from msth_taichi.scene.statistics import strips, temporal_median

UNIT = 2**16

Strips = Iterator[tuple[int, int, torch.Tensor]]
"""Row of the store, first pixel row of the strip, and weights (R, W) int32 between 0 and UNIT."""

_BYTES = 96  # that a pixel takes while its weight is worked out

Weigh = Callable[[torch.Tensor, int], Strips]
"""From rows of one camera's frames, (T,) int64 in order of time, and a number of pixel rows that all strips but the
last of an image are a multiple of, to the weights of all pixels."""


def isg_weights(
    store: FrameStore, rows: torch.Tensor, multiple: int, gamma: float, frames: int, masked: bool
) -> Strips:
    """Difference to the median over time: mean over channels of (c - m)^2 / ((c - m)^2 + g^2).

    The median is that of at most `frames` evenly spaced frames. Pixels that do not count have weight 0.

    Args:
        store: of all frames.
        rows: (T,) int64, rows of one camera's frames, in order of time.
        multiple: strips are so many rows, or a multiple.
        gamma: g, difference whose weight is one half.
        frames: that the median is of.
        masked: the last channel is 0 where a pixel does not count.
    """
    square = (torch.arange(256).double() / 255) ** 2
    table = (UNIT / 3 * square / (square + gamma**2)).floor().int().to(store.device)
    usual = temporal_median(store, rows, frames, masked)
    width, height = store.sizes[rows[0]].tolist()
    for k in rows.tolist():
        frame = store.raw(k)
        for first, last in strips(height, width * _BYTES, multiple):
            part = frame[first:last]
            weights = table[(part[..., :3].int() - usual[first:last].int()).abs()].sum(-1, dtype=torch.int32)
            yield k, first, _counted(weights, part, masked)


def ist_weights(store: FrameStore, rows: torch.Tensor, multiple: int, shift: int, floor: float, masked: bool) -> Strips:
    """Difference to nearby times: max(mean over channels of max_s |c_t - c_s|, a), of all s with |t - s| <= S.

    max_s |c_t - c_s| is the larger of max_s c_s - c_t and c_t - min_s c_s, so that extremes of 2 S + 1 frames
    suffice. Times before the first and after the last frame are left out, as are those at which a pixel does not
    count. The publication writes min(., a) and says that a is a lower threshold, which takes max.

    Args:
        store: of all frames.
        rows: (T,) int64, rows of one camera's frames, in order of time.
        multiple: strips are so many rows, or a multiple.
        shift: S, frames.
        floor: a, least weight of a pixel that counts.
        masked: the last channel is 0 where a pixel does not count.
    """
    sums = torch.arange(3 * 255 + 1).double() / (3 * 255)
    table = (UNIT * sums.clamp(min=floor)).floor().int().to(store.device)
    width, height = store.sizes[rows[0]].tolist()
    reach = min(shift, len(rows) - 1)
    slots = 2 * reach + 1
    per_row = width * (_BYTES + slots * store.pixels.shape[1] * (2 if masked else 1))
    for first, last in strips(height, per_row, multiple):

        def read(t: int, part: slice = slice(first, last)) -> torch.Tensor:
            return store.raw(int(rows[t]))[part]

        # frame t is in slot t mod (2 S + 1); where the window reaches past an end, slots have that end's frame again
        ring = read(0).repeat(slots, 1, 1, 1)
        highest = ring[..., :3]
        lowest = highest.clone() if masked else highest
        if masked:
            _leave_out(highest, lowest, ring)
        for t in range(-reach, len(rows)):
            slot, frame = (t + reach) % slots, read(min(t + reach, len(rows) - 1))
            ring[slot] = frame
            if masked:
                lowest[slot] = frame[..., :3]
                _leave_out(highest[slot], lowest[slot], frame)
            if t >= 0:
                part = ring[t % slots]
                now = part[..., :3].int()
                difference = torch.maximum(highest.amax(0).int() - now, now - lowest.amin(0).int())
                weights = table[difference.clamp(min=0).sum(-1)]
                yield int(rows[t]), first, _counted(weights, part, masked)


def _counted(weights: torch.Tensor, frame: torch.Tensor, masked: bool) -> torch.Tensor:
    """Weights, 0 where a pixel does not count."""
    return weights * (frame[..., -1] > 0) if masked else weights


def _leave_out(highest: torch.Tensor, lowest: torch.Tensor, frames: torch.Tensor) -> None:
    """Make pixels that do not count lose every comparison."""
    ignored = frames[..., -1:] == 0
    highest.masked_fill_(ignored, 0)
    lowest.masked_fill_(ignored, 255)
