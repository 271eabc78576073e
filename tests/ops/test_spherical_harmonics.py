"""Spherical harmonics against the published table, orthonormality, Taichi's adjoint, finite differences."""

import math

import numpy as np
import pytest
import torch

from msth_taichi.errors import TensorError
from msth_taichi.kernels.spherical_harmonics import spherical_harmonics_kernels
from msth_taichi.ops.spherical_harmonics import spherical_harmonics
from msth_taichi.reference import spherical_harmonics as twin
from tests.comparison import (
    assert_close,
    assert_gradients_close,
    assert_matches,
    assert_safe_autograd,
    taichi_gradients,
)

DTYPES = [torch.float32, torch.float64]


def random_directions(count: int, device: torch.device, dtype=torch.float32, seed=0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(count, 3, generator=generator, dtype=dtype), dim=1).to(device)


def sphere_quadrature(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Directions and weights that integrate polynomials up to degree 15 over the sphere exactly."""
    z, z_weights = np.polynomial.legendre.leggauss(8)
    phi = np.arange(16) * (2 * np.pi / 16)
    radius, z = np.sqrt(1 - z**2)[:, None], z[:, None]
    points = np.stack(np.broadcast_arrays(radius[:, None] * np.cos(phi), radius[:, None] * np.sin(phi), z[:, None]), -1)
    weights = np.repeat(z_weights, 16) * (2 * np.pi / 16)
    return torch.from_numpy(points.reshape(-1, 3)).to(device), torch.from_numpy(weights).to(device)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("count", [0, 1, 7, 1000])
def test_matches_reference(device, dtype, count):
    directions = random_directions(count, device, dtype, seed=count).requires_grad_()
    eps = torch.finfo(dtype).eps
    assert_matches(spherical_harmonics, twin.spherical_harmonics, [directions], 10 * eps, 100 * eps)


def test_orthonormal_over_the_sphere(device):
    directions, weights = sphere_quadrature(device)
    values = spherical_harmonics(directions)
    assert_close((values * weights) @ values.T, torch.eye(16), 1e-13)


def test_first_band_is_minus_y_z_minus_x(device):
    values = spherical_harmonics(torch.eye(3, device=device))
    c = math.sqrt(3 / (4 * math.pi))
    assert_close(values[1:4], torch.tensor([[0, -c, 0], [0, 0, c], [-c, 0, 0]]), 1e-6)


@pytest.mark.parametrize("band", range(4))
def test_bands_are_even_or_odd_and_add_up(device, band):
    directions = random_directions(50, device, torch.float64)
    rows = slice(band**2, (band + 1) ** 2)
    values = spherical_harmonics(directions)[rows]
    assert_close(spherical_harmonics(-directions)[rows], (-1) ** band * values, 1e-14)
    # Unsöld's theorem: the squares of a band add up to the same in every direction
    assert_close(values.square().sum(0), torch.full((50,), (2 * band + 1) / (4 * math.pi)).double(), 1e-6)


def test_hand_written_adjoint_equals_taichis():
    directions = random_directions(100, torch.device("cpu"), torch.float64)
    kernels = spherical_harmonics_kernels(torch.float64)
    out_gradient = torch.randn(16, 100, dtype=torch.float64)
    out = torch.empty_like(out_gradient)
    (expected,) = taichi_gradients(kernels.forward, (directions, out), {1: out_gradient}, (0,))
    gradient = torch.empty_like(directions)
    kernels.backward(directions, out_gradient, gradient)
    assert_gradients_close(gradient, expected, 1e-13)


@pytest.mark.gradcheck
def test_gradcheck(device):
    directions = random_directions(10, device, torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(spherical_harmonics, (directions,))


def test_safe_under_autograd(device):
    assert_safe_autograd(spherical_harmonics, [random_directions(9, device).requires_grad_()])


def test_typed_errors(device):
    for wrong in [
        torch.zeros(4, 2, device=device),
        torch.zeros(3, device=device),
        torch.zeros(4, 3, device=device).half(),
        torch.zeros(3, 4, device=device).t(),
    ]:
        with pytest.raises(TensorError, match="directions"):
            spherical_harmonics(wrong)
