"""Where the samples of rays lie in the grids, in plain PyTorch. Letters: N rays, S samples per ray."""

import torch

from msth_taichi.reference.contract import Contraction, contract


def sample_positions(
    origins: torch.Tensor,
    directions: torch.Tensor,
    t_edges: torch.Tensor,
    kind: Contraction = "inf",
    box: float = 1.0,
) -> torch.Tensor:
    """See `msth_taichi.ops.sample_positions`."""
    middles = (t_edges[:, 1:] + t_edges[:, :-1]) / 2
    positions = origins[:, None] + directions[:, None] * middles[..., None]
    return contract(positions.reshape(-1, 3), kind, box)
