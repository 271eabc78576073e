"""How tests compare an operator with its slow twin.

Gradients are compared by relative norm and cosine: sums of float atomics differ in order, so single elements
may differ where a tensor as a whole must not.
"""

from collections.abc import Callable, Sequence

import torch

Function = Callable[..., torch.Tensor | tuple[torch.Tensor, ...]]


def relative_error(value: torch.Tensor, reference: torch.Tensor) -> float:
    """||value - reference|| / ||reference||, in float64; the plain norm where the reference is zero."""
    value, reference = value.detach().double().cpu(), reference.detach().double().cpu()
    assert value.shape == reference.shape, f"shape {tuple(value.shape)} against {tuple(reference.shape)}"
    norm = reference.norm().item()
    return (value - reference).norm().item() / (norm or 1.0)


def assert_close(value: torch.Tensor, reference: torch.Tensor, tolerance: float = 1e-5) -> None:
    """Finite, of the same shape, and close in relative norm."""
    assert torch.isfinite(value).all(), "not finite"
    error = relative_error(value, reference)
    assert error <= tolerance, f"relative error {error:.3g} > {tolerance:.3g}"


def assert_gradients_close(value: torch.Tensor, reference: torch.Tensor, tolerance: float = 1e-4) -> None:
    """Close in relative norm and in direction."""
    assert_close(value, reference, tolerance)
    a, b = value.detach().double().flatten().cpu(), reference.detach().double().flatten().cpu()
    if b.norm() > 0:
        cosine = (a @ b / (a.norm() * b.norm())).item()
        assert cosine >= 1 - tolerance, f"cosine {cosine:.6f}"


def gradients(function: Function, inputs: Sequence[torch.Tensor], seed: int = 0) -> tuple[list, list]:
    """Outputs of `function`, and gradients of a random linear functional of them to the inputs."""
    leaves = [x.detach().clone().requires_grad_(x.requires_grad) for x in inputs]
    outputs = function(*leaves)
    outputs = [outputs] if isinstance(outputs, torch.Tensor) else list(outputs)
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros((), dtype=torch.float64)
    for output in outputs:
        if output.requires_grad:
            weight = torch.randn(output.shape, generator=generator, dtype=torch.float64)
            total = total + (output.cpu().double() * weight).sum()
    if total.requires_grad:
        total.backward()
    return outputs, [x.grad for x in leaves]


def assert_matches(
    operator: Function,
    reference: Function,
    inputs: Sequence[torch.Tensor],
    tolerance: float = 1e-5,
    gradient_tolerance: float = 1e-4,
) -> None:
    """Same outputs and same gradients as the reference, for every input with requires_grad."""
    outputs, grads = gradients(operator, inputs)
    expected, expected_grads = gradients(reference, inputs)
    assert len(outputs) == len(expected)
    for value, target in zip(outputs, expected, strict=True):
        assert_close(value, target, tolerance)
    for grad, target, x in zip(grads, expected_grads, inputs, strict=True):
        if x.requires_grad:
            assert grad is not None and target is not None
            assert_gradients_close(grad, target, gradient_tolerance)


def assert_safe_autograd(
    operator: Callable[..., torch.Tensor], inputs: Sequence[torch.Tensor], tolerance: float = 1e-5
) -> None:
    """The three silent traps of Taichi under torch autograd do not exist in `operator` (one tensor output).

    1. A leaf's gradient is not doubled, and two backward calls accumulate to exactly twice.
    2. No `.grad` appears on an input by running forward.
    3. A sibling branch that shares the incoming gradient is not zeroed.
    """

    def run(branches: Callable[[torch.Tensor], torch.Tensor], times: int = 1) -> list[torch.Tensor | None]:
        leaves = [x.detach().clone().requires_grad_(x.requires_grad) for x in inputs]
        output = operator(*leaves)
        assert all(x.grad is None for x in leaves), "forward allocated .grad"
        loss = branches(output)
        for i in range(times):
            loss.backward(retain_graph=i + 1 < times)
        return [x.grad for x in leaves]

    once = run(lambda y: y.sum())
    non_leaf_inputs = [x.detach().clone().requires_grad_(x.requires_grad) for x in inputs]
    operator(*[x * 1.0 if x.requires_grad else x for x in non_leaf_inputs]).sum().backward()
    twice = run(lambda y: y.sum(), times=2)
    # y + z hands the very same gradient to both branches, and the product makes it dense, so that
    # `.contiguous()` does not copy it. Backward visits the branch made last first: the sibling comes after
    side = torch.zeros(1, dtype=inputs[0].dtype, device=inputs[0].device, requires_grad=True)
    output = operator(*[x.detach() for x in inputs])
    sibling = side.expand_as(output).clone()
    for a, b in zip(run(lambda y: ((y + sibling) * 1).sum()), once, strict=True):
        if a is not None and b is not None:
            assert_gradients_close(a, b, tolerance)
    assert side.grad is not None
    error = abs(side.grad.item() - sibling.numel())
    assert error <= 1e-4 * max(sibling.numel(), 1), "a sibling's gradient was changed"
    for a, b, c in zip(once, twice, [x.grad for x in non_leaf_inputs], strict=True):
        if a is not None:
            assert b is not None and c is not None
            assert_gradients_close(c, a, tolerance)
            assert_gradients_close(b, 2 * a, tolerance)


def taichi_gradients(
    kernel: Callable,
    arguments: Sequence,
    outputs: dict[int, torch.Tensor],
    wanted: Sequence[int],
) -> list[torch.Tensor]:
    """Gradients that Taichi's own autodiff of `kernel` gives: the oracle for hand-written adjoints.

    Args:
        arguments: all tensors and numbers of the kernel, outputs included.
        outputs: incoming gradient by position of the output among the arguments.
        wanted: positions of the arguments to differentiate by.
    """
    leaves = [x.detach().clone() if isinstance(x, torch.Tensor) else x for x in arguments]
    for position in (*outputs, *wanted):
        leaves[position].requires_grad_()
        leaves[position].grad = torch.zeros_like(leaves[position])
    kernel(*(x.detach() if isinstance(x, torch.Tensor) else x for x in leaves))
    for position, gradient in outputs.items():
        leaves[position].grad = gradient.clone()
    kernel.grad(*leaves)  # type: ignore[attr-defined]
    result = [leaves[position].grad for position in wanted]
    assert all(g is not None for g in result)
    return result  # type: ignore[return-value]
