"""Normalised device coordinates: what a forward-facing rig sees, as a cube.

Letters: N rays; n the near plane's distance.
"""

import torch


def ndc_rays(
    origins: torch.Tensor, directions: torch.Tensor, near: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rays in normalised device coordinates, in which equal steps are equal steps in disparity.

    A point (x, y, z) in front of a rig that looks along -z becomes

        (x / -z, y / -z, 1 + 2 n / z)        z' = -1 on the near plane z = -n, 1 infinitely far away

    which takes lines to lines. A ray is moved to the near plane, where its parameter is 0; at 1 it is infinitely far.
    Sideways the cube [-1, 1]^3 reaches 45 degrees from the axis.

    Args:
        origins: (N, 3) scene units.
        directions: (N, 3) unit; those with z >= 0 look away, and come back with length 0.
        near: n, scene units.
    Returns:
        origins (N, 3), directions (N, 3), and (N, 2) what `ndc_distance` needs.
    Source: Mildenhall et al. 2020, NeRF, appendix C, for a focal length of half the image.

    Example:
        >>> ndc_rays(torch.zeros(1, 3), torch.tensor([[0.0, 0.0, -1.0]]), near=1.0)[:2]
        (tensor([[ 0.,  0., -1.]]), tensor([[0., 0., 2.]]))
    """
    z, slope = origins[:, 2], directions[:, 2]
    ahead = slope < -1e-6
    slope = torch.where(ahead, slope, -1.0)
    start = origins - ((near + z) / slope)[:, None] * directions
    x0, x1 = start[:, :2] / near, directions[:, :2] / -slope[:, None]
    moved = torch.cat([x0, torch.full_like(x0[:, :1], -1.0)], dim=1)
    way = torch.cat([x1 - x0, torch.full_like(x0[:, :1], 2.0)], dim=1) * ahead[:, None]
    return moved, way, torch.stack([z, slope], dim=1)


def ndc_distance(t: torch.Tensor, depth: torch.Tensor, near: float) -> torch.Tensor:
    """Distance along the unit ray, scene units, of the parameter along a ray of `ndc_rays`.

        z = -n / (1 - t),  distance = (z - o_z) / d_z

    Args:
        t: (N,) in [0, 1].
        depth: (N, 2) o_z and d_z, from `ndc_rays`.
        near: n, scene units.
    """
    z = -near / (1 - t).clamp(min=1e-6)
    return (z - depth[:, 0]) / depth[:, 1]


def ndc_position(distance: torch.Tensor, depth: torch.Tensor, near: float) -> torch.Tensor:
    """Parameter along a ray of `ndc_rays` of a distance along the unit ray: the inverse of `ndc_distance`.

    Args:
        distance: (N,) scene units.
        depth: (N, 2) o_z and d_z, from `ndc_rays`.
        near: n, scene units.
    """
    return 1 + near / (depth[:, 0] + distance * depth[:, 1]).clamp(max=-1e-6)


def ndc_parameter(distance: float, near: float) -> float:
    """Parameter at a depth -z = `distance`: 1 - n / distance.

    Example:
        >>> ndc_parameter(2.0, near=1.0)
        0.5
    """
    return 1 - near / max(distance, near)
