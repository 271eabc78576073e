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

    def shares(self, count: int) -> list[float]:
        """Of the ray's light, what its first samples take."""
        passed, found = 0.0, []
        for row in range(count):
            tau = min(math.exp(min(self.logits[row], 80.0)) * self.widths[row], 1000.0)
            found.append(math.exp(-passed) * -math.expm1(-tau))
            passed += tau
        return found


def look_up(ray: Ray, look: Look, turn: int, darkness: float) -> None:
    """All turns of `want`; see `msth_taichi.ops.lookups`."""
    rows = range(len(ray.widths))
    for first in range(0, len(rows), turn):
        if 1 - sum(ray.shares(first)) <= math.exp(-darkness):
            break
        ray.logits |= {row: look(row) for row in rows[first : first + turn]}


def weigh(
    ray: Ray, masks: dict[int, float], least: float, darkness: float, keep_last: bool
) -> tuple[float, float | None, float, dict[int, float]]:
    """Optical depth, median, sum of masks and weights of the samples that show; see `msth_taichi.ops.lookups`.

    The median is None where half of the light never goes.
    """
    rows = range(len(ray.logits))
    shares = dict(enumerate(ray.shares(len(rows))))
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
