"""The comparison helpers against operators wrong on purpose: Taichi's three traps under torch autograd.

Each trap is a kernel y = x^2 in a `torch.autograd.Function` as first written; none raises an error.
"""

from collections.abc import Callable

import pytest
import taichi as ti
import torch

from tests.comparison import (
    assert_close,
    assert_gradients_close,
    assert_matches,
    assert_safe_autograd,
    gradients,
    relative_error,
)

VECTOR = ti.types.ndarray(dtype=ti.f32, ndim=1)


@ti.kernel
def square(x: VECTOR, y: VECTOR):
    for i in range(x.shape[0]):
        y[i] = x[i] * x[i]


@ti.kernel
def square_adjoint(x: VECTOR, y_gradient: VECTOR, x_gradient: VECTOR):
    for i in range(x.shape[0]):
        x_gradient[i] = 2 * x[i] * y_gradient[i]


def run_square(x: torch.Tensor) -> torch.Tensor:
    y = torch.empty_like(x)
    square(x, y)
    return y.detach()


def differentiable(x: torch.Tensor) -> torch.Tensor:
    """A leaf of its own, with a zero gradient for `kernel.grad` to add to."""
    leaf = x.detach().clone().requires_grad_()
    leaf.grad = torch.zeros_like(leaf)
    return leaf


class Correct(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x.detach())
        return run_square(x.detach())

    @staticmethod
    def backward(ctx, y_gradient):
        (x,) = ctx.saved_tensors
        x_gradient = torch.zeros_like(x)
        square_adjoint(x, y_gradient.contiguous(), x_gradient)
        return x_gradient


class CorrectByKernelGrad(Correct):
    @staticmethod
    def backward(ctx, y_gradient):
        (x,) = ctx.saved_tensors
        x, y = differentiable(x), differentiable(torch.empty_like(x))
        y.grad = y_gradient.clone().contiguous()
        square.grad(x, y)
        return x.grad


class DoubledLeafGradient(torch.autograd.Function):
    """Taichi adds to the leaf's own `.grad`, which is returned, and which torch then adds to itself."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return run_square(x.detach())

    @staticmethod
    def backward(ctx, y_gradient):
        (x,) = ctx.saved_tensors
        y = differentiable(torch.empty_like(x))
        y.grad = y_gradient.clone().contiguous()
        square.grad(x, y)
        return x.grad


class GradAllocatedByForward(Correct):
    """A launch with a tensor that requires grad gives it a `.grad` of zeros."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x.detach())
        return run_square(x)


class SiblingZeroed(Correct):
    """`kernel.grad` clears the adjoint of what it overwrote, here a gradient that a sibling shares."""

    @staticmethod
    def backward(ctx, y_gradient):
        (x,) = ctx.saved_tensors
        x, y = differentiable(x), differentiable(torch.empty_like(x))
        y.grad = y_gradient.contiguous()
        square.grad(x, y)
        return x.grad


class HalfGradient(Correct):
    @staticmethod
    def backward(ctx, y_gradient):
        return Correct.backward(ctx, y_gradient) / 2


@pytest.fixture
def x(device: torch.device, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(5, generator=generator).to(device).requires_grad_()


@pytest.mark.parametrize("function", [Correct, CorrectByKernelGrad])
def test_correct_patterns_pass(function: type[torch.autograd.Function], x: torch.Tensor):
    assert_safe_autograd(function.apply, [x])
    assert_matches(function.apply, torch.square, [x])


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_doubled_leaf_gradient_is_caught(x: torch.Tensor):
    with pytest.raises(AssertionError, match="relative error"):
        assert_safe_autograd(DoubledLeafGradient.apply, [x])
    with pytest.raises(AssertionError, match="relative error"):
        assert_matches(DoubledLeafGradient.apply, torch.square, [x])


def test_grad_allocated_by_forward_is_caught(x: torch.Tensor):
    with pytest.raises(AssertionError, match=r"forward allocated \.grad"):
        assert_safe_autograd(GradAllocatedByForward.apply, [x])


def test_zeroed_sibling_is_caught(x: torch.Tensor):
    with pytest.raises(AssertionError, match="sibling"):
        assert_safe_autograd(SiblingZeroed.apply, [x])


@pytest.mark.parametrize("trap", [DoubledLeafGradient, GradAllocatedByForward, SiblingZeroed])
def test_traps_have_correct_values(trap: type[torch.autograd.Function], x: torch.Tensor):
    """They differ from the correct pattern in autograd alone, so nothing else can be what is caught."""
    assert_close(trap.apply(x), x.square())


def test_wrong_gradient_is_caught(x: torch.Tensor):
    with pytest.raises(AssertionError, match="relative error"):
        assert_matches(HalfGradient.apply, torch.square, [x])


def test_missing_gradient_is_caught(x: torch.Tensor):
    with pytest.raises(AssertionError):
        assert_matches(lambda x: x.detach().square(), torch.square, [x])


@pytest.mark.parametrize("wrong", [lambda x: x.square() * 1.001, lambda x: x.square() / 0, lambda x: x[:4].square()])
def test_wrong_values_are_caught(wrong: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor):
    with pytest.raises(AssertionError):
        assert_matches(wrong, torch.square, [x])


def test_wrong_number_of_outputs_is_caught(x: torch.Tensor):
    with pytest.raises(AssertionError):
        assert_matches(lambda x: (x.square(), x), torch.square, [x])


def test_relative_error_is_relative():
    assert relative_error(torch.tensor([3.0, 4.4]), torch.tensor([3.0, 4.0])) == pytest.approx(0.08)
    assert relative_error(torch.tensor([0.5]), torch.tensor([0.0])) == 0.5
    assert relative_error(torch.zeros(0), torch.zeros(0)) == 0


def test_direction_is_compared():
    # the norm of the difference is within a tolerance this wide, the direction is opposite
    with pytest.raises(AssertionError, match="cosine"):
        assert_gradients_close(torch.tensor([-0.5]), torch.tensor([1.0]), tolerance=1.6)
    assert_gradients_close(torch.tensor([1.0, 1e-6]), torch.tensor([1.0, 0.0]))


def test_gradients_leave_the_inputs_alone(x: torch.Tensor):
    outputs, grads = gradients(torch.square, [x, torch.ones(1)][:1])
    assert x.grad is None
    assert len(outputs) == len(grads) == 1
