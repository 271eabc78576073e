"""Checks on tensors handed to kernels, so that a mistake is named instead of read as garbage."""

import torch

from msth_taichi.errors import TensorError
from msth_taichi.kernels import runtime

FLOATS = (torch.float32, torch.float64)


def check(
    name: str,
    tensor: torch.Tensor,
    shape: tuple[int | None, ...],
    dtype: torch.dtype | tuple[torch.dtype, ...] = FLOATS,
) -> torch.Tensor:
    """Return `tensor` if a kernel can read it as it is.

    Args:
        name: argument name, for the error.
        shape: expected size of each axis; None accepts any.
        dtype: accepted dtype or dtypes.
    Raises:
        TensorError: wrong type, shape, dtype, device, or not contiguous.

    Example:
        >>> check("weights", torch.zeros(4, 3), (None, 3)).shape
        torch.Size([4, 3])
    """
    # every launch passes here several times: what is right is seen with few steps
    if (
        isinstance(tensor, torch.Tensor)
        and (tensor.dtype is dtype or (type(dtype) is tuple and tensor.dtype in dtype))
        and _fits(tensor.shape, shape)
        and tensor.device.type == runtime.device().type
        and tensor.is_contiguous()
    ):
        return tensor
    raise _unsuited(name, tensor, shape, dtype)


def check_divides(times: torch.Tensor, positions: torch.Tensor) -> None:
    """Make sure that each of N times can be that of as many of M positions.

    Raises:
        TensorError: N does not divide M.
    """
    if len(positions) % max(len(times), 1) or (len(positions) and not len(times)):
        raise TensorError(f"times: {len(times)} rays do not divide {len(positions)} samples evenly")


def _fits(found: tuple[int, ...], shape: tuple[int | None, ...]) -> bool:
    if found == shape:
        return True
    return len(found) == len(shape) and all(s is None or s == n for s, n in zip(shape, found, strict=True))


def _unsuited(
    name: str, tensor: torch.Tensor, shape: tuple[int | None, ...], dtype: torch.dtype | tuple[torch.dtype, ...]
) -> TensorError:
    """The first thing that is wrong."""
    if not isinstance(tensor, torch.Tensor):
        return TensorError(f"{name}: expected a torch.Tensor, got {type(tensor).__name__}")
    if not _fits(tensor.shape, shape):
        wanted = ", ".join("any" if s is None else str(s) for s in shape)
        return TensorError(f"{name}: expected shape ({wanted}), got {tuple(tensor.shape)}")
    accepted = dtype if isinstance(dtype, tuple) else (dtype,)
    if tensor.dtype not in accepted:
        wanted = " or ".join(str(d).removeprefix("torch.") for d in accepted)
        return TensorError(f"{name}: expected {wanted}, got {str(tensor.dtype).removeprefix('torch.')}")
    if tensor.device.type != runtime.device().type:
        return TensorError(f"{name}: on {tensor.device.type}, but kernels run on {runtime.device().type}")
    return TensorError(f"{name}: not contiguous; call .contiguous() first")
