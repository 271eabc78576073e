"""The masked space-time encoding as a module: two hash tables and a mask.

Letters: N rays, M samples, L levels, F features per level.
"""

import torch
from torch import nn

from msth_taichi.config import GridConfig
from msth_taichi.grids import GridSpec, mask_spec
from msth_taichi.model.mlp import MLP
from msth_taichi.model.rays import Rays
from msth_taichi.model.space import Space
from msth_taichi.ops.marching import Regular, marched_density
from msth_taichi.ops.mask_grid import mask_grid
from msth_taichi.ops.masked_encoding import Copies, masked_encoding, masked_encoding_along, masked_encoding_first
from msth_taichi.ops.proposal_density import proposal_density
from msth_taichi.ops.table_sums import TableSums

FEATURES = 2
"""F: two features per entry, as in Instant-NGP and the released MSTH code."""

TABLE_INIT = 1e-4
"""Tables start uniform in [-1e-4, 1e-4]."""


class MaskedEncoding(nn.Module):
    """Static table, dynamic table, and the mask that blends them.

    Args:
        config: levels, resolutions, table and mask sizes, blend.
    """

    def __init__(self, config: GridConfig):
        super().__init__()
        base, finest, levels = config.base_resolution, config.max_resolution, config.levels
        self.blend = config.blend
        self.mask_spec = mask_spec(config.mask_resolution, config.mask_times)
        self.static_spec = GridSpec(base[:3], finest[:3], levels, FEATURES, config.log2_static)
        self.dynamic_spec = GridSpec(base, finest, levels, FEATURES, config.log2_dynamic)
        self.static_table = self._table(self.static_spec)
        self.dynamic_table = self._table(self.dynamic_spec)
        self.mask_logits = nn.Parameter(torch.full((self.mask_spec.num_entries, 1), config.mask_init))
        self.sums: TableSums | None = None
        """Where the tables' gradients are added, for `GridAdam`; None lets them reach autograd."""
        self.copies: Copies | None = None
        """Both tables in float16, once they were read so."""
        self._copied: tuple = ()

    @property
    def num_outputs(self) -> int:
        """L * F."""
        return self.static_spec.num_outputs

    def forward(
        self,
        positions: torch.Tensor,
        times: torch.Tensor,
        compute: torch.dtype,
        static_only: bool = False,
        static_from: int | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Features (L*F, M) of dtype `compute` and mask (M,); see `msth_taichi.ops.masked_encoding`.

        Args:
            positions: (M, 3) in [0, 1].
            times: (N,) in [0, 1].
            compute: float32, or float16.
            static_only: read the static table alone.
            static_from: first sample at which the mask counts as 1.
        """
        blend = "static" if static_only else self.blend
        copies = self.copies_in(compute)
        return masked_encoding(positions, times, *self._tables(), blend, compute, copies, self.sums, static_from)

    def values(
        self,
        number: torch.Tensor,
        aligned: int,
        positions: torch.Tensor,
        times: torch.Tensor,
        mask: torch.Tensor,
        compute: torch.dtype,
        static_only: bool,
    ) -> torch.Tensor:
        """Features (L*F, M) and, into `mask`, masks of the first positions; see `ops.masked_encoding_first`."""
        blend = "static" if static_only else self.blend
        copies = self.copies_in(compute)
        return masked_encoding_first(number, aligned, positions, times, mask, *self._tables(), blend, compute, copies)

    def along(
        self,
        rays: Rays,
        t_edges: torch.Tensor,
        space: Space,
        compute: torch.dtype,
        static_only: bool = False,
        static_from: int | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Features (L*F, M), mask (M,) and grid positions (M, 3) in the middles of bins with edges (N, S+1)."""
        if torch.is_grad_enabled() and (rays.origins.requires_grad or rays.directions.requires_grad):
            positions = space.on_rays(rays, t_edges)
            return *self(positions, rays.times, compute, static_only, static_from), positions.detach()
        return masked_encoding_along(
            rays.origins,
            rays.directions,
            t_edges,
            rays.times,
            *self._tables(),
            "static" if static_only else self.blend,
            space.contraction,  # type: ignore[arg-type]
            space.box,
            compute,
            self.copies_in(compute),
            self.sums,
            static_from,
        )

    def density_logits(
        self,
        rays: Rays,
        t_edges: torch.Tensor,
        mlp: MLP,
        space: Space,
        compute: torch.dtype,
        static_only: bool = False,
    ) -> torch.Tensor:
        """Logits (N, P) of an MLP with one hidden layer along rays, without gradients; see `ops.proposal_density`."""
        return proposal_density(
            rays.origins,
            rays.directions,
            rays.times,
            t_edges,
            *self._tables(),
            mlp.weights[0],
            mlp.weights[1],
            "static" if static_only else self.blend,
            space.contraction,  # type: ignore[arg-type]
            space.box,
            self.copies_in(compute),
        )

    def marched_logits(
        self,
        rays: Rays,
        edges: torch.Tensor | Regular,
        mlp: MLP,
        space: Space,
        compute: torch.dtype,
        static_only: bool,
        occupied: torch.Tensor | None,
        darkness: float,
    ) -> torch.Tensor:
        """The same for edges (P+1, N), as (P, N), and only where it is seen; see `ops.marching`."""
        return marched_density(
            rays.origins,
            rays.directions,
            rays.times,
            edges,
            *self._tables(),
            mlp.weights[0],
            mlp.weights[1],
            "static" if static_only else self.blend,
            space.contraction,  # type: ignore[arg-type]
            space.box,
            self.copies_in(compute),
            occupied,
            darkness,
        )

    def copies_in(self, compute: torch.dtype) -> Copies | None:
        """Both tables in float16, made again where a table was changed by torch; None for float32.

        `GridAdam` writes them as it changes the tables.
        """
        if compute == self.static_table.dtype:
            return None
        tables = self.static_table.detach(), self.dynamic_table.detach()
        state = tuple((t.data_ptr(), t._version) for t in tables)
        if self.copies is None or state != self._copied:
            self.copies = tables[0].to(compute), tables[1].to(compute)
            self._copied = state
        return self.copies

    def sum_in_fixed_point(self) -> None:
        """Keep the tables' gradients from autograd, for `GridAdam` to take."""
        self.sums = TableSums(self.mask_spec, self.static_spec, self.dynamic_spec, self.static_table.device)

    def mask(self, positions: torch.Tensor, times: torch.Tensor | None = None) -> torch.Tensor:
        """(M,) how static contracted positions (M, 3) are at times (N,), without looking up the tables.

        Raises:
            TensorError: no times for a mask that changes with them.
        """
        return mask_grid(positions, self.mask_logits, self.mask_spec, times)

    def mask_loss(self) -> torch.Tensor:
        """mean over all vertices of 1 - sigmoid(logit): pulls to static where nothing says otherwise."""
        return torch.sigmoid(-self.mask_logits).mean()

    def _tables(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, GridSpec, GridSpec, GridSpec]:
        tables = self.mask_logits, self.static_table, self.dynamic_table
        return *tables, self.mask_spec, self.static_spec, self.dynamic_spec

    @staticmethod
    def _table(spec: GridSpec) -> nn.Parameter:
        return nn.Parameter(torch.empty(spec.num_entries, spec.features).uniform_(-TABLE_INIT, TABLE_INIT))
