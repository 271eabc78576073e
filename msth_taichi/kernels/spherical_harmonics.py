"""Real spherical harmonics of four bands, and their gradient to directions. Letters: N directions."""

from functools import cache
from math import pi, sqrt
from types import SimpleNamespace

import taichi as ti
import torch

from msth_taichi.kernels.cells import TAICHI_DTYPE
from msth_taichi.kernels.launch import launchers

# factors that make the functions orthonormal over the sphere
BAND_0 = sqrt(1 / (4 * pi))
BAND_1 = sqrt(3 / (4 * pi))
BAND_2 = (sqrt(15 / (4 * pi)), sqrt(5 / (16 * pi)), sqrt(15 / (16 * pi)))
BAND_3 = (
    sqrt(35 / (32 * pi)),
    sqrt(105 / (4 * pi)),
    sqrt(21 / (32 * pi)),
    sqrt(7 / (16 * pi)),
    sqrt(105 / (16 * pi)),
)


@cache
def spherical_harmonics_kernels(dtype: torch.dtype) -> SimpleNamespace:
    """Kernels for float32 or float64; see `msth_taichi.ops.spherical_harmonics`."""
    real = TAICHI_DTYPE[dtype]
    matrix = ti.types.ndarray(dtype=real, ndim=2)

    @ti.kernel
    def forward(directions: matrix, out: matrix):
        for i in range(directions.shape[0]):
            x, y, z = directions[i, 0], directions[i, 1], directions[i, 2]
            xx, yy, zz = x * x, y * y, z * z
            out[0, i] = real(BAND_0)
            out[1, i] = -real(BAND_1) * y
            out[2, i] = real(BAND_1) * z
            out[3, i] = -real(BAND_1) * x
            out[4, i] = real(BAND_2[0]) * x * y
            out[5, i] = -real(BAND_2[0]) * y * z
            out[6, i] = real(BAND_2[1]) * (3 * zz - 1)
            out[7, i] = -real(BAND_2[0]) * x * z
            out[8, i] = real(BAND_2[2]) * (xx - yy)
            out[9, i] = real(BAND_3[0]) * y * (yy - 3 * xx)
            out[10, i] = real(BAND_3[1]) * x * y * z
            out[11, i] = real(BAND_3[2]) * y * (1 - 5 * zz)
            out[12, i] = real(BAND_3[3]) * z * (5 * zz - 3)
            out[13, i] = real(BAND_3[2]) * x * (1 - 5 * zz)
            out[14, i] = real(BAND_3[4]) * z * (xx - yy)
            out[15, i] = real(BAND_3[0]) * x * (3 * yy - xx)

    @ti.kernel
    def backward(directions: matrix, out_gradient: matrix, direction_gradient: matrix):
        for i in range(directions.shape[0]):
            x, y, z = directions[i, 0], directions[i, 1], directions[i, 2]
            xx, yy, zz = x * x, y * y, z * z
            # incoming gradients times the factors of the functions, in the order of the table
            g1 = -real(BAND_1) * out_gradient[1, i]
            g2 = real(BAND_1) * out_gradient[2, i]
            g3 = -real(BAND_1) * out_gradient[3, i]
            g4 = real(BAND_2[0]) * out_gradient[4, i]
            g5 = -real(BAND_2[0]) * out_gradient[5, i]
            g6 = real(BAND_2[1]) * out_gradient[6, i]
            g7 = -real(BAND_2[0]) * out_gradient[7, i]
            g8 = real(BAND_2[2]) * out_gradient[8, i]
            g9 = real(BAND_3[0]) * out_gradient[9, i]
            g10 = real(BAND_3[1]) * out_gradient[10, i]
            g11 = real(BAND_3[2]) * out_gradient[11, i]
            g12 = real(BAND_3[3]) * out_gradient[12, i]
            g13 = real(BAND_3[2]) * out_gradient[13, i]
            g14 = real(BAND_3[4]) * out_gradient[14, i]
            g15 = real(BAND_3[0]) * out_gradient[15, i]
            direction_gradient[i, 0] = (
                g3 + g4 * y + g7 * z + 2 * g8 * x
                - 6 * g9 * x * y + g10 * y * z + g13 * (1 - 5 * zz) + 2 * g14 * x * z + 3 * g15 * (yy - xx)
            )  # fmt: skip
            direction_gradient[i, 1] = (
                g1 + g4 * x + g5 * z - 2 * g8 * y
                + 3 * g9 * (yy - xx) + g10 * x * z + g11 * (1 - 5 * zz) - 2 * g14 * y * z + 6 * g15 * x * y
            )  # fmt: skip
            direction_gradient[i, 2] = (
                g2 + g5 * y + 6 * g6 * z + g7 * x
                + g10 * x * y - 10 * g11 * y * z + g12 * (15 * zz - 3) - 10 * g13 * x * z + g14 * (xx - yy)
            )  # fmt: skip

    return launchers(forward=forward, backward=backward)
