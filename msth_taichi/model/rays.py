"""A batch of rays, from pixels of cameras.

Letters: N rays.
"""

from dataclasses import dataclass, replace

import torch

from msth_taichi.model.ndc import ndc_parameter, ndc_rays
from msth_taichi.ops.rays import generate_rays
from msth_taichi.ops.spherical_harmonics import spherical_harmonics
from msth_taichi.scene.cameras import Cameras


@dataclass(frozen=True, eq=False)
class Rays:
    """N rays in scene units.

    Args:
        origins: (N, 3).
        directions: (N, 3) unit.
        times: (N,) in [0, 1].
        near: (N,) distance of the first sample.
        far: (N,) distance of the last sample.
        harmonics: (16, N) spherical harmonics of the directions, where they are at hand.
        ndc: (N, 2) for `ndc_distance`, where origins and directions are normalised device coordinates.
        camera: (N,) int64 whose appearance is wanted; None for the mean of all.
    """

    origins: torch.Tensor
    directions: torch.Tensor
    times: torch.Tensor
    near: torch.Tensor
    far: torch.Tensor
    harmonics: torch.Tensor | None = None
    ndc: torch.Tensor | None = None
    camera: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.origins)

    def __getitem__(self, rows: slice) -> "Rays":
        """Some of the rays."""
        return Rays(
            origins=self.origins[rows].contiguous(),
            directions=self.directions[rows].contiguous(),
            times=self.times[rows].contiguous(),
            near=self.near[rows].contiguous(),
            far=self.far[rows].contiguous(),
            harmonics=None if self.harmonics is None else self.harmonics[:, rows],
            ndc=None if self.ndc is None else self.ndc[rows],
            camera=None if self.camera is None else self.camera[rows],
        )

    def split(self, count: int) -> list["Rays"]:
        """Parts of `count` rays."""
        return [self[first : first + count] for first in range(0, len(self), count)]

    def followed_by_some(self, interval: int) -> "Rays":
        """These rays, and behind them every `interval`-th once more, which takes no gradient."""

        def followed(whole: torch.Tensor, again: torch.Tensor) -> torch.Tensor:
            return torch.cat([whole, again[::interval]])

        still = self.detach()
        return Rays(
            origins=followed(self.origins, still.origins),
            directions=followed(self.directions, still.directions),
            times=followed(self.times, self.times),
            near=followed(self.near, self.near),
            far=followed(self.far, self.far),
            harmonics=None
            if self.harmonics is None or still.harmonics is None
            else torch.cat([self.harmonics, still.harmonics[:, ::interval]], dim=1),
            ndc=None if self.ndc is None else followed(self.ndc, self.ndc),
            camera=None if self.camera is None else followed(self.camera, self.camera),
        )

    def detach(self) -> "Rays":
        """The same rays without gradients."""
        if not self.origins.requires_grad and not self.directions.requires_grad:
            return self
        harmonics = None if self.harmonics is None else self.harmonics.detach()
        return replace(self, origins=self.origins.detach(), directions=self.directions.detach(), harmonics=harmonics)


def camera_rays(
    cameras: Cameras,
    camera: torch.Tensor,
    row: torch.Tensor,
    column: torch.Tensor,
    times: torch.Tensor,
    near: float,
    far: float,
    box: float | None = None,
    ndc: float | None = None,
) -> Rays:
    """Rays through pixel centres.

    Args:
        cameras: on the device of the kernels.
        camera: (N,) row of `cameras`.
        row: (N,) pixel row.
        column: (N,) pixel column.
        times: (N,) in [0, 1].
        near: first distance, scene units.
        far: last distance, scene units.
        box: half edge of a box around the origin that rays are clipped to; None for no box. A ray that misses
            it is left with near = far, so that nothing lies on it.
        ndc: near plane of normalised device coordinates, in which origins and directions then are, and in which
            the box is; None for scene coordinates.

    Example:
        >>> pixel = torch.tensor([3])
        >>> len(camera_rays(scene.cameras, torch.tensor([0]), pixel, pixel, torch.tensor([0.5]), 0.05, 10.0))
        1
    """
    pixels = torch.stack([column, row], dim=1).float() + 0.5
    origins, directions = generate_rays(
        pixels,
        camera.int(),
        cameras.camera_to_world,
        cameras.intrinsics,
        cameras.distortion,
        cameras.lens,
    )
    harmonics, depth = spherical_harmonics(directions), None
    if ndc is not None:
        origins, directions, depth = ndc_rays(origins, directions, ndc)
        near, far = ndc_parameter(near, ndc), ndc_parameter(far, ndc)
    nears, fars = torch.full_like(times, near), torch.full_like(times, far)
    if box is not None:
        with torch.no_grad():
            inverse = 1 / torch.where(directions.abs() < 1e-9, 1e-9, directions)
            a, b = (-box - origins) * inverse, (box - origins) * inverse
            nears = torch.minimum(a, b).amax(1).clamp(near, far)
            fars = torch.maximum(torch.maximum(a, b).amin(1).clamp(near, far), nears)
    return Rays(origins, directions, times, nears, fars, harmonics, depth)
