"""The main field and the proposal field: positions, times and directions to density and colour.

Letters: N rays, S samples per ray, M = N*S samples.
"""

from dataclasses import dataclass

import torch
from torch import nn

from msth_taichi.config import FieldConfig, GridConfig, ProposalConfig
from msth_taichi.model.encoding import MaskedEncoding
from msth_taichi.model.mlp import MLP, truncated_exp
from msth_taichi.ops.contract import contract
from msth_taichi.ops.spherical_harmonics import spherical_harmonics

_HARMONICS = 16  # degree 4


@dataclass(frozen=True)
class Space:
    """How scene coordinates become grid coordinates.

    Args:
        contraction: "inf", "l2", or "none" for a box.
        box: half edge of the box, scene units.
    """

    contraction: str
    box: float

    def to_grid(self, positions: torch.Tensor) -> torch.Tensor:
        """(M, 3) scene units to (M, 3), [0, 1] inside what the grids cover."""
        return contract(positions, self.contraction, self.box)  # type: ignore[arg-type]


@dataclass
class FieldSamples:
    """What a field says of M samples.

    Args:
        density: (M,) float32, per scene unit.
        mask: (M,) float32, 1 is static.
        color: (3, M) float32 in [0, 1]; None of a proposal.
    """

    density: torch.Tensor
    mask: torch.Tensor
    color: torch.Tensor | None = None


class _DensityField(nn.Module):
    def __init__(self, config: GridConfig, outputs: int, space: Space):
        super().__init__()
        self.space = space
        self.encoding = MaskedEncoding(config)
        self.density_mlp = MLP(self.encoding.num_outputs, config.hidden, outputs)

    def density(
        self, positions: torch.Tensor, times: torch.Tensor, compute: torch.dtype, static_only: bool
    ) -> tuple[FieldSamples, torch.Tensor]:
        """Density and mask, and all outputs (outputs, M) of the MLP, whose first is the density's logit."""
        grid_positions = self.space.to_grid(positions)
        features, mask = self.encoding(grid_positions, times, compute, static_only)
        outputs = self.density_mlp(features)
        density = truncated_exp(outputs[0].float())
        if self.space.contraction == "none":
            inside = ((grid_positions >= 0) & (grid_positions <= 1)).all(dim=1)
            density = density * inside
        return FieldSamples(density, mask), outputs


class ProposalField(_DensityField):
    """Density only: masked and time-dependent like the main field, but small.

    Args:
        config: sizes.
        space: contraction or box.
    """

    def __init__(self, config: ProposalConfig, space: Space):
        super().__init__(config, 1, space)

    def forward(
        self, positions: torch.Tensor, times: torch.Tensor, compute: torch.dtype, static_only: bool = False
    ) -> FieldSamples:
        """Density and mask of positions (M, 3), scene units, at times (N,)."""
        return self.density(positions, times, compute, static_only)[0]


class MaskedField(_DensityField):
    """Density and colour of a moving scene.

        e = masked encoding of (x, t);  (s, g) = MLP(e);  density = exp(s);  colour = sigmoid(MLP(SH(d), g))

    Args:
        config: sizes.
        space: contraction or box.
    Source: Wang et al. 2023, Masked Space-Time Hash Encoding, and its released code.
    """

    def __init__(self, config: FieldConfig, space: Space):
        super().__init__(config, 1 + config.geometry_features, space)
        # the constant input stands for the bias that tiny-cuda-nn's padding gives
        self.color_mlp = MLP(_HARMONICS + 1 + config.geometry_features, config.hidden_color, config.hidden_color, 3)

    def forward(
        self,
        positions: torch.Tensor,
        times: torch.Tensor,
        directions: torch.Tensor,
        compute: torch.dtype,
        static_only: bool = False,
    ) -> FieldSamples:
        """Density, mask and colour of samples, ray after ray.

        Args:
            positions: (M, 3) scene units, M = N*S.
            times: (N,) in [0, 1].
            directions: (N, 3) unit.
            compute: dtype of features and MLPs.
            static_only: read the static table alone.
        """
        samples, outputs = self.density(positions, times, compute, static_only)
        per_ray = torch.cat([spherical_harmonics(directions), torch.ones_like(directions[:, :1]).T]).to(compute)
        # the first layer is linear: its part that depends on the ray alone is computed once per ray
        first, *rest = self.color_mlp.weights
        split = len(per_ray)
        of_ray = first[:, :split].to(compute) @ per_ray
        of_sample = first[:, split:].to(compute) @ outputs[1:]
        hidden = of_sample.view(len(first), len(directions), -1) + of_ray[:, :, None]
        x = hidden.view(len(first), -1)
        for weight in rest:
            x = weight.to(compute) @ torch.relu_(x)
        samples.color = torch.sigmoid(x.float())
        return samples
