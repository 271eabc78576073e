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
_INTEGER, _FLOAT = -1, -2  # numbers among the arguments


class Held:
    """A tensor that stays where it is, looked at once: what an optimiser hands to the same launch in every step.

    Args:
        tensor: contiguous.
    Raises:
        TensorError: it has gaps.
    """

    __slots__ = ("dtype", "nbytes", "pointer", "shape", "tensor")

    def __init__(self, tensor: torch.Tensor):
        if not tensor.is_contiguous():
            raise TensorError(f"a kernel takes a contiguous tensor, got strides {tensor.stride()}")
        self.tensor = tensor
        self.dtype, self.shape, self.nbytes = tensor.dtype, tuple(tensor.shape), tensor.nbytes
        self.pointer = self.tensor.data_ptr()


class Launcher:
    """A kernel of typed ndarrays and numbers.

    Tensors may be attached to a graph: unlike Taichi's own call, this one does not look at their gradients.

    Args:
        kernel: made by `ti.kernel`, without templates or results.

    Example:
        >>> double = Launcher(kernel)
        >>> double(torch.ones(4))
    """

    def __init__(self, kernel: Callable[..., None]):
        self._kernel: Any = kernel
        # of each argument its place, and the dtype and axes of a tensor or the kind of number
        self._slots: list[tuple[tuple[int], torch.dtype | None, int]] = []
        for i, argument in enumerate(self._kernel._primal.arguments):
            kind = argument.annotation
            if isinstance(kind, ti.types.ndarray):
                self._slots.append(((i,), _TORCH_DTYPES[kind.dtype], kind.ndim))
            else:
                self._slots.append(((i,), None, _INTEGER if kind in _INTEGERS else _FLOAT))
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
        """Launch; tensors (or `Held` ones) are contiguous, on the kernels' device, and of the declared types.

        Raises:
            TensorError: a tensor of another dtype or number of axes, or with gaps.
        """
        program = impl.get_runtime().prog
        if program is not self._program:
            self._compile(program)
        context = self._compiled.make_launch_context()
        set_tensor = context.set_arg_external_array_with_shape
        for (place, dtype, axes), value in zip(self._slots, values, strict=True):
            if dtype is None:
                if axes == _INTEGER:
                    context.set_arg_int(place, value)
                else:
                    context.set_arg_float(place, value)
                continue
            shape = value.shape
            if value.dtype is not dtype or len(shape) != axes:
                raise self._unsuited(place[0], value)
            if type(value) is Held:
                set_tensor(place, value.pointer, value.nbytes, shape, 0)
            elif value.is_contiguous():
                set_tensor(place, value.data_ptr(), value.nbytes, shape, 0)
            else:
                raise self._unsuited(place[0], value)
        program.launch_kernel(self._data, context)

    def _compile(self, program: Any) -> None:
        primal = self._kernel._primal
        # for what is declared, whatever the first launch was handed
        plain = (0 if dtype is None else torch.empty((0,) * axes, dtype=dtype) for _, dtype, axes in self._slots)
        self._compiled = primal.compiled_kernels[primal.ensure_compiled(*plain)]
        self._data = program.compile_kernel(program.config(), program.get_device_caps(), self._compiled)
        self._program = program

    def _unsuited(self, i: int, value: Any) -> TensorError:
        _, dtype, axes = self._slots[i]
        return TensorError(
            f"{self.names[i]}: a kernel takes a contiguous tensor of {dtype} with {axes} axes, "
            f"got {value.dtype} {tuple(value.shape)}"
        )


def launchers(**kernels: Callable[..., None]) -> SimpleNamespace:
    """A namespace of `Launcher`s.

    Example:
        >>> launchers(forward=forward, backward=backward).forward
    """
    return SimpleNamespace(**{name: Launcher(kernel) for name, kernel in kernels.items()})
