"""Single-level mask grid under torch autograd. Letters: M samples, E vertices."""

import torch
from torch.autograd.function import once_differentiable

from msth_taichi.grids import GridSpec
from msth_taichi.kernels.cells import as_words, level_constants
from msth_taichi.kernels.mask_grid import mask_grid_kernels
from msth_taichi.ops.checks import FLOATS, check


class _MaskGrid(torch.autograd.Function):
    @staticmethod
    def forward(ctx, positions, logits, spec: GridSpec):
        positions, logits = positions.detach(), logits.detach()
        mask = positions.new_empty(len(positions))
        if len(positions):
            constants = level_constants(spec, positions.device, positions.dtype)
            mask_grid_kernels(positions.dtype).forward(positions, as_words(logits), *constants, mask)
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
            mask_grid_kernels(positions.dtype).backward(
                positions,
                as_words(logits),
                *constants,
                mask,
                mask_gradient.contiguous(),
                logits_gradient,
                position_gradient,
            )
        return position_gradient if ctx.needs_input_grad[0] else None, logits_gradient, None


def mask_grid(positions: torch.Tensor, logits: torch.Tensor, spec: GridSpec) -> torch.Tensor:
    """How static each position is: m = sigmoid(trilinear interpolation of a grid of logits).

    Within 2^-11 of 0 or 1 it is exactly that, and takes no gradient: what float16 features would round away.
    Positions outside [0, 1]^3 read a logit of zero, m = 0.5, and take no gradient.

    Args:
        positions: (M, 3) float32 or float64, in [0, 1].
        logits: (E, 1) a value a vertex, same dtype.
        spec: from `msth_taichi.grids.mask_spec(resolution)`.
    Returns:
        (M,) in [0, 1]; 1 is static, 0 is moving. Differentiable in positions and logits.
    Raises:
        TensorError: wrong shape, dtype, device or layout.

    Example:
        >>> spec = mask_spec(4)
        >>> mask_grid(torch.rand(2, 3), torch.full((spec.num_entries, 1), -1.0), spec)
        tensor([0.2689, 0.2689])
    """
    check("positions", positions, (None, 3), FLOATS)
    check("logits", logits, (spec.num_entries, 1), positions.dtype)
    return _MaskGrid.apply(positions, logits, spec)  # type: ignore[no-any-return]
