"""The mask grid against its PyTorch twin, Taichi's own adjoint and finite differences."""

import pytest
import torch

from msth_taichi.errors import TensorError
from msth_taichi.grids import mask_spec
from msth_taichi.kernels.cells import level_constants
from msth_taichi.kernels.mask_grid import mask_grid_kernels
from msth_taichi.ops.mask_grid import mask_grid
from msth_taichi.reference import mask_grid as twin
from tests.comparison import assert_gradients_close, assert_matches, assert_safe_autograd, taichi_gradients

SPEC = mask_spec(5)


def random_inputs(count: int, device: torch.device, dtype=torch.float32):
    generator = torch.Generator().manual_seed(count)
    positions = torch.rand(count, 3, generator=generator, dtype=dtype) * 1.1 - 0.05
    return positions.to(device), torch.randn(SPEC.num_entries, 1, generator=generator, dtype=dtype).to(device)


def test_no_vertex_is_shared_by_two_places():
    """129^3 vertices have as many slots; the released code's 2^21 slots made opposite faces share some."""
    spec = mask_spec(128)
    assert spec.num_entries >= 129**3
    assert any(spec.strides[0])
    assert 128 * sum(spec.strides[0]) < spec.num_entries


@pytest.mark.parametrize("count", [0, 1, 513])
def test_matches_reference(device, count):
    positions, logits = random_inputs(count, device)
    inputs = [positions.requires_grad_(), logits.requires_grad_()]
    assert_matches(lambda x, v: mask_grid(x, v, SPEC), lambda x, v: twin.mask_grid(x, v, SPEC), inputs)


def test_initial_value(device):
    positions = torch.rand(10, 3, device=device)
    mask = mask_grid(positions, torch.full((SPEC.num_entries, 1), -1.0, device=device), SPEC)
    assert torch.allclose(mask, torch.full_like(mask, 0.26894143))


def test_hand_written_adjoint_equals_taichis():
    positions, logits = random_inputs(60, torch.device("cpu"), torch.float64)
    constants = level_constants(SPEC, positions.device, positions.dtype)
    kernels = mask_grid_kernels(torch.float64)
    mask = torch.empty(60, dtype=torch.float64)
    gradient = torch.randn(60, dtype=torch.float64)
    arguments = (positions, logits, *constants, mask)
    expected = taichi_gradients(kernels.forward, arguments, {4: gradient}, (0, 1))
    kernels.forward(*arguments)
    position_gradient, logits_gradient = torch.zeros_like(positions), torch.zeros_like(logits)
    kernels.backward(*arguments, gradient, logits_gradient, position_gradient)
    assert_gradients_close(position_gradient, expected[0], 1e-12)
    assert_gradients_close(logits_gradient, expected[1], 1e-12)


@pytest.mark.gradcheck
def test_finite_differences():
    positions, logits = random_inputs(4, torch.device("cpu"), torch.float64)
    positions = positions.clamp(0.02, 0.98)
    inputs = (positions.requires_grad_(), logits.requires_grad_())
    assert torch.autograd.gradcheck(lambda x, v: mask_grid(x, v, SPEC), inputs)


def test_safe_under_autograd(device):
    positions, logits = random_inputs(20, device)
    assert_safe_autograd(lambda x, v: mask_grid(x, v, SPEC), [positions.requires_grad_(), logits.requires_grad_()])


def test_wrong_tensors_are_named(device):
    positions, logits = random_inputs(4, device)
    with pytest.raises(TensorError, match="logits"):
        mask_grid(positions, logits[:-1], SPEC)
    with pytest.raises(TensorError, match="positions"):
        mask_grid(positions[:, :2], logits, SPEC)
