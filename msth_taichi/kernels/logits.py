"""What the logits of a sample stand for: density, optical depth and colour."""

from functools import cache
from types import SimpleNamespace

import taichi as ti

from msth_taichi.kernels.composite import volume_functions
from msth_taichi.thresholds import MAX_GRADIENT_LOGIT, MAX_LOGIT, OPAQUE


@cache
def logit_functions(real) -> SimpleNamespace:
    """Device functions for the logits of a bin."""
    volume = volume_functions(real, False)
    vec3 = ti.types.vector(3, real)

    @ti.func
    def density(logit):
        return ti.exp(ti.min(logit, real(MAX_LOGIT)))

    @ti.func
    def density_slope(logit):
        return ti.exp(ti.min(ti.max(logit, real(-MAX_GRADIENT_LOGIT)), real(MAX_GRADIENT_LOGIT)))

    @ti.func
    def sigmoid(logit):
        return 1 / (1 + ti.exp(-logit))

    @ti.func
    def color(color_logits: ti.template(), k):
        """Of column k of (3, M) logits."""
        values = vec3(0)
        for c in ti.static(range(3)):
            values[c] = sigmoid(ti.cast(color_logits[c, k], real))
        return values

    @ti.func
    def optical_depth(logit, width):
        return ti.min(density(logit) * width, real(OPAQUE))

    return SimpleNamespace(
        optical_depth=optical_depth,
        density=density,
        density_slope=density_slope,
        sigmoid=sigmoid,
        color=color,
        absorbed=volume.absorbed,
    )
