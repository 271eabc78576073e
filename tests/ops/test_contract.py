"""Contraction against its PyTorch twin, Taichi's adjoint and finite differences; inverse and seams."""

import pytest
import torch

from msth_taichi.errors import ConfigError, TensorError
from msth_taichi.kernels.contract import contract_kernels
from msth_taichi.ops.contract import contract
from msth_taichi.reference import contract as twin
from tests.comparison import (
    assert_close,
    assert_gradients_close,
    assert_matches,
    assert_safe_autograd,
    taichi_gradients,
)

KINDS = ["inf", "l2", "none"]
DTYPES = [torch.float32, torch.float64]


def random_positions(count: int, device: torch.device, dtype=torch.float32, seed=0) -> torch.Tensor:
    """From the centre to a hundred units away, in all directions."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator, dtype=dtype), dim=1)
    return (directions * 10 ** (torch.rand(count, 1, generator=generator, dtype=dtype) * 4 - 2)).to(device)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [0, 1, 7, 1000])
def test_matches_reference(device, kind, dtype, count):
    positions = random_positions(count, device, dtype, seed=count).requires_grad_()
    eps = torch.finfo(dtype).eps
    assert_matches(
        lambda x: contract(x, kind, 1.5),
        lambda x: twin.contract(x, kind, 1.5),
        [positions],
        10 * eps,
        100 * eps,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_hand_written_adjoint_equals_taichis(kind):
    positions = random_positions(200, torch.device("cpu"), torch.float64)
    kernels = contract_kernels(torch.float64, kind)
    out_gradient = torch.randn(200, 3, dtype=torch.float64)
    out = torch.empty_like(positions)
    (expected,) = taichi_gradients(kernels.forward, (positions, 1.5, out), {2: out_gradient}, (0,))
    gradient = torch.empty_like(positions)
    kernels.backward(positions, 1.5, out_gradient, gradient)
    assert_gradients_close(gradient, expected, 1e-12)


@pytest.mark.gradcheck
@pytest.mark.parametrize("kind", KINDS)
def test_gradcheck(device, kind):
    positions = random_positions(20, device, torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: contract(x, kind, 1.5), (positions,))


@pytest.mark.parametrize("kind", KINDS)
def test_safe_under_autograd(device, kind):
    assert_safe_autograd(lambda x: contract(x, kind), [random_positions(9, device).requires_grad_()])


@pytest.mark.parametrize("kind", KINDS)
def test_uncontract_is_the_inverse_both_ways(device, kind):
    positions = random_positions(500, device, torch.float64)
    assert_close(twin.uncontract(contract(positions, kind, 1.5), kind, 1.5), positions, 1e-12)
    generator = torch.Generator().manual_seed(1)
    inside = (torch.rand(500, 3, generator=generator, dtype=torch.float64) * 0.98 + 0.01).to(device)
    if kind == "l2":  # a ball, not a cube
        offset = inside - 0.5
        inside = 0.5 + offset / torch.linalg.vector_norm(offset, dim=1, keepdim=True).clamp(min=0.5) * 0.49
    assert_close(contract(twin.uncontract(inside, kind, 1.5), kind, 1.5), inside, 1e-12)


@pytest.mark.parametrize("kind", ["inf", "l2"])
def test_value_and_slope_are_continuous_at_the_unit_ball(device, kind):
    directions = random_positions(100, device, torch.float64)
    norm = torch.linalg.vector_norm(directions, ord=2 if kind == "l2" else torch.inf, dim=1, keepdim=True)
    surface = directions / norm
    values, slopes = [], []
    for radius in (1 - 1e-9, 1 + 1e-9):
        positions = (surface * radius).requires_grad_()
        value = contract(positions, kind)
        value.backward(torch.ones_like(value))
        values.append(value.detach())
        slopes.append(positions.grad)
    assert_close(values[0], values[1], 1e-8)
    assert_close(slopes[0], slopes[1], 1e-7)
    assert_close(values[0], (surface + 2) / 4, 1e-8)


@pytest.mark.parametrize("kind", ["inf", "l2"])
def test_all_of_space_lies_in_the_unit_cube(device, kind):
    far = torch.tensor([[1e6, -1e6, 3.0], [-1e18, 0.0, 0.0], [0.0, 0.0, 0.0]], device=device)
    out = contract(far, kind)
    assert (out >= 0).all() and (out <= 1).all()
    assert out[2].tolist() == [0.5, 0.5, 0.5]


def test_values_by_hand(device):
    positions = torch.tensor([[0.5, -1.0, 0.0], [2.0, 1.0, -4.0], [3.0, 4.0, 0.0]], device=device)
    # |x| = 4: (2 - 1/4) / 4 = 7/16
    assert contract(positions, "inf")[1].tolist() == pytest.approx([0.71875, 0.609375, 0.0625])
    # |x| = 5: (2 - 1/5) / 5 = 0.36
    assert contract(positions, "l2")[2].tolist() == pytest.approx([0.77, 0.86, 0.5])
    assert contract(positions, "inf")[0].tolist() == [0.625, 0.25, 0.5]
    # a box of 2: outside stays outside
    assert contract(positions, "none", 2.0)[2].tolist() == [1.25, 1.5, 0.5]


@pytest.mark.parametrize("kind", ["inf", "l2"])
def test_gradient_where_axes_are_equally_large(device, kind):
    """Edges and corners of the cube, on and off its surface, the axes, and the centre."""
    grid = torch.cartesian_prod(*[torch.tensor([-3.0, -1.0, 0.0, 1.0, 3.0], dtype=torch.float64)] * 3)
    positions = grid.to(device).requires_grad_()
    assert_matches(lambda x: contract(x, kind), lambda x: twin.contract(x, kind), [positions], 1e-14, 1e-12)


def test_typed_errors(device):
    for wrong in [
        torch.zeros(4, 2, device=device),
        torch.zeros(3, device=device),
        torch.zeros(4, 3, device=device, dtype=torch.int32),
        torch.zeros(4, 3, device=device).half(),
        torch.zeros(3, 4, device=device).t(),
    ]:
        with pytest.raises(TensorError, match="positions"):
            contract(wrong)
    with pytest.raises(ConfigError, match="contraction"):
        contract(torch.zeros(4, 3, device=device), "l1")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="box"):
        contract(torch.zeros(4, 3, device=device), "none", 0.0)
