"""Single-level mask grid under torch autograd. Letters: N rays, M samples, E vertices, D axes."""

import torch
from torch.autograd.function import once_differentiable

from msth_taichi.errors import TensorError
from msth_taichi.grids import GridSpec
from msth_taichi.kernels.cells import as_words, level_constants
from msth_taichi.kernels.mask_grid import mask_grid_kernels
from msth_taichi.ops.checks import FLOATS, check, check_divides


class _MaskGrid(torch.autograd.Function):
    """Of positions (M, D)."""

    @staticmethod
    def forward(ctx, positions, logits, spec: GridSpec):
        positions, logits = positions.detach(), logits.detach()
        mask = positions.new_empty(len(positions))
        if len(positions):
            constants = level_constants(spec, positions.device, positions.dtype)
            mask_grid_kernels(positions.dtype, spec.axes).forward(positions, as_words(logits), *constants, mask)
        ctx.save_for_backward(positions, logits, mask)
        ctx.spec = spec
        return mask

    @staticmethod
    @once_differentiable
    def backward(ctx, mask_gradient):
        # an output comes back from ctx attached to the graph, and Taichi would allocate its .grad
        positions, logits, mask = (t.detach() for t in ctx.saved_tensors)
        logits_gradient = torch.zeros_like(logits)
        position_gradient = torch.zeros_like(positions if ctx.needs_input_grad[0] else positions[:0])
        if len(positions):
            constants = level_constants(ctx.spec, positions.device, positions.dtype)
            mask_grid_kernels(positions.dtype, ctx.spec.axes).backward(
                positions,
                as_words(logits),
                *constants,
                mask,
                mask_gradient.contiguous(),
                logits_gradient,
                position_gradient,
            )
        return position_gradient if ctx.needs_input_grad[0] else None, logits_gradient, None


def mask_grid(
    positions: torch.Tensor, logits: torch.Tensor, spec: GridSpec, times: torch.Tensor | None = None
) -> torch.Tensor:
    """How static each position is: m = sigmoid(linear interpolation of a grid of logits), of space or space and time.

    Within 2^-11 of 0 or 1 it is exactly that, and takes no gradient: what float16 features would round away.
    Positions outside [0, 1]^D read a logit of zero, m = 0.5, and take no gradient.

    Args:
        positions: (M, 3) float32 or float64, in [0, 1].
        logits: (E, 1) a value a vertex, same dtype.
        spec: from `msth_taichi.grids.mask_spec(resolution, times)`.
        times: (N,) same dtype, in [0, 1], see `masked_encoding`. A mask of 4 axes wants them; others are the same at
            all times.
    Returns:
        (M,) in [0, 1]; 1 is static, 0 is moving. Differentiable in positions and logits, not in times.
    Raises:
        TensorError: wrong shape, dtype, device or layout; no times, or such as do not divide the samples.

    Example:
        >>> spec = mask_spec(4)
        >>> mask_grid(torch.rand(2, 3), torch.full((spec.num_entries, 1), -1.0), spec)
        tensor([0.2689, 0.2689])
    """
    check("positions", positions, (None, 3), FLOATS)
    check("logits", logits, (spec.num_entries, 1), positions.dtype)
    if spec.axes == 4:
        if times is None:
            raise TensorError("times: none given, and this mask changes with time; say at which times to read it")
        check("times", times, (None,), positions.dtype)
        check_divides(times, positions)
        each = times.detach().repeat_interleave(len(positions) // max(len(times), 1))
        positions = torch.cat([positions, each[:, None]], dim=1)
    return _MaskGrid.apply(positions, logits, spec)  # type: ignore[no-any-return]
