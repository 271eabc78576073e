"""The masked space-time encoding under torch autograd.

Letters: N rays, M samples, L levels, F features, E entries of the mask (m), static (3) and dynamic (4) tables.
"""

from typing import NamedTuple

import torch
from torch.autograd.function import once_differentiable

from msth_taichi.errors import TensorError
from msth_taichi.grids import GridSpec
from msth_taichi.kernels.cells import level_constants
from msth_taichi.kernels.masked_encoding import masked_encoding_kernels
from msth_taichi.ops.checks import FLOATS, check

BLENDS = ("mst", "mt", "add", "static")


class _Grids(NamedTuple):
    mask: GridSpec
    static: GridSpec
    dynamic: GridSpec

    def constants(self, like: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Level constants of the three grids, in the order in which the kernels take them."""
        return tuple(t for spec in self for t in level_constants(spec, like.device, like.dtype))


class _MaskedEncoding(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, positions, times, mask_logits, static_table, dynamic_table, grids: _Grids, blend, compute, training
    ):
        positions, times, mask_logits = positions.detach(), times.detach(), mask_logits.detach()
        static_table, dynamic_table = static_table.detach().to(compute), dynamic_table.detach().to(compute)
        count = len(positions)
        out = static_table.new_empty(grids.static.num_outputs, count)
        mask = positions.new_empty(count)
        has_slope = training and blend in ("mst", "mt")
        slope = torch.empty_like(out) if has_slope else out[:, :0].contiguous()
        if count:
            kernels = masked_encoding_kernels(grids.static.features, compute, blend)
            kernels.forward(
                positions,
                times,
                mask_logits,
                static_table,
                dynamic_table,
                *grids.constants(positions),
                out,
                mask,
                slope,
            )
        if training:
            # tables are read again only for the gradient to positions
            tables = (static_table, dynamic_table) if ctx.needs_input_grad[0] else ()
            ctx.save_for_backward(positions, times, mask_logits, mask, slope, *tables)
        ctx.grids, ctx.blend, ctx.compute = grids, blend, compute
        return out, mask

    @staticmethod
    @once_differentiable
    def backward(ctx, out_gradient, mask_gradient):
        # outputs come back from ctx attached to the graph, and Taichi would allocate their .grad
        positions, times, mask_logits, mask, slope, *tables = (t.detach() for t in ctx.saved_tensors)
        grids: _Grids = ctx.grids
        kernels = masked_encoding_kernels(grids.static.features, ctx.compute, ctx.blend)
        out_gradient = out_gradient.contiguous()
        logit_gradient = torch.empty_like(mask)
        logits_gradient = torch.zeros_like(mask_logits)
        static_gradient = positions.new_zeros(grids.static.num_entries, grids.static.features)
        dynamic_gradient = positions.new_zeros(grids.dynamic.num_entries, grids.dynamic.features)
        position_gradient = None
        constants = grids.constants(positions)
        if len(positions):
            kernels.backward(
                positions, times, mask, slope, *constants, out_gradient, mask_gradient.contiguous(),
                logit_gradient, logits_gradient, static_gradient, dynamic_gradient,
            )  # fmt: skip
        if ctx.needs_input_grad[0]:
            position_gradient = torch.zeros_like(positions)
            if len(positions):
                kernels.backward_positions(
                    positions, times, mask_logits, *tables, mask, *constants,
                    out_gradient, logit_gradient, position_gradient,
                )  # fmt: skip
        return position_gradient, None, logits_gradient, static_gradient, dynamic_gradient, None, None, None, None


def masked_encoding(
    positions: torch.Tensor,
    times: torch.Tensor,
    mask_logits: torch.Tensor,
    static_table: torch.Tensor,
    dynamic_table: torch.Tensor,
    mask_spec: GridSpec,
    static_spec: GridSpec,
    dynamic_spec: GridSpec,
    blend: str = "mst",
    compute: torch.dtype | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of points in space and time: a learned blend of what stays and what moves.

    With m(x) = `mask_grid`, h3(x) = `hash_grid` of the static and h4(x, t) of the dynamic table:

        mst:     e = m h3 + (1 - m) h4        mt:   e = h3 + (1 - m) h4
        add:     e = h3 + h4                  static: e = h3, the scene without what moves

    Differentiable in the three tables and in positions (not in times).

    Args:
        positions: (M, 3) float32 or float64, in [0, 1].
        times: (N,) same dtype, in [0, 1]; ray n owns samples n M/N to (n+1) M/N - 1. N = M gives each its own.
        mask_logits: (Em, 1).
        static_table: (E3, F).
        dynamic_table: (E4, F).
        mask_spec: from `mask_spec`.
        static_spec: 3 axes.
        dynamic_spec: 4 axes, with the same levels and features.
        blend: "mst", "mt", "add" or "static".
        compute: dtype in which tables are read and features returned; default that of the tables. Sums and
            gradients of tables stay in the tables' own dtype.
    Returns:
        features (L*F, M) of dtype `compute`, level by level; mask (M,), 1 where static.
    Raises:
        TensorError: wrong shape, dtype, device or layout; times that do not divide the samples; unknown blend.
    Source: Wang et al. 2023, Masked Space-Time Hash Encoding, and its released code.

    Example:
        >>> spec3, spec4 = GridSpec((4,) * 3, (8,) * 3, 2, 2, 10), GridSpec((4,) * 4, (8,) * 4, 2, 2, 10)
        >>> tables = [torch.zeros(s.num_entries, s.features) for s in (mask_spec(4), spec3, spec4)]
        >>> features, mask = masked_encoding(torch.rand(6, 3), torch.rand(2), *tables, mask_spec(4), spec3, spec4)
        >>> features.shape, mask[0].item()
        (torch.Size([4, 6]), 0.5)
    """
    dtype = positions.dtype
    check("positions", positions, (None, 3), FLOATS)
    check("times", times, (None,), dtype)
    check("mask_logits", mask_logits, (mask_spec.num_entries, 1), dtype)
    check("static_table", static_table, (static_spec.num_entries, static_spec.features), dtype)
    check("dynamic_table", dynamic_table, (dynamic_spec.num_entries, dynamic_spec.features), dtype)
    if blend not in BLENDS:
        raise TensorError(f"blend: unknown '{blend}'; use one of {', '.join(BLENDS)}")
    if len(positions) % max(len(times), 1) or (len(positions) and not len(times)):
        raise TensorError(f"times: {len(times)} rays do not divide {len(positions)} samples evenly")
    grids = _Grids(mask_spec, static_spec, dynamic_spec)
    tensors = (positions, times, mask_logits, static_table, dynamic_table)
    # asked here: inside forward() gradients are off, and needs_input_grad knows nothing of torch.no_grad
    training = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    return _MaskedEncoding.apply(*tensors, grids, blend, compute or dtype, training)  # type: ignore[no-any-return]
