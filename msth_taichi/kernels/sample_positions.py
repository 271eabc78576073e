"""Where the samples of rays lie in the grids, and its gradient to the rays.

Letters: N rays, S samples per ray, M = N*S.
"""

from functools import cache
from types import SimpleNamespace

import taichi as ti
import torch

from msth_taichi.kernels.cells import TAICHI_DTYPE
from msth_taichi.kernels.contract import contract_functions
from msth_taichi.kernels.launch import launchers


@cache
def ray_functions(real) -> SimpleNamespace:
    """Device functions of samples on rays."""
    point = ti.types.vector(3, real)

    @ti.func
    def load(points: ti.template(), i):
        return point(points[i, 0], points[i, 1], points[i, 2])

    @ti.func
    def middle(t_edges: ti.template(), ray, i):
        return 0.5 * (t_edges[ray, i] + t_edges[ray, i + 1])

    @ti.func
    def centre(origins: ti.template(), directions: ti.template(), t_edges: ti.template(), ray, i):
        """Scene position of the middle of bin i."""
        return load(origins, ray) + load(directions, ray) * middle(t_edges, ray, i)

    return SimpleNamespace(load=load, middle=middle, centre=centre)


@cache
def sample_positions_kernels(dtype: torch.dtype, kind: str) -> SimpleNamespace:
    """Kernels for float32 or float64; see `msth_taichi.ops.sample_positions`."""
    real = TAICHI_DTYPE[dtype]
    space = contract_functions(real, kind)
    rays = ray_functions(real)
    matrix = ti.types.ndarray(dtype=real, ndim=2)

    @ti.kernel
    def forward(
        origins: matrix,  # (N, 3)
        directions: matrix,  # (N, 3)
        t_edges: matrix,  # (N, S+1)
        box: real,
        positions: matrix,  # (M, 3)
    ):
        for ray, i in ti.ndrange(origins.shape[0], t_edges.shape[1] - 1):
            y = space.contracted(rays.centre(origins, directions, t_edges, ray, i), box)
            for d in ti.static(range(3)):
                positions[ray * (t_edges.shape[1] - 1) + i, d] = y[d]

    @ti.kernel
    def backward(
        origins: matrix,
        directions: matrix,
        t_edges: matrix,
        box: real,
        position_gradient: matrix,  # (M, 3)
        origin_gradient: matrix,  # (N, 3), overwritten
        direction_gradient: matrix,  # (N, 3), overwritten
    ):
        for ray in range(origins.shape[0]):
            samples = t_edges.shape[1] - 1
            of_origin = rays.load(origins, ray) * 0
            of_direction = of_origin
            for i in range(samples):
                x = rays.centre(origins, directions, t_edges, ray, i)
                g = space.pulled_back(x, rays.load(position_gradient, ray * samples + i), box)
                of_origin += g
                of_direction += g * rays.middle(t_edges, ray, i)
            for d in ti.static(range(3)):
                origin_gradient[ray, d] = of_origin[d]
                direction_gradient[ray, d] = of_direction[d]

    return launchers(forward=forward, backward=backward)
