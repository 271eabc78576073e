"""Samples of rays that are rendered and not trained, rays side by side in memory: what neighbouring threads read lies
together, as it does not where each ray has its samples in a row.

Letters: N rays, P bins of a proposal, S bins of the field.
"""

from functools import cache
from types import SimpleNamespace

import taichi as ti
import torch

from msth_taichi.kernels.cells import TAICHI_DTYPE, real_of, table_type
from msth_taichi.kernels.contract import contract_functions
from msth_taichi.kernels.launch import launchers
from msth_taichi.kernels.logits import logit_functions
from msth_taichi.kernels.proposal_density import proposal_functions
from msth_taichi.kernels.resample import MIN_TOTAL
from msth_taichi.kernels.sample_positions import ray_functions
from msth_taichi.kernels.spacing import spacing_functions
from msth_taichi.thresholds import EMPTY_LOGIT


@cache
def edge_functions(spacing: str, real, regular: bool) -> SimpleNamespace:
    """Device functions of the edges of bins: `regular` ones are worked out where they are wanted, which spares a launch
    that writes them; others are read."""
    along = spacing_functions(spacing, real)

    @ti.func
    def position(i, count, ray, s_edges: ti.template()):
        """s of edge i of `count` bins."""
        s = ti.cast(1, real)  # CUDA's fast division may miss it, and with it far
        if ti.static(regular):
            if i < count:
                s = ti.cast(i, real) / count
        else:
            s = s_edges[i, ray]
        return s

    @ti.func
    def distance(i, count, ray, t_edges: ti.template(), nearest, farthest, g_near, g_far, middle):
        """t of edge i."""
        t = ti.cast(0, real)
        if ti.static(regular):
            s = position(i, count, ray, t_edges)
            t = along.distance_between(s, nearest, farthest, g_near, g_far, middle)
        else:
            t = t_edges[i, ray]
        return t

    return SimpleNamespace(position=position, distance=distance)


@cache
def marched_density_kernels(
    features: int,
    hidden: int,
    dtype: torch.dtype,
    blend: str,
    contraction: str,
    mask_axes: int,
    skips_empty: bool,
    spacing: str,
    regular: bool,
) -> SimpleNamespace:
    """Kernels for tables of `dtype`; see `msth_taichi.ops.marching`. Bits are read with `skips_empty` alone, edges
    unless they are `regular`."""
    real = real_of(dtype)
    along, edges = spacing_functions(spacing, real), edge_functions(spacing, real, regular)
    proposal = proposal_functions(features, hidden, dtype, blend, mask_axes)
    space = contract_functions(real, contraction)
    rays = ray_functions(real)
    volume = logit_functions(real)
    matrix = ti.types.ndarray(dtype=real, ndim=2)
    vector = ti.types.ndarray(dtype=real, ndim=1)
    level_rows = ti.types.ndarray(dtype=ti.i32, ndim=2)
    table = table_type(dtype, features)
    logits = table_type(torch.float64 if dtype == torch.float64 else torch.float32, 1)
    bits = ti.types.ndarray(dtype=ti.i32, ndim=1)

    @ti.func
    def is_occupied(x, occupied: ti.template(), cells):
        """Whether the cell of a place within the grid has its bit set."""
        index = 0
        for d in ti.static(range(3)):
            index = index * cells + ti.min(ti.cast(x[d] * cells, ti.i32), cells - 1)
        return (occupied[index >> 5] >> (index & 31)) & 1

    @ti.kernel
    def forward(
        origins: matrix,  # (N, 3)
        directions: matrix,  # (N, 3)
        times: vector,  # (N,)
        near: vector,  # (N,), or empty
        far: vector,
        middle: real,
        t_edges: matrix,  # (P+1, N), or empty: the one or the other
        box: real,
        mask_logits: logits,
        static_table: table,
        dynamic_table: table,
        scales: matrix,  # (1+2L, 4) `joined_constants` of the three grids
        integers: level_rows,  # (1+2L, 7)
        hidden_weights: matrix,  # (H, L*F)
        out_weights: matrix,  # (1, H)
        occupied: bits,  # (cells^3 / 32,), or empty
        cells: ti.i32,
        darkness: real,  # optical depth at which a ray ends
        density_logits: matrix,  # (P, N)
    ):
        for ray in range(density_logits.shape[1]):
            origin, direction = rays.load(origins, ray), rays.load(directions, ray)
            depth = real(0.0)
            bins = density_logits.shape[0]
            nearest, farthest, g_near, g_far = real(0.0), real(0.0), real(0.0), real(0.0)
            if ti.static(regular):
                nearest, farthest = near[ray], far[ray]
                g_near, g_far = along.to_spacing(nearest, middle), along.to_spacing(farthest, middle)
            start = edges.distance(0, bins, ray, t_edges, nearest, farthest, g_near, g_far, middle)
            for i in range(bins):
                end = edges.distance(i + 1, bins, ray, t_edges, nearest, farthest, g_near, g_far, middle)
                logit = real(EMPTY_LOGIT)
                if depth < darkness:
                    x = space.contracted(origin + direction * (0.5 * (start + end)), box)
                    seen = 1
                    if ti.static(contraction == "none"):
                        seen = proposal.is_inside(x)
                    if ti.static(skips_empty):
                        if seen == 1:
                            seen = is_occupied(x, occupied, cells)
                    if seen == 1:
                        logit = proposal.density_logit(
                            x, times, ray, mask_logits, static_table, dynamic_table, scales, integers, hidden_weights,
                            out_weights,
                        )  # fmt: skip
                        depth += volume.optical_depth(logit, end - start)
                density_logits[i, ray] = logit
                start = end

    return launchers(forward=forward)


@cache
def marching_kernels(dtype: torch.dtype, spacing: str, regular: bool = False) -> SimpleNamespace:
    """Kernels for float32 or float64; see `msth_taichi.ops.marching`. `redraw` reads edges that are not `regular`."""
    real = TAICHI_DTYPE[dtype]
    along, edges = spacing_functions(spacing, real), edge_functions(spacing, real, regular)
    volume = logit_functions(real)
    vector = ti.types.ndarray(dtype=real, ndim=1)
    matrix = ti.types.ndarray(dtype=real, ndim=2)
    numbers = ti.types.ndarray(dtype=ti.i32, ndim=1)

    @ti.kernel
    def spread(near: vector, far: vector, middle: real, s_edges: matrix, t_edges: matrix):  # (N,), (P+1, N)
        for edge, ray in ti.ndrange(s_edges.shape[0], s_edges.shape[1]):
            count = s_edges.shape[0] - 1
            # CUDA's fast division may miss 1, and with it far
            s = ti.cast(edge, real) / count if edge < count else ti.cast(1, real)
            s_edges[edge, ray] = s
            t_edges[edge, ray] = along.distance(s, near[ray], far[ray], middle)

    @ti.kernel
    def redraw(
        s_edges: matrix,  # (P+1, N), or empty
        t_edges: matrix,  # (P+1, N), or empty
        density_logits: matrix,  # (P, N)
        near: vector,  # (N,)
        far: vector,
        middle: real,
        padding: real,
        weights: matrix,  # (P, N) scratch
        new_s_edges: matrix,  # (S+1, N)
        new_t_edges: matrix,  # (S+1, N)
        mass: matrix,  # (S, N)
    ):
        for ray in range(weights.shape[1]):
            bins = weights.shape[0]
            last = new_s_edges.shape[0]
            nearest, farthest = near[ray], far[ray]
            g_near, g_far = along.to_spacing(nearest, middle), along.to_spacing(farthest, middle)
            total = bins * padding
            tau_sum = ti.cast(0, real)
            t = edges.distance(0, bins, ray, t_edges, nearest, farthest, g_near, g_far, middle)
            for i in range(bins):
                end = edges.distance(i + 1, bins, ray, t_edges, nearest, farthest, g_near, g_far, middle)
                tau = volume.optical_depth(density_logits[i, ray], end - t)
                t = end
                w = ti.exp(-tau_sum) * volume.absorbed(tau)
                tau_sum += tau
                weights[i, ray] = w
                total += w
            fill = padding
            if total < real(MIN_TOTAL):
                fill += (real(MIN_TOTAL) - total) / bins
            total = ti.max(total, real(MIN_TOTAL))

            # as in `resample`; on the way, what the bins between two edges hold
            i = 0
            w = weights[0, ray]
            start, end = edges.position(0, bins, ray, s_edges), edges.position(1, bins, ray, s_edges)
            distance = nearest
            low = ti.cast(0, real)
            high = w + fill
            around = w
            for edge in range(last):
                level = (edge + ti.cast(0.5, real)) / last * total
                while i < bins - 1 and high <= level and high < total:
                    i += 1
                    w = weights[i, ray]
                    around += w
                    low = high
                    high += w + fill
                    start = end
                    end = edges.position(i + 1, bins, ray, s_edges)
                fraction = ti.cast(0, real)
                if high > low:
                    fraction = ti.min((level - low) / (high - low), 1)
                s = ti.min(start + fraction * (end - start), end)
                new_s_edges[edge, ray] = s
                distance = ti.max(distance, along.distance_between(s, nearest, farthest, g_near, g_far, middle))
                new_t_edges[edge, ray] = distance
                if edge > 0:
                    mass[edge - 1, ray] = around
                around = w

    @ti.kernel
    def pack(
        t_edges: matrix,  # (S+1, N)
        mass: matrix,  # (S, N)
        least: real,
        keep_last: ti.i32,
        middles: matrix,  # (S, N)
        widths: matrix,  # (S, N)
        count: numbers,  # (N,)
    ):
        for ray in range(count.shape[0]):
            kept = 0
            start = t_edges[0, ray]
            bins = mass.shape[0]
            for i in range(bins):
                end = t_edges[i + 1, ray]
                if mass[i, ray] > least or (keep_last == 1 and i == bins - 1):
                    middles[kept, ray] = 0.5 * (start + end)
                    widths[kept, ray] = end - start
                    kept += 1
                start = end
            count[ray] = kept

    return launchers(spread=spread, redraw=redraw, pack=pack)
