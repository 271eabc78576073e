"""The masked space-time encoding under torch autograd.

Letters: N rays, M samples, L levels, F features, E entries of the mask (m), static (3) and dynamic (4) tables.
"""

from typing import NamedTuple

import torch
from torch.autograd.function import once_differentiable

from msth_taichi.errors import TensorError
from msth_taichi.grids import GridSpec
from msth_taichi.kernels.cells import BLOCK, BLOCK_APART, as_words, joined_constants
from msth_taichi.kernels.masked_encoding import masked_encoding_kernels
from msth_taichi.ops.checks import FLOATS, check, check_divides
from msth_taichi.ops.contract import check_contraction
from msth_taichi.ops.table_sums import TableSums
from msth_taichi.reference.contract import Contraction

BLENDS = ("mst", "mt", "add", "static")

Copies = tuple[torch.Tensor, torch.Tensor]
"""Static and dynamic table in the dtype they are read in."""


class Grids(NamedTuple):
    """Mask, static and dynamic grid of one encoding."""

    mask: GridSpec
    static: GridSpec
    dynamic: GridSpec

    def constants(self, like: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Level constants of the three grids, as the kernels take them."""
        return joined_constants(tuple(self), like.device, like.dtype)


class _Call(NamedTuple):
    """What a call of the operator fixes beside its tensors."""

    grids: Grids
    blend: str
    compute: torch.dtype
    copies: Copies | None
    sums: TableSums | None
    training: bool
    static_from: int | None = None
    kind: Contraction = "none"
    box: float = 1.0

    def kernels(self, device: torch.device):
        gpu = device.type == "cuda"
        sums = "fixed" if self.sums is not None else "atomic" if gpu else "serial"
        features, block = self.grids.static.features, BLOCK_APART if gpu else BLOCK
        choices = features, self.compute, self.blend, sums, block, self.kind, gpu, self.grids.mask.axes
        return masked_encoding_kernels(*choices)


class _MaskedEncoding(torch.autograd.Function):
    """Of positions, or of the middles of bins along rays, whose positions it then returns."""

    @staticmethod
    def forward(
        ctx, positions, origins, directions, t_edges, times, mask_logits, static_table, dynamic_table, call: _Call
    ):
        copies = call.copies
        if copies is None:
            copies = static_table.to(call.compute), dynamic_table.to(call.compute)
        words = [as_words(table) for table in (mask_logits, *copies)]
        along = positions is None
        if along:
            positions = times.new_empty(t_edges.shape[0] * (t_edges.shape[1] - 1), 3)
            first = (origins, directions, t_edges, call.box, positions)
        else:
            first = (positions,)
        count = len(positions)
        out = times.new_empty(call.grids.static.num_outputs, count, dtype=call.compute)
        mask = times.new_empty(count)
        has_slope = call.training and call.blend in ("mst", "mt")
        slope = torch.empty_like(out) if has_slope else out.new_empty(len(out), 0)
        if count:
            kernels = call.kernels(times.device)
            launch = kernels.forward_along if along else kernels.forward
            static_from = count if call.static_from is None else call.static_from
            launch(*first, times, *words, *call.grids.constants(times), out, mask, slope, static_from)
        if call.training:
            # tables are read again only for the gradient to positions
            tables = words[1:] if ctx.needs_input_grad[0] else ()
            ctx.save_for_backward(positions, times, mask_logits, mask, slope, *tables)
        ctx.call = call
        ctx.set_materialize_grads(False)
        if not along:
            return out, mask
        ctx.mark_non_differentiable(positions)
        return out, mask, positions

    @staticmethod
    @once_differentiable
    def backward(ctx, out_gradient, mask_gradient, _=None):
        positions, times, mask_logits, mask, slope, *tables = ctx.saved_tensors
        call: _Call = ctx.call
        grids, sums = call.grids, call.sums
        part = sums
        if out_gradient is None:
            out_gradient = times.new_zeros(grids.static.num_outputs, len(positions), dtype=call.compute)
        out_gradient = out_gradient.contiguous()
        mask_gradient = mask.new_empty(0) if mask_gradient is None else mask_gradient.contiguous()
        kernels, constants = call.kernels(times.device), grids.constants(times)
        logit_gradient = torch.empty_like(mask)
        if sums is None:
            gradients = [times.new_zeros(spec.num_entries, spec.features) for spec in grids]
            scales = times.new_empty(grids.static.levels, dtype=torch.float32)
        else:
            part = sums.beside() if sums.pending else sums
            gradients = [part.mask, part.static, part.dynamic]
            part.open(out_gradient)
            scales = part.scales
        if len(positions):
            kernels.backward(
                positions, times, mask, slope, *constants, out_gradient, mask_gradient,
                logit_gradient, *gradients, scales,
            )  # fmt: skip
        if sums is not None and part is not None and part is not sums:
            sums.take_over(part)
        position_gradient = None
        if ctx.needs_input_grad[0]:
            position_gradient = torch.zeros_like(positions)
            if len(positions):
                kernels.backward_positions(
                    positions, times, as_words(mask_logits), *tables, mask, *constants,
                    out_gradient, logit_gradient, position_gradient,
                )  # fmt: skip
        table_gradients = gradients if sums is None else (None, None, None)
        return position_gradient, None, None, None, None, *table_gradients, None


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
    copies: Copies | None = None,
    sums: TableSums | None = None,
    static_from: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of points in space and time: a learned blend of what stays and what moves.

    With m(x) = `mask_grid`, h3(x) = `hash_grid` of the static and h4(x, t) of the dynamic table:

        mst:     e = m h3 + (1 - m) h4        mt:   e = h3 + (1 - m) h4
        add:     e = h3 + h4                  static: e = h3, the scene without what moves

    A mask of 4 axes is m(x, t). Within 2^-11 of 0 or 1 it is exactly that, and the table without a share takes no
    part. Differentiable in the three tables and in positions (not in times).

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
        copies: static and dynamic table in dtype `compute`, if the caller keeps them; else they are made.
        sums: where the gradients of mask and tables are added, in fixed point, instead of reaching autograd.
        static_from: from this sample on the mask counts as 1 and takes no gradient, so that "mst" and "mt" are "static"
            there; None for none.
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
    check("positions", positions, (None, 3), FLOATS)
    check("times", times, (None,), positions.dtype)
    check_divides(times, positions)
    tables, grids = (mask_logits, static_table, dynamic_table), Grids(mask_spec, static_spec, dynamic_spec)
    call = _check_call(times, tables, grids, blend, compute, copies, sums, positions.requires_grad, static_from)
    return _MaskedEncoding.apply(positions, None, None, None, times, *tables, call)  # type: ignore[no-any-return]


def masked_encoding_along(
    origins: torch.Tensor,
    directions: torch.Tensor,
    t_edges: torch.Tensor,
    times: torch.Tensor,
    mask_logits: torch.Tensor,
    static_table: torch.Tensor,
    dynamic_table: torch.Tensor,
    mask_spec: GridSpec,
    static_spec: GridSpec,
    dynamic_spec: GridSpec,
    blend: str = "mst",
    kind: Contraction = "inf",
    box: float = 1.0,
    compute: torch.dtype | None = None,
    copies: Copies | None = None,
    sums: TableSums | None = None,
    static_from: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """`masked_encoding` at the `sample_positions` of rays, in one launch.

    Differentiable in the three tables; where the rays want gradients too, call the two operators one by one.

    Args:
        origins: (N, 3) scene units, float32 or float64.
        directions: (N, 3) unit, same dtype.
        t_edges: (N, S+1) distances, scene units, same dtype.
        times: (N,) in [0, 1], same dtype.
        mask_logits: (Em, 1).
        static_table: (E3, F).
        dynamic_table: (E4, F).
        mask_spec: from `mask_spec`.
        static_spec: 3 axes.
        dynamic_spec: 4 axes, with the same levels and features.
        blend: "mst", "mt", "add" or "static".
        kind: contraction, 'inf', 'l2' or 'none'.
        box: half edge of a bounded scene, scene units; only 'none' reads it.
        compute: see `masked_encoding`.
        copies: see `masked_encoding`.
        sums: see `masked_encoding`.
        static_from: see `masked_encoding`.
    Returns:
        features (L*F, N*S) of dtype `compute`; mask (N*S,); grid positions (N*S, 3), detached.
    Raises:
        TensorError: wrong shape, dtype, device or layout; rays that want gradients; unknown blend.
        ConfigError: unknown kind, or a box that is not positive.

    Example:
        >>> features, mask, positions = masked_encoding_along(origins, directions, t_edges, times, *tables, *specs)
    """
    check_contraction(kind, box)
    check("origins", origins, (None, 3), FLOATS)
    check("directions", directions, (len(origins), 3), origins.dtype)
    check("t_edges", t_edges, (len(origins), None), origins.dtype)
    check("times", times, (len(origins),), origins.dtype)
    if torch.is_grad_enabled() and (origins.requires_grad or directions.requires_grad):
        raise TensorError("origins, directions: want gradients; call sample_positions and masked_encoding instead")
    tables, grids = (mask_logits, static_table, dynamic_table), Grids(mask_spec, static_spec, dynamic_spec)
    call = _check_call(times, tables, grids, blend, compute, copies, sums, False, static_from)
    call = call._replace(kind=kind, box=box)
    return _MaskedEncoding.apply(None, origins, directions, t_edges, times, *tables, call)  # type: ignore[no-any-return]


@torch.no_grad()
def masked_encoding_first(
    number: torch.Tensor,
    aligned: int,
    positions: torch.Tensor,
    times: torch.Tensor,
    mask: torch.Tensor,
    mask_logits: torch.Tensor,
    static_table: torch.Tensor,
    dynamic_table: torch.Tensor,
    mask_spec: GridSpec,
    static_spec: GridSpec,
    dynamic_spec: GridSpec,
    blend: str = "mst",
    compute: torch.dtype | None = None,
    copies: Copies | None = None,
) -> torch.Tensor:
    """`masked_encoding` of the first positions alone, as many as a number says that the host does not wait for.

    Not differentiated. What lies beyond is not written.

    Args:
        number: (1,) int32.
        aligned: positions beyond the number are looked up too, up to a multiple of it.
        positions: (M, 3) float32 or float64, in [0, 1].
        times: (N,) same dtype, in [0, 1]; see `masked_encoding`.
        mask: (M,) same dtype, written.
        mask_logits: (Em, 1).
        static_table: (E3, F).
        dynamic_table: (E4, F).
        mask_spec: from `mask_spec`.
        static_spec: 3 axes.
        dynamic_spec: 4 axes, with the same levels and features.
        blend: see `masked_encoding`.
        compute: see `masked_encoding`.
        copies: see `masked_encoding`.
    Returns:
        features (L*F, M) of dtype `compute`.
    Raises:
        TensorError: see `masked_encoding`.

    Example:
        >>> mask = torch.empty(len(positions))
        >>> features = masked_encoding_first(number, 8, positions, times, mask, *tables, *specs)
    """
    check("positions", positions, (None, 3), FLOATS)
    check("times", times, (None,), positions.dtype)
    check("mask", mask, (len(positions),), positions.dtype)
    check("number", number, (1,), torch.int32)
    check_divides(times, positions)
    tables, grids = (mask_logits, static_table, dynamic_table), Grids(mask_spec, static_spec, dynamic_spec)
    call = _check_call(times, tables, grids, blend, compute, copies, None, False)
    if copies is None:
        copies = static_table.to(call.compute), dynamic_table.to(call.compute)
    out = times.new_empty(static_spec.num_outputs, len(positions), dtype=call.compute)
    if len(positions):
        words = [as_words(table) for table in (mask_logits, *copies)]
        call.kernels(times.device).forward_first(
            number, aligned, positions, times, *words, *grids.constants(times), out, mask
        )
    return out


def _check_call(
    times: torch.Tensor,
    tables: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    grids: Grids,
    blend: str,
    compute: torch.dtype | None,
    copies: Copies | None,
    sums: TableSums | None,
    training: bool,
    static_from: int | None = None,
) -> _Call:
    """Checks that both operators share, and what they hand to autograd."""
    dtype = times.dtype
    for name, table, spec in zip(("mask_logits", "static_table", "dynamic_table"), tables, grids, strict=True):
        check(name, table, (spec.num_entries, spec.features), dtype)
    if blend not in BLENDS:
        raise TensorError(f"blend: unknown '{blend}'; use one of {', '.join(BLENDS)}")
    if copies is not None:
        for name, copy, table in zip(("static", "dynamic"), copies, tables[1:], strict=True):
            check(f"copies ({name})", copy, tuple(table.shape), compute or dtype)
    if sums is not None and dtype != torch.float32:
        raise TensorError(f"sums: fixed-point sums are for float32 tables, got {str(dtype).removeprefix('torch.')}")
    # asked here: inside forward() gradients are off, and needs_input_grad knows nothing of torch.no_grad
    training = torch.is_grad_enabled() and (training or any(t.requires_grad for t in tables))
    return _Call(grids, blend, compute or dtype, copies, sums, training, static_from)
