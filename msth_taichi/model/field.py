"""The main field and the proposal field: samples along rays to density and colour.

Letters: N rays, S samples per ray, M = N*S samples.
"""

import math
from dataclasses import dataclass

import torch
from torch import nn

from msth_taichi.config import FieldConfig, GridConfig, ProposalConfig
from msth_taichi.model.corrections import Appearances
from msth_taichi.model.encoding import MaskedEncoding
from msth_taichi.model.mlp import MLP, FlatWeights, radiance, truncated_exp
from msth_taichi.model.rays import Rays
from msth_taichi.model.space import Space
from msth_taichi.ops.marching import Regular
from msth_taichi.ops.spherical_harmonics import spherical_harmonics
from msth_taichi.thresholds import EMPTY_LOGIT

_HARMONICS = 16  # degree 4


@dataclass
class FieldSamples:
    """What a field says of M samples.

    Args:
        density_logits: (M,) of the field's compute dtype.
        mask: (M,) float32, 1 is static.
        positions: (M, 3) where they lie in the grids, detached.
        color_logits: (3, M); None of a proposal.
    """

    density_logits: torch.Tensor
    mask: torch.Tensor
    positions: torch.Tensor
    color_logits: torch.Tensor | None = None

    @property
    def density(self) -> torch.Tensor:
        """(M,) float32, per scene unit."""
        return truncated_exp(self.density_logits.float())

    @property
    def color(self) -> torch.Tensor:
        """(3, M) float32 in [0, 1]."""
        assert self.color_logits is not None, "a proposal has no colour"
        return torch.sigmoid(self.color_logits.float())


class Field(nn.Module):
    """An encoding and the MLPs that read it.

    Args:
        config: sizes.
        outputs: of the density MLP, whose first is the density's logit.
        space: contraction or box.
    """

    def __init__(self, config: GridConfig, outputs: int, space: Space):
        super().__init__()
        self.space = space
        self.encoding = MaskedEncoding(config)
        self.density_mlp = MLP(self.encoding.num_outputs, config.hidden, outputs)
        self.flat: FlatWeights | None = None

    def mlps(self) -> list[MLP]:
        """All MLPs, in the order in which they run."""
        return [module for module in self.children() if isinstance(module, MLP)]

    def keep_gradients(self, compute: torch.dtype) -> None:
        """Keep all gradients from autograd, for `GridAdam` to take: those of tables and mask summed in fixed point,
        those of MLPs in dtype `compute`. Call it when the field is on its device."""
        self.encoding.sum_in_fixed_point()
        self.flat = FlatWeights(self.mlps(), compute)


class ProposalField(Field):
    """Density only: masked and time-dependent like the main field, but small.

    Args:
        config: sizes.
        space: contraction or box.
    """

    def __init__(self, config: ProposalConfig, space: Space):
        super().__init__(config, 1, space)

    def forward(
        self, rays: Rays, t_edges: torch.Tensor, compute: torch.dtype, static_only: bool = False
    ) -> FieldSamples:
        """Density and mask in the middles of bins with edges (N, P+1), ray after ray."""
        features, mask, positions = self.encoding.along(rays, t_edges, self.space, compute, static_only)
        return self._density(features, mask, positions)

    def density_logits(
        self, rays: Rays, t_edges: torch.Tensor, compute: torch.dtype, static_only: bool = False
    ) -> torch.Tensor:
        """(N, P) float32 for bins with edges (N, P+1), in one launch and without gradients."""
        return self.encoding.density_logits(rays, t_edges, self.density_mlp, self.space, compute, static_only)

    def marched_logits(
        self,
        rays: Rays,
        edges: torch.Tensor | Regular,
        compute: torch.dtype,
        static_only: bool = False,
        occupied: torch.Tensor | None = None,
        darkness: float = math.inf,
    ) -> torch.Tensor:
        """(P, N) float32 for bins with edges (P+1, N), where it is seen; see `ops.marching`."""
        return self.encoding.marched_logits(
            rays, edges, self.density_mlp, self.space, compute, static_only, occupied, darkness
        )

    def at(
        self, positions: torch.Tensor, times: torch.Tensor, compute: torch.dtype, static_only: bool = False
    ) -> FieldSamples:
        """Density and mask at grid positions (M, 3) and times (N,), each that of M / N positions."""
        features, mask = self.encoding(positions, times, compute, static_only)
        return self._density(features, mask, positions)

    def _density(self, features: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor) -> FieldSamples:
        return FieldSamples(_kept(self.density_mlp(features)[0], self.space.covers(positions)), mask, positions)


class MaskedField(Field):
    """Density and colour of a moving scene.

        e = masked encoding of (x, t);  (s, g) = MLP(e);  density = exp(s);  colour = sigmoid(MLP(SH(d), 1, g))

    Args:
        config: sizes.
        space: contraction or box.
        appearances: vectors per camera that join the harmonics; None for none.
    Source: Wang et al. 2023, Masked Space-Time Hash Encoding, and its released code.
    """

    def __init__(self, config: FieldConfig, space: Space, appearances: Appearances | None = None):
        super().__init__(config, 1 + config.geometry_features, space)
        per_ray = _HARMONICS + (0 if appearances is None else appearances.values.shape[1])
        self.color_mlp = MLP(per_ray + 1 + config.geometry_features, config.hidden_color, config.hidden_color, 3)
        self.appearances = appearances

    def forward(
        self,
        rays: Rays,
        t_edges: torch.Tensor,
        compute: torch.dtype,
        static_only: bool = False,
        static_from: int | None = None,
    ) -> FieldSamples:
        """Density, mask and colour in the middles of bins, ray after ray.

        Args:
            rays: N rays.
            t_edges: (N, S+1) distances, scene units.
            compute: dtype of features and MLPs.
            static_only: read the static table alone.
            static_from: first sample at which the mask counts as 1.
        """
        encoded = self.encoding.along(rays, t_edges, self.space, compute, static_only, static_from)
        features, mask, positions = encoded
        density, color = radiance(features, self.per_ray(rays), self.density_mlp, self.color_mlp)
        return FieldSamples(_kept(density, self.space.covers(positions)), mask, positions, color)

    def geometry(self, features: torch.Tensor, positions: torch.Tensor, out: torch.Tensor) -> None:
        """Write density logits and below them what the colour depends on beside the ray. Not differentiated.

        Args:
            features: (L*F, M) of the encoding.
            positions: (M, 3) grid coordinates.
            out: (1+G, M) of the dtype of features; may be a part of wider rows.
        """
        self.density_mlp.values(features, out)
        covered = self.space.covers(positions)
        if covered is not None:
            out[0] = _kept(out[0], covered)

    def per_ray(self, rays: Rays) -> torch.Tensor:
        """(B, N) what the colour of all samples of a ray depends on: harmonics of its direction, and its appearance."""
        harmonics = spherical_harmonics(rays.directions) if rays.harmonics is None else rays.harmonics
        if self.appearances is not None:
            harmonics = torch.cat([harmonics, self.appearances(rays.camera, len(rays)).to(harmonics.dtype)])
        return harmonics


def _kept(logits: torch.Tensor, covered: torch.Tensor | None) -> torch.Tensor:
    """Logits (M,), of no density outside the box."""
    return logits if covered is None else torch.where(covered, logits, EMPTY_LOGIT)
