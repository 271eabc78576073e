"""N-D multi-resolution hash grid under torch autograd.

Letters: M samples, D axes, L levels, F features, E table entries.
"""

import torch
from torch.autograd.function import once_differentiable

from msth_taichi.errors import TensorError
from msth_taichi.grids import GridSpec
from msth_taichi.kernels.cells import BLOCK, BLOCK_APART, Sums, as_words, level_constants
from msth_taichi.kernels.hash_grid import hash_grid_kernels
from msth_taichi.ops.checks import FLOATS, check
from msth_taichi.thresholds import FIXED_LIMIT


def _sums(table: torch.Tensor) -> Sums:
    """How gradients add up fastest: on a GPU as integers where both features fit, so that any order gives the same."""
    if table.device.type != "cuda":
        return "serial"
    return "fixed" if table.dtype == torch.float32 and table.shape[1] == 2 else "atomic"


def _kernels(spec: GridSpec, table: torch.Tensor):
    gpu = table.device.type == "cuda"
    block = BLOCK_APART if gpu else BLOCK
    return hash_grid_kernels(spec.axes, spec.features, table.dtype, _sums(table), block, gpu)


def _table_gradient(
    positions: torch.Tensor, table: torch.Tensor, spec: GridSpec, out_gradient: torch.Tensor
) -> torch.Tensor:
    """(E, F) what the gradients of features add up to."""
    if not len(positions):
        return torch.zeros_like(table)
    kernels, (scales, integers) = _kernels(spec, table), level_constants(spec, positions.device, positions.dtype)
    if _sums(table) != "fixed":
        gradient, unused = torch.zeros_like(table), torch.empty(spec.levels, device=table.device)
        kernels.backward_table(positions, scales, integers, out_gradient, gradient, unused)
        return gradient
    # as in TableSums: all gradients of a level could meet in one entry
    largest = torch.linalg.vector_norm(out_gradient.view(spec.levels, -1), 1, dim=1)
    units = FIXED_LIMIT / largest.clamp(min=1e-25)
    sums = torch.zeros(len(table), 1, dtype=torch.int64, device=table.device)
    kernels.backward_table(positions, scales, integers, out_gradient, sums, units)
    gradient = torch.empty_like(table)
    kernels.floats(sums, integers, max(spec.entries), units, gradient)
    return gradient


class _HashGrid(torch.autograd.Function):
    @staticmethod
    def forward(ctx, positions, table, spec: GridSpec):
        positions, table = positions.detach(), table.detach()
        scales, integers = level_constants(spec, positions.device, positions.dtype)
        out = table.new_empty(spec.num_outputs, len(positions))
        if len(positions):
            _kernels(spec, table).forward(positions, as_words(table), scales, integers, out)
        ctx.save_for_backward(positions, table)
        ctx.spec = spec
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, out_gradient):
        positions, table = ctx.saved_tensors
        spec: GridSpec = ctx.spec
        scales, integers = level_constants(spec, positions.device, positions.dtype)
        kernels = _kernels(spec, table)
        out_gradient = out_gradient.contiguous()
        position_gradient = table_gradient = None
        if ctx.needs_input_grad[0]:
            position_gradient = torch.zeros_like(positions)
            if len(positions):
                kernels.backward_positions(
                    positions, as_words(table), scales, integers, out_gradient, position_gradient
                )
        if ctx.needs_input_grad[1]:
            table_gradient = _table_gradient(positions, table, spec, out_gradient)
        return position_gradient, table_gradient, None


def hash_grid(positions: torch.Tensor, table: torch.Tensor, spec: GridSpec) -> torch.Tensor:
    """Features of positions, interpolated linearly in a grid of each level.

    At level l, with p = x scale_l + 0.5, i = floor(p), f = p - i:

        out[l] = sum over corners c in {i, i+1}^D of  prod_d (f_d or 1 - f_d)  table[slot_l(c)]

    where `slot` is dense or hashed by level (see `GridSpec`). On a GPU gradients of a float32 table of two features
    are summed in fixed point, see `TableSums`: to the same bits each time. A position with any coordinate outside
    [0, 1] gives zeros and takes no gradient. Differentiable in positions and table; the derivative to a position is the
    one inside its cell.

    Args:
        positions: (M, D) float32 or float64, in [0, 1].
        table: (E, F) entries of all levels, same dtype.
        spec: sizes of the grid, with D axes, F features and E entries.
    Returns:
        (L*F, M) features, level by level.
    Raises:
        TensorError: wrong shape, dtype, device or layout; a grid that is aligned.
    Source: Müller et al. 2022, Instant-NGP; rectangular resolutions as in the released MSTH code.

    Example:
        >>> spec = GridSpec((4, 4, 4), (8, 8, 8), 2, 2, 10)
        >>> hash_grid(torch.rand(5, 3), torch.zeros(spec.num_entries, 2), spec).shape
        torch.Size([4, 5])
    """
    check("positions", positions, (None, spec.axes), FLOATS)
    if spec.aligned:
        raise TensorError("spec: is of a mask that changes with time; read it with mask_grid")
    check("table", table, (spec.num_entries, spec.features), positions.dtype)
    return _HashGrid.apply(positions, table, spec)  # type: ignore[no-any-return]
