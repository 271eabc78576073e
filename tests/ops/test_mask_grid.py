"""The mask grid against its PyTorch twin, Taichi's own adjoint and finite differences."""

import pytest
import torch

from msth_taichi.errors import TensorError
from msth_taichi.grids import mask_spec
from msth_taichi.kernels.cells import level_constants
from msth_taichi.kernels.mask_grid import mask_grid_kernels
from msth_taichi.ops.mask_grid import mask_grid
from msth_taichi.reference import mask_grid as twin
from tests.comparison import (
    assert_close,
    assert_gradients_close,
    assert_matches,
    assert_safe_autograd,
    taichi_gradients,
)

SPEC = mask_spec(5)
TIMED = mask_spec(5, 3)


def random_inputs(count: int, device: torch.device, dtype=torch.float32, spec=SPEC):
    generator = torch.Generator().manual_seed(count)
    positions = torch.rand(count, 3, generator=generator, dtype=dtype) * 1.1 - 0.05
    return positions.to(device), torch.randn(spec.num_entries, 1, generator=generator, dtype=dtype).to(device)


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


def times_of(count: int, device: torch.device, dtype=torch.float32) -> torch.Tensor:
    """(N,) in [0, 1], with both ends and the vertex between."""
    times = torch.rand(count, generator=torch.Generator().manual_seed(count), dtype=dtype)
    ends = torch.tensor([0.0, 1.0, 0.5], dtype=dtype)[:count]
    times[: len(ends)] = ends
    return times.to(device)


@pytest.mark.parametrize("times", [2, 3, 6])
@pytest.mark.parametrize(("rays", "samples"), [(0, 3), (1, 1), (57, 9)])
def test_of_times_matches_reference(device, times, rays, samples):
    spec = mask_spec(5, times)
    positions, logits = random_inputs(rays * samples, device, spec=spec)
    t = times_of(rays, device)
    inputs = [positions.requires_grad_(), logits.requires_grad_()]
    assert_matches(lambda x, v: mask_grid(x, v, spec, t), lambda x, v: twin.mask_grid(x, v, spec, t), inputs)


def test_static_in_the_first_half_and_moving_in_the_second(device):
    """Logits by hand at times 0, 0.5 and 1: the mask goes from one to the next, and meets the ends exactly."""
    logits = torch.zeros(TIMED.num_entries, 1, device=device)
    logits.view(-1)[: 3 * 216] = torch.tensor([2.0, 2.0, -2.0]).repeat_interleave(216).to(device)
    times = torch.tensor([0.0, 0.2, 0.5, 0.625, 0.75, 0.99, 1.0], device=device)
    expected = torch.sigmoid(torch.tensor([2.0, 2.0, 2.0, 1.0, 0.0, -1.92, -2.0], device=device))
    positions = torch.rand(7, 3, generator=torch.Generator().manual_seed(0)).to(device)
    assert_close(mask_grid(positions, logits, TIMED, times), expected, 1e-6)


@pytest.mark.parametrize("vertex", [0, 1, 2])
def test_on_a_vertex_of_time_it_is_the_mask_of_that_moment(device, vertex):
    """Values, and gradients: none reaches the logits of another moment."""
    positions, logits = random_inputs(40, device, spec=TIMED)
    positions = positions.clamp(0, 1)
    here = slice(vertex * 216, (vertex + 1) * 216)
    expected = mask_grid(positions, logits[here].contiguous(), SPEC)
    mask = mask_grid(positions, logits.requires_grad_(), TIMED, torch.full((1,), vertex / 2, device=device))
    assert_close(mask, expected, 1e-6)
    mask.sum().backward()
    assert logits.grad is not None and logits.grad[here].count_nonzero() > 0
    assert logits.grad.count_nonzero() == logits.grad[here].count_nonzero()


def test_before_and_after_the_clip_is_outside(device):
    logits = torch.full((TIMED.num_entries, 1), 3.0, device=device, requires_grad=True)
    mask = mask_grid(torch.full((2, 3), 0.5, device=device), logits, TIMED, torch.tensor([-0.01, 1.01], device=device))
    assert mask.tolist() == [0.5, 0.5]
    mask.sum().backward()
    assert logits.grad is not None and not logits.grad.any()


def test_hand_written_adjoint_of_times_equals_taichis():
    positions, logits = random_inputs(60, torch.device("cpu"), torch.float64, TIMED)
    points = torch.cat([positions, times_of(60, positions.device, positions.dtype)[:, None]], dim=1)
    constants = level_constants(TIMED, points.device, points.dtype)
    kernels = mask_grid_kernels(torch.float64, 4)
    mask = torch.empty(60, dtype=torch.float64)
    gradient = torch.randn(60, dtype=torch.float64)
    arguments = (points, logits, *constants, mask)
    expected = taichi_gradients(kernels.forward, arguments, {4: gradient}, (0, 1))
    kernels.forward(*arguments)
    position_gradient, logits_gradient = torch.zeros_like(points), torch.zeros_like(logits)
    kernels.backward(*arguments, gradient, logits_gradient, position_gradient)
    assert_gradients_close(position_gradient[:, :3], expected[0][:, :3], 1e-12)
    assert not position_gradient[:, 3].any(), "time takes no gradient"
    assert_gradients_close(logits_gradient, expected[1], 1e-12)


@pytest.mark.gradcheck
def test_finite_differences_at_times():
    positions, logits = random_inputs(4, torch.device("cpu"), torch.float64, TIMED)
    times = times_of(2, positions.device, positions.dtype) * 0.7
    inputs = (positions.clamp(0.02, 0.98).requires_grad_(), logits.requires_grad_())
    assert torch.autograd.gradcheck(lambda x, v: mask_grid(x, v, TIMED, times), inputs)


def test_times_that_are_missing_or_do_not_fit_are_named(device):
    positions, logits = random_inputs(4, device, spec=TIMED)
    with pytest.raises(TensorError, match="times: none given, and this mask changes with time"):
        mask_grid(positions, logits, TIMED)
    with pytest.raises(TensorError, match="times: 3 rays do not divide 4"):
        mask_grid(positions, logits, TIMED, times_of(3, device))


def test_times_are_no_matter_to_a_mask_of_space(device):
    positions, logits = random_inputs(6, device)
    assert torch.equal(mask_grid(positions, logits, SPEC, times_of(2, device)), mask_grid(positions, logits, SPEC))
