"""How scene coordinates become grid coordinates. Letters: N rays, S samples per ray, M positions."""

from dataclasses import dataclass

import torch

from msth_taichi.model.rays import Rays
from msth_taichi.ops.contract import contract
from msth_taichi.ops.sample_positions import sample_positions


@dataclass(frozen=True)
class Space:
    """Contraction of unbounded space, or a box.

    Args:
        contraction: "inf", "l2", or "none" for a box.
        box: half edge of the box, scene units.
    """

    contraction: str
    box: float

    def to_grid(self, positions: torch.Tensor) -> torch.Tensor:
        """(M, 3) scene units to (M, 3), [0, 1] inside what the grids cover."""
        return contract(positions, self.contraction, self.box)  # type: ignore[arg-type]

    def on_rays(self, rays: Rays, t_edges: torch.Tensor) -> torch.Tensor:
        """(N*S, 3) grid positions of the middles of bins with edges (N, S+1), ray after ray."""
        return sample_positions(rays.origins, rays.directions, t_edges, self.contraction, self.box)  # type: ignore[arg-type]

    def covers(self, grid_positions: torch.Tensor) -> torch.Tensor | None:
        """(M,) whether grid positions (M, 3) lie in the box; None where all of space is covered."""
        if self.contraction != "none":
            return None
        return (grid_positions - 0.5).abs().amax(1) <= 0.5
