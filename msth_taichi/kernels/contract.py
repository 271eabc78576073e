"""Contraction of unbounded space into the unit cube, and its gradient to positions. Letters: M positions."""

from functools import cache
from types import SimpleNamespace

import taichi as ti
import torch

from msth_taichi.kernels.cells import TAICHI_DTYPE
from msth_taichi.kernels.launch import launchers


@cache
def contract_functions(real, kind: str) -> SimpleNamespace:
    """Device functions of one contraction, shared with kernels that follow rays."""

    @ti.func
    def outer_radius(x):
        """max(1, |x|): one formula then holds inside and outside, and both it and its slope meet at 1."""
        radius = ti.cast(1, real)
        if ti.static(kind == "l2"):
            radius = ti.sqrt(ti.max(x.dot(x), 1))
        else:
            radius = ti.max(ti.abs(x[0]), ti.abs(x[1]), ti.abs(x[2]), 1)
        return radius

    @ti.func
    def contracted(x, box):
        y = x
        if ti.static(kind == "none"):
            y = (x + box) / (2 * box)
        else:
            radius = outer_radius(x)
            y = (x * ((2 - 1 / radius) / radius) + 2) / 4
            for d in ti.static(range(3)):
                # the GPU's fast division may leave the cube by one bit, where grids read zero
                y[d] = ti.min(ti.max(y[d], 0), 1)
        return y

    @ti.func
    def pulled_back(x, gradient, box):
        """Gradient to x of <gradient, contracted(x)>."""
        g = gradient
        if ti.static(kind == "none"):
            g /= 2 * box
        else:
            radius = outer_radius(x)
            # y = f(r) x with f = (2 - 1/r) / r:  dL/dx = f g + f' (g . x) dr/dx
            radial = g.dot(x) * (2 / radius - 2) / (radius * radius)
            g *= (2 - 1 / radius) / radius
            if ti.static(kind == "l2"):
                g += x * (radial / radius)
            else:
                axis = 0  # at edges and corners of the cube the first of the largest axes
                for d in ti.static((1, 2)):
                    largest = ti.abs(x[0]) if axis == 0 else ti.abs(x[1])
                    if ti.abs(x[d]) > largest:
                        axis = d
                for d in ti.static(range(3)):
                    if d == axis:
                        g[d] += radial if x[d] > 0 else -radial
            g /= 4
        return g

    return SimpleNamespace(contracted=contracted, pulled_back=pulled_back)


@cache
def contract_kernels(dtype: torch.dtype, kind: str) -> SimpleNamespace:
    """Kernels for float32 or float64; see `msth_taichi.ops.contract`."""
    real = TAICHI_DTYPE[dtype]
    space = contract_functions(real, kind)
    point = ti.types.vector(3, real)
    matrix = ti.types.ndarray(dtype=real, ndim=2)

    @ti.func
    def load(points: matrix, i):
        return point(points[i, 0], points[i, 1], points[i, 2])

    @ti.kernel
    def forward(positions: matrix, box: real, contracted: matrix):
        for i in range(positions.shape[0]):
            y = space.contracted(load(positions, i), box)
            for d in ti.static(range(3)):
                contracted[i, d] = y[d]

    @ti.kernel
    def backward(positions: matrix, box: real, contracted_gradient: matrix, position_gradient: matrix):
        for i in range(positions.shape[0]):
            g = space.pulled_back(load(positions, i), load(contracted_gradient, i), box)
            for d in ti.static(range(3)):
                position_gradient[i, d] = g[d]

    return launchers(forward=forward, backward=backward)
