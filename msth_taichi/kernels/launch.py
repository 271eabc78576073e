"""Launching Taichi kernels cheaply.

Taichi's own call spends 15 to 30 microseconds of Python on each tensor. The types of a kernel's arguments are fixed
by its annotations, so everything but the addresses is settled at the first launch; the next ones hand addresses and
shapes straight to the compiled kernel.

This leans on internals of Taichi 1.7, which pyproject.toml pins; tests launch every kernel this way.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import taichi as ti
import torch
from taichi.lang import impl

from msth_taichi.errors import TensorError

_TORCH_DTYPES = {
    ti.f16: torch.float16,
    ti.f32: torch.float32,
    ti.f64: torch.float64,
    ti.i32: torch.int32,
    ti.i64: torch.int64,
    ti.u8: torch.uint8,
}
_INTEGERS = (ti.i32, ti.i64)


class Launcher:
    """A kernel of typed ndarrays and numbers.

    Args:
        kernel: made by `ti.kernel`, without templates or results.

    Example:
        >>> double = Launcher(kernel)
        >>> double(torch.ones(4))
    """

    def __init__(self, kernel: Callable[..., None]):
        self._kernel: Any = kernel
        # dtype and axes of each tensor, or the setter of a number
        self._arguments: list[tuple[torch.dtype, int] | str] = []
        for argument in self._kernel._primal.arguments:
            kind = argument.annotation
            if isinstance(kind, ti.types.ndarray):
                self._arguments.append((_TORCH_DTYPES[kind.dtype], kind.ndim))
            else:
                self._arguments.append("set_arg_int" if kind in _INTEGERS else "set_arg_float")
        self._program: Any = None

    @property
    def grad(self) -> Callable[..., None]:
        """Taichi's own adjoint of the kernel: what tests hold the hand-written ones to."""
        return self._kernel.grad

    @property
    def names(self) -> list[str]:
        """Names of the arguments, in order."""
        return [argument.name for argument in self._kernel._primal.arguments]

    def __call__(self, *values: Any) -> None:
        """Launch; tensors are contiguous, on the device that kernels run on, and of the declared types.

        Raises:
            TensorError: a tensor of another dtype or number of axes, with gaps, or attached to a graph.
        """
        program = impl.get_runtime().prog
        if program is not self._program:
            self._compile(program)
        context = self._compiled.make_launch_context()
        for i, (expected, value) in enumerate(zip(self._arguments, values, strict=True)):
            if isinstance(expected, str):
                getattr(context, expected)((i,), value)
                continue
            shape = value.shape
            if value.dtype is not expected[0] or len(shape) != expected[1] or not value.is_contiguous():
                raise self._unsuited(i, value)
            if value.requires_grad:
                raise self._unsuited(i, value)
            context.set_arg_external_array_with_shape((i,), value.data_ptr(), value.nbytes, shape, 0)
        program.launch_kernel(self._data, context)

    def _compile(self, program: Any) -> None:
        primal = self._kernel._primal
        # for what is declared, whatever the first launch was handed
        values = (0 if isinstance(a, str) else torch.empty((0,) * a[1], dtype=a[0]) for a in self._arguments)
        self._compiled = primal.compiled_kernels[primal.ensure_compiled(*values)]
        self._data = program.compile_kernel(program.config(), program.get_device_caps(), self._compiled)
        self._program = program

    def _unsuited(self, i: int, value: torch.Tensor) -> TensorError:
        dtype, axes = self._arguments[i]
        return TensorError(
            f"{self.names[i]}: a kernel takes a detached contiguous tensor of {dtype} with {axes} axes, "
            f"got {value.dtype} {tuple(value.shape)}{', attached' if value.requires_grad else ''}"
        )


def launchers(**kernels: Callable[..., None]) -> SimpleNamespace:
    """A namespace of `Launcher`s.

    Example:
        >>> launchers(forward=forward, backward=backward).forward
    """
    return SimpleNamespace(**{name: Launcher(kernel) for name, kernel in kernels.items()})
