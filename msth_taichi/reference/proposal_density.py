"""Density of a proposal at the samples of rays, in plain PyTorch. Letters: N rays, P samples per ray, H hidden."""

import torch

from msth_taichi.grids import GridSpec
from msth_taichi.reference.contract import Contraction
from msth_taichi.reference.masked_encoding import masked_encoding
from msth_taichi.reference.sample_positions import sample_positions
from msth_taichi.thresholds import EMPTY_LOGIT


@torch.no_grad()
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
) -> torch.Tensor:
    """See `msth_taichi.ops.proposal_density`."""
    positions = sample_positions(origins, directions, t_edges, kind, box)
    tables = mask_logits, static_table, dynamic_table
    features, _ = masked_encoding(positions, times, *tables, mask_spec, static_spec, dynamic_spec, blend)
    logits = (out_weights @ torch.relu(hidden_weights @ features))[0]
    inside = ((positions >= 0) & (positions <= 1)).all(dim=1)
    return torch.where(inside, logits, EMPTY_LOGIT).view(len(origins), t_edges.shape[1] - 1)
