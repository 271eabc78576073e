"""Spacing of samples along a ray, shared by stratified and resampled edges.

Letters: x distance, g spacing function, s position between near (0) and far (1) in which g is linear.
"""

from functools import cache
from types import SimpleNamespace

import taichi as ti


@cache
def spacing_functions(spacing: str, real) -> SimpleNamespace:
    """Device functions for one spacing; see `msth_taichi.reference.spacing` for the formulas.

    A constant added to g changes no distance. The spacings that tend to 1 are kept as g - 1, which holds its
    digits far away: at x = 1000, g in float32 is only good for a distance within 0.1.
    """

    @ti.func
    def to_spacing(x, middle):
        g = x
        if ti.static(spacing == "piecewise"):
            g = x / (2 * middle) - 1 if x < middle else -middle / (2 * x)
        elif ti.static(spacing == "lindisp"):
            g = -1 / (x + 1)
        return g

    @ti.func
    def from_spacing(g, middle):
        x = g
        if ti.static(spacing == "piecewise"):
            x = 2 * middle * (g + 1) if g < -0.5 else -middle / (2 * g)
        elif ti.static(spacing == "lindisp"):
            x = -1 / g - 1
        return x

    @ti.func
    def distance(s, near, far, middle):
        """Monotone in s, and exactly near at 0 and far at 1."""
        return distance_between(s, near, far, to_spacing(near, middle), to_spacing(far, middle), middle)

    @ti.func
    def distance_between(s, near, far, g_near, g_far, middle):
        """`distance` for ends whose g is known."""
        # each rounding here is monotone in s; s g_far + (1 - s) g_near would not be
        x = from_spacing(g_far - (1 - s) * (g_far - g_near), middle)
        x = ti.min(ti.max(x, near), far)
        if s <= 0:
            x = near
        if s >= 1:
            x = far
        return x

    return SimpleNamespace(
        to_spacing=to_spacing,
        from_spacing=from_spacing,
        distance=distance,
        distance_between=distance_between,
    )
