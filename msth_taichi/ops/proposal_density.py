"""Density of a proposal at the samples of rays, without gradients. Letters: N rays, P samples per ray, H hidden."""

import torch

from msth_taichi.errors import TensorError
from msth_taichi.grids import GridSpec
from msth_taichi.kernels.cells import as_words
from msth_taichi.kernels.proposal_density import proposal_density_kernels
from msth_taichi.ops.checks import check
from msth_taichi.ops.contract import check_contraction
from msth_taichi.ops.masked_encoding import BLENDS, Copies, Grids
from msth_taichi.reference.contract import Contraction


def proposal_density(
    origins: torch.Tensor,
    directions: torch.Tensor,
    times: torch.Tensor,
    t_edges: torch.Tensor,
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
) -> torch.Tensor:
    """Density logits along rays, in one launch: density = exp(logit),

        logit = out_weights relu(hidden_weights e(x, t))          x = contract(o + d (t_i + t_{i+1}) / 2)

    with e the features of `masked_encoding` and x as in `sample_positions`. Outside a box of kind 'none' the logit
    is -1e4, no density at all. Not differentiated: where a proposal is trained, its parts run one by one.

    Args:
        origins: (N, 3) scene units, float32 or float64.
        directions: (N, 3) unit, same dtype.
        times: (N,) in [0, 1], same dtype.
        t_edges: (N, P+1) distances, scene units, same dtype.
        mask_logits: (Em, 1).
        static_table: (E3, F).
        dynamic_table: (E4, F).
        mask_spec: from `mask_spec`.
        static_spec: 3 axes.
        dynamic_spec: 4 axes, with the same levels and features.
        hidden_weights: (H, L*F), H at most 64.
        out_weights: (1, H).
        blend: "mst", "mt", "add" or "static".
        kind: contraction, 'inf', 'l2' or 'none'.
        box: half edge of a bounded scene, scene units; only 'none' reads it.
        copies: static and dynamic table in float16, to be read instead.
    Returns:
        (N, P), dtype of origins.
    Raises:
        TensorError: wrong shape, dtype, device or layout; unknown blend.
        ConfigError: unknown kind, or a box that is not positive.
    Source: proposal network of the released MSTH code, after mip-NeRF 360.

    Example:
        >>> logits = proposal_density(rays.origins, rays.directions, rays.times, t_edges, *tables, *specs, *weights)
        >>> density = truncated_exp(logits)
    """
    dtype, rays = origins.dtype, len(origins)
    check_contraction(kind, box)
    check("origins", origins, (None, 3))
    check("directions", directions, (rays, 3), dtype)
    check("times", times, (rays,), dtype)
    check("t_edges", t_edges, (rays, None), dtype)
    check("mask_logits", mask_logits, (mask_spec.num_entries, 1), dtype)
    check("static_table", static_table, (static_spec.num_entries, static_spec.features), dtype)
    check("dynamic_table", dynamic_table, (dynamic_spec.num_entries, dynamic_spec.features), dtype)
    check("hidden_weights", hidden_weights, (None, static_spec.num_outputs), dtype)
    hidden = len(hidden_weights)
    check("out_weights", out_weights, (1, hidden), dtype)
    if not 1 <= hidden <= 64:
        raise TensorError(f"hidden_weights: {hidden} rows; this launch keeps at most 64 in registers")
    if blend not in BLENDS:
        raise TensorError(f"blend: unknown '{blend}'; use one of {', '.join(BLENDS)}")
    tables = (static_table, dynamic_table) if copies is None else copies
    samples = t_edges.shape[1] - 1
    logits = origins.new_empty(rays, samples)
    if logits.numel():
        constants = Grids(mask_spec, static_spec, dynamic_spec).constants(origins)
        proposal_density_kernels(static_spec.features, hidden, tables[0].dtype, blend, kind, mask_spec.axes).forward(
            origins,
            directions,
            times,
            t_edges,
            box,
            *(as_words(x.detach()) for x in (mask_logits, *tables)),
            *constants,
            hidden_weights,
            out_weights,
            logits,
        )
    return logits
