"""The masked space-time encoding as a module: two hash tables and a mask.

Letters: N rays, M samples, L levels, F features per level.
"""

import torch
from torch import nn

from msth_taichi.config import GridConfig
from msth_taichi.grids import GridSpec, mask_spec
from msth_taichi.ops.mask_grid import mask_grid
from msth_taichi.ops.masked_encoding import masked_encoding

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
        self.mask_spec = mask_spec(config.mask_resolution)
        self.static_spec = GridSpec(base[:3], finest[:3], levels, FEATURES, config.log2_static)
        self.dynamic_spec = GridSpec(base, finest, levels, FEATURES, config.log2_dynamic)
        self.static_table = self._table(self.static_spec)
        self.dynamic_table = self._table(self.dynamic_spec)
        self.mask_logits = nn.Parameter(torch.full((self.mask_spec.num_entries, 1), config.mask_init))

    @property
    def num_outputs(self) -> int:
        """L * F."""
        return self.static_spec.num_outputs

    def forward(
        self, positions: torch.Tensor, times: torch.Tensor, compute: torch.dtype, static_only: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Features (L*F, M) of dtype `compute` and mask (M,); see `msth_taichi.ops.masked_encoding`."""
        return masked_encoding(
            positions,
            times,
            self.mask_logits,
            self.static_table,
            self.dynamic_table,
            self.mask_spec,
            self.static_spec,
            self.dynamic_spec,
            "static" if static_only else self.blend,
            compute,
        )

    def mask(self, positions: torch.Tensor) -> torch.Tensor:
        """(M,) how static contracted positions (M, 3) are, without looking up the tables."""
        return mask_grid(positions, self.mask_logits, self.mask_spec)

    def mask_loss(self) -> torch.Tensor:
        """mean over all vertices of 1 - sigmoid(logit): pulls to static where nothing says otherwise."""
        return torch.sigmoid(-self.mask_logits).mean()

    @staticmethod
    def _table(spec: GridSpec) -> nn.Parameter:
        return nn.Parameter(torch.empty(spec.num_entries, spec.features).uniform_(-TABLE_INIT, TABLE_INIT))
