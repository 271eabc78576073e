"""Which samples of rays a render looks up, ray by ray in plain Python.

Letters: S samples of a ray, M samples of all rays that are looked up.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

Look = Callable[[int], float]
"""Density logit of the sample in a row."""


@dataclass
class Ray:
    """What has been looked up of one ray.

    Args:
        middles: S distances.
        widths: S.
    """

    middles: list[float]
    widths: list[float]
    logits: dict[int, float] = field(default_factory=dict)

    def coarse(self, stride: int) -> list[int]:
        """Rows of every `stride`th sample and the last one."""
        last = len(self.widths) - 1
        return sorted({*range(0, last, stride), last}) if last >= 0 else []

    def shares(self, rows: list[int], widths: list[float]) -> list[float]:
        """Of the ray's light, what samples in front of each other take."""
        passed, found = 0.0, []
        for row, width in zip(rows, widths, strict=True):
            tau = min(math.exp(min(self.logits[row], 80.0)) * width, 1000.0)
            found.append(math.exp(-passed) * -math.expm1(-tau))
            passed += tau
        return found


def look_up(ray: Ray, look: Look, turn: int, stride: int, darkness: float, least: float) -> None:
    """All turns of `want_next`, then `want_between`; see `msth_taichi.ops.lookups`."""
    coarse = ray.coarse(stride)
    if not coarse:
        return
    # each sample stands for those up to the next one
    around = [sum(ray.widths[a:b]) for a, b in zip(coarse, [*coarse[1:], len(ray.widths)], strict=True)]
    for first in range(0, len(coarse), turn):
        lit = 1 - sum(ray.shares(coarse[:first], around[:first]))
        if lit <= math.exp(-darkness):
            break
        ray.logits |= {row: look(row) for row in coarse[first : first + turn]}
    done = [row for row in coarse if row in ray.logits]
    shares = ray.shares(done, around[: len(done)]) + [0.0] * (len(coarse) - len(done))
    for a, b, before, after in zip(coarse, coarse[1:], shares, shares[1:], strict=False):
        if max(before, after) > least:
            ray.logits |= {row: look(row) for row in range(a + 1, b)}


def weigh(
    ray: Ray, masks: dict[int, float], least: float, darkness: float, keep_last: bool
) -> tuple[float, float | None, float, dict[int, float]]:
    """Optical depth, median, sum of masks and weights of the samples that show; see `msth_taichi.ops.lookups`.

    The median is None where half of the light never goes.
    """
    rows = sorted(ray.logits)
    shares = dict(zip(rows, ray.shares(rows, [ray.widths[row] for row in rows]), strict=True))
    depth = sum(min(math.exp(min(ray.logits[row], 80.0)) * ray.widths[row], 1000.0) for row in rows)
    shown = {row: w for row, w in shares.items() if w > least}
    for start in range(0, len(ray.widths), 4):
        few = [row for row in rows if start <= row < start + 4]
        best = max(few, key=lambda row: shares[row], default=None)
        if best is not None and not shown.keys() & set(few) and shares[best] > 0.1 * least:
            shown[best] = shares[best]
    last = len(ray.widths) - 1
    if keep_last and last in shares and depth < darkness:
        shown.setdefault(last, 0.0)
    median, light = None, 1.0
    for row in rows:
        if light > 0.5:
            median = ray.middles[row]
        light -= shares[row]
    mask = sum(share * masks[row] for row, share in shares.items())
    return depth, median if depth >= math.log(2) else None, mask, dict(sorted(shown.items()))
