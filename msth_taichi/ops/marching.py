"""Samples of rays that are rendered and not trained: none of it is differentiated, and rays lie side by side.

Letters: N rays, P bins of a proposal, S bins of the field.
"""

import math
from typing import NamedTuple

import torch

from msth_taichi.errors import TensorError
from msth_taichi.grids import GridSpec
from msth_taichi.kernels.cells import as_words
from msth_taichi.kernels.marching import marched_density_kernels, marching_kernels
from msth_taichi.ops.checks import check
from msth_taichi.ops.masked_encoding import Copies, Grids
from msth_taichi.ops.stratified import check_sampling
from msth_taichi.reference.contract import Contraction
from msth_taichi.reference.spacing import Spacing


class Regular(NamedTuple):
    """P bins of equal length in s, of N rays, whose edges kernels work out where they are wanted.

    near (N,) and far (N,) are the distances of the first and last edge, scene units; see `stratified_samples` for
    spacing and middle.

    Example:
        >>> Regular(torch.zeros(1), torch.full((1,), 8.0), 4, "uniform").tensors()[1].T
        tensor([[0., 2., 4., 6., 8.]])
    """

    near: torch.Tensor
    far: torch.Tensor
    count: int
    spacing: Spacing = "piecewise"
    middle: float = 1.0

    def tensors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The edges (P+1, N) in s and t."""
        return marched_edges(*self)


class Redrawn(NamedTuple):
    """Edges (S+1, N) in s and t, and what the bins of the histogram between two of them hold (S, N)."""

    s_edges: torch.Tensor
    t_edges: torch.Tensor
    mass: torch.Tensor


class Packed(NamedTuple):
    """The samples of a ray that are kept, from row 0 on: middles (S, N), widths (S, N), and counts (N,); what lies
    beyond is not set."""

    middles: torch.Tensor
    widths: torch.Tensor
    count: torch.Tensor


def marched_edges(
    near: torch.Tensor, far: torch.Tensor, count: int, spacing: Spacing = "piecewise", middle: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """The regular edges of `stratified_samples`, as (P+1, N) in s and t.

    Args:
        near: (N,) distance of the first edge, scene units.
        far: (N,) distance of the last edge.
        count: P.
        spacing: see `stratified_samples`.
        middle: see `stratified_samples`.
    Raises:
        TensorError, ConfigError: as `stratified_samples`.

    Example:
        >>> marched_edges(torch.zeros(1), torch.full((1,), 8.0), 4, "uniform")[1].T
        tensor([[0., 2., 4., 6., 8.]])
    """
    check_sampling(count, spacing, middle)
    check("near", near, (None,))
    check("far", far, (len(near),), near.dtype)
    s_edges = near.new_empty(count + 1, len(near))
    t_edges = torch.empty_like(s_edges)
    if len(near):
        marching_kernels(near.dtype, spacing).spread(near, far, middle, s_edges, t_edges)
    return s_edges, t_edges


def marched_density(
    origins: torch.Tensor,
    directions: torch.Tensor,
    times: torch.Tensor,
    edges: torch.Tensor | Regular,
    mask_logits: torch.Tensor,
    static_table: torch.Tensor,
    dynamic_table: torch.Tensor,
    mask_spec: GridSpec,
    static_spec: GridSpec,
    dynamic_spec: GridSpec,
    hidden_weights: torch.Tensor,
    out_weights: torch.Tensor,
    blend: str = "mst",
    kind: Contraction = "inf",
    box: float = 1.0,
    copies: Copies | None = None,
    occupied: torch.Tensor | None = None,
    darkness: float = math.inf,
) -> torch.Tensor:
    """Density logits of a proposal as `proposal_density` gives them, for edges (P+1, N) and as (P, N).

    Nothing is looked up in cells that are known to be empty, nor behind bins whose optical depths sum up to `darkness`:
    the logit there is -1e4, no density at all.

    Args:
        origins: see `proposal_density`, as all that is not said here.
        directions: (N, 3).
        times: (N,).
        edges: (P+1, N) distances, scene units; or regular ones.
        mask_logits: (Em, 1).
        static_table: (E3, F).
        dynamic_table: (E4, F).
        mask_spec: from `mask_spec`.
        static_spec: 3 axes.
        dynamic_spec: 4 axes.
        hidden_weights: (H, L*F), H at most 64.
        out_weights: (1, H).
        blend: "mst", "mt", "add" or "static".
        kind: contraction.
        box: half edge of a bounded scene.
        copies: tables in float16.
        occupied: (C^3 / 32,) int32 from `pack_cells`, a bit for each of C cells along x, y and z; None for all.
        darkness: optical depth at which a ray ends.
    Returns:
        (P, N), dtype of origins.
    Raises:
        TensorError: wrong shape, dtype, device or layout.

    Example:
        >>> logits = marched_density(rays.origins, rays.directions, rays.times, t_edges, *tables, *specs, *weights)
    """
    dtype, rays = origins.dtype, len(origins)
    check("origins", origins, (None, 3))
    check("directions", directions, (rays, 3), dtype)
    check("times", times, (rays,), dtype)
    if isinstance(edges, Regular):
        regular, t_edges = edges, origins.new_empty(0, 0)
        check_sampling(regular.count, regular.spacing, regular.middle)
        check("near", regular.near, (rays,), dtype)
        check("far", regular.far, (rays,), dtype)
    else:
        check("edges", edges, (None, rays), dtype)
        regular, t_edges = Regular(origins.new_empty(0), origins.new_empty(0), len(edges) - 1), edges
    near, far, bins, spacing, middle = regular
    cells = 0 if occupied is None else round((32 * len(occupied)) ** (1 / 3))
    if occupied is None:
        occupied = torch.empty(0, dtype=torch.int32, device=origins.device)
    check("occupied", occupied, (cells**3 // 32,), torch.int32)
    hidden = len(hidden_weights)
    if not 1 <= hidden <= 64:
        raise TensorError(f"hidden_weights: {hidden} rows; this launch keeps at most 64 in registers")
    tables = (static_table, dynamic_table) if copies is None else copies
    logits = origins.new_empty(bins, rays)
    if logits.numel():
        marched_density_kernels(
            static_spec.features,
            hidden,
            tables[0].dtype,
            blend,
            kind,
            mask_spec.axes,
            cells > 0,
            spacing,
            regular is edges,  # else the spacing plays no part
        ).forward(
            origins,
            directions,
            times,
            near,
            far,
            middle,
            t_edges,
            box,
            *(as_words(x.detach()) for x in (mask_logits, *tables)),
            *Grids(mask_spec, static_spec, dynamic_spec).constants(origins),
            hidden_weights,
            out_weights,
            occupied,
            cells,
            darkness,
            logits,
        )
    return logits


def pack_cells(occupied: torch.Tensor) -> torch.Tensor:
    """(C^3 / 32,) int32 bits of cells (C, C, C) bool along x, y and z, for `marched_density`.

    Cell (i, j, k) is bit (i C^2 + j C + k) mod 32 of its word, the lowest first; C is a multiple of 4.

    Example:
        >>> pack_cells(torch.ones(4, 4, 4, dtype=torch.bool))
        tensor([-1, -1], dtype=torch.int32)
    """
    check("occupied", occupied, (None, None, None), torch.bool)
    words = occupied.reshape(-1, 32).long() << torch.arange(32, device=occupied.device)
    return words.sum(1).to(torch.int32)


def redraw(
    edges: tuple[torch.Tensor, torch.Tensor] | None,
    density_logits: torch.Tensor,
    near: torch.Tensor,
    far: torch.Tensor,
    count: int,
    spacing: Spacing = "piecewise",
    middle: float = 1.0,
    padding: float = 0.01,
) -> Redrawn:
    """`resample_logits` without jitter, and how much weight there is around each new bin:

        mass_i = sum of w_j over the bins j from the one in which edge i lies to the one in which edge i+1 does

    A proposal bounds the field's weights from above, so a sample of the field in a bin of no mass is not seen.

    Args:
        edges: (P+1, N) in [0, 1], and (P+1, N) distances of the same edges, scene units; None for `Regular` ones.
        density_logits: (P, N), float32 or float64.
        near: (N,) distance at s = 0.
        far: (N,) distance at s = 1.
        count: S.
        spacing: see `stratified_samples`.
        middle: see `stratified_samples`.
        padding: added to each weight, see `resample`.
    Raises:
        TensorError: wrong shape, dtype, device or layout.

    Example:
        >>> edges = torch.linspace(0, 1, 5)[:, None]
        >>> logits = torch.tensor([[-1e4], [30.0], [0.0], [0.0]])
        >>> redraw((edges, edges), logits, torch.zeros(1), torch.ones(1), 3, "uniform", padding=0.0).mass.T
        tensor([[1., 1., 1.]])
    """
    check_sampling(count, spacing, middle)
    check("density_logits", density_logits, (None, None))
    bins, rays = density_logits.shape
    if bins == 0:
        raise TensorError("density_logits: expected at least one bin per ray, got shape (0, N)")
    regular = edges is None
    s_edges, t_edges = (density_logits.new_empty(0, 0),) * 2 if edges is None else edges
    for name, of in (("s_edges", s_edges), ("t_edges", t_edges)):
        check(name, of, (0, 0) if regular else (bins + 1, rays), density_logits.dtype)
    check("near", near, (rays,), density_logits.dtype)
    check("far", far, (rays,), density_logits.dtype)
    new_s_edges, new_t_edges = near.new_empty(2, count + 1, rays).unbind()
    mass = near.new_empty(count, rays)
    if rays:
        weights = torch.empty_like(density_logits)
        marching_kernels(near.dtype, spacing, regular).redraw(
            s_edges, t_edges, density_logits, near, far, middle, padding, weights, new_s_edges, new_t_edges, mass
        )
    return Redrawn(new_s_edges, new_t_edges, mass)


def pack(t_edges: torch.Tensor, mass: torch.Tensor, least: float, keep_last: bool) -> Packed:
    """The samples of each ray around which there is more than `least` mass, moved to the front.

    Args:
        t_edges: (S+1, N).
        mass: (S, N) from `redraw`.
        least: mass of the samples to drop, at most.
        keep_last: keep the last sample of each ray whatever its mass.
    Raises:
        TensorError: wrong shape, dtype, device or layout.

    Example:
        >>> pack(torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([[0.0], [1.0]]), 0.1, False).middles[0]
        tensor([2.])
    """
    check("mass", mass, (None, None))
    samples, rays = mass.shape
    check("t_edges", t_edges, (samples + 1, rays), mass.dtype)
    middles, widths = mass.new_empty(2, samples, rays).unbind()
    count = torch.empty(rays, dtype=torch.int32, device=mass.device)
    if rays:
        # the spacing plays no part in it
        marching_kernels(mass.dtype, "uniform").pack(t_edges, mass, least, int(keep_last), middles, widths, count)
    return Packed(middles, widths, count)
