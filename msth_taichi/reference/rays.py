"""Rays of pixels through six lenses, and points back to pixels, in plain PyTorch.

Letters: N rays, C cameras; (x, y) on the image plane at z = 1 in OpenCV's axes, y down.
"""

import torch

from msth_taichi.lenses import EQUIRECTANGULAR, FISHEYE, OPENCV, ORTHOGRAPHIC, STEREO_360

_STEPS = 20


def generate_rays(
    pixels: torch.Tensor,
    camera: torch.Tensor,
    camera_to_world: torch.Tensor,
    intrinsics: torch.Tensor,
    distortion: torch.Tensor,
    lens: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """See `msth_taichi.ops.rays`."""
    pose = camera_to_world[camera]
    local = unproject(pixels, camera, intrinsics, distortion, lens)
    start = torch.zeros_like(local)
    if (rows := lens[camera] == ORTHOGRAPHIC).any():
        plane = (pixels - intrinsics[camera, 2:]) / intrinsics[camera, :2]
        start[rows, :2] = plane[rows] * plane.new_tensor([1, -1])
    if (rows := lens[camera] == STEREO_360).any():
        start[rows] = _eyes(
            ((pixels - intrinsics[camera, 2:]) / intrinsics[camera, :2])[rows], distortion[camera][rows]
        )
    directions = torch.einsum("nij,nj->ni", pose[:, :, :3], local)
    origins = pose[:, :, 3] + torch.einsum("nij,nj->ni", pose[:, :, :3], start)
    return origins, directions / torch.linalg.vector_norm(directions, dim=1, keepdim=True)


def unproject(
    pixels: torch.Tensor,
    camera: torch.Tensor,
    intrinsics: torch.Tensor,
    distortion: torch.Tensor,
    lens: torch.Tensor,
) -> torch.Tensor:
    """Directions (N, 3) of pixels (N, 2) in the camera's OpenGL axes, not of unit length."""
    intrinsics, distortion, lens = intrinsics[camera], distortion[camera], lens[camera]
    plane = (pixels - intrinsics[:, 2:]) / intrinsics[:, :2]
    ones = torch.ones_like(plane[:, :1])
    directions = torch.cat([plane, ones], dim=1)
    if (rows := lens == OPENCV).any():
        directions[rows] = torch.cat([_undistort(plane[rows], distortion[rows]), ones[rows]], dim=1)
    if (rows := lens == FISHEYE).any():
        directions[rows] = _undistort_fisheye(plane[rows], distortion[rows])
    if (rows := (lens == EQUIRECTANGULAR) | (lens == STEREO_360)).any():
        longitude, latitude = plane[rows].unbind(1)
        quarter = torch.pi * ((latitude < 0).to(latitude) - 0.5)
        latitude = torch.where(lens[rows] == STEREO_360, latitude + quarter, latitude)
        x, z = longitude.sin() * latitude.cos(), longitude.cos() * latitude.cos()
        directions[rows] = torch.stack([x, latitude.sin(), z], dim=1)
    directions[lens == ORTHOGRAPHIC] = directions.new_tensor([0, 0, 1])
    return directions * directions.new_tensor([1, -1, -1])


def project(
    points: torch.Tensor,
    camera: torch.Tensor,
    intrinsics: torch.Tensor,
    distortion: torch.Tensor,
    lens: torch.Tensor,
) -> torch.Tensor:
    """Pixels (N, 2) of points (N, 3) in the camera's OpenGL axes, in front of it (fisheye, panorama: anywhere).

    Not through a stereo panorama, which shows each point twice.
    """
    intrinsics, distortion, lens = intrinsics[camera], distortion[camera], lens[camera]
    x, y, z = (points * points.new_tensor([1, -1, -1])).unbind(1)
    plane = torch.stack([x, y], dim=1) / z[:, None]
    radius = torch.hypot(x, y)
    theta = torch.atan2(radius, z)
    fisheye = torch.stack([x, y], dim=1) * (_distort_angle(theta, distortion) / radius.clamp(min=1e-30))[:, None]
    globe = torch.stack([torch.atan2(x, z), torch.atan2(y, torch.hypot(x, z))], dim=1)
    plane = torch.where((lens == EQUIRECTANGULAR)[:, None], globe, plane)
    plane = torch.where((lens == ORTHOGRAPHIC)[:, None], torch.stack([x, y], dim=1), plane)
    plane = torch.where((lens == OPENCV)[:, None], _distort(plane, distortion), plane)
    plane = torch.where((lens == FISHEYE)[:, None], fisheye, plane)
    return plane * intrinsics[:, :2] + intrinsics[:, 2:]


def _eyes(plane: torch.Tensor, distortion: torch.Tensor) -> torch.Tensor:
    """Where rays (N, 2) of a stereo panorama start, OpenGL axes: on the circle of the left or the right eye."""
    longitude, height = plane.unbind(1)
    offset = torch.where(height < 0, -distortion[:, 0], distortion[:, 0])
    return torch.stack([offset * longitude.cos(), torch.zeros_like(height), offset * longitude.sin()], dim=1)


def _distort(plane: torch.Tensor, distortion: torch.Tensor) -> torch.Tensor:
    x, y = plane.unbind(1)
    k1, k2, k3, k4, k5, k6, p1, p2 = distortion.unbind(1)
    rr = x**2 + y**2
    radial = (1 + k1 * rr + k2 * rr**2 + k3 * rr**3) / (1 + k4 * rr + k5 * rr**2 + k6 * rr**3)
    return torch.stack(
        [
            x * radial + 2 * p1 * x * y + p2 * (rr + 2 * x**2),
            y * radial + 2 * p2 * x * y + p1 * (rr + 2 * y**2),
        ],
        dim=1,
    )


def _undistort(plane: torch.Tensor, distortion: torch.Tensor) -> torch.Tensor:
    point = plane.clone()
    jacobian = torch.func.vmap(torch.func.jacrev(lambda p, k: _distort(p[None], k[None])[0]))
    for _ in range(_STEPS):
        error = _distort(point, distortion) - plane
        point = point - torch.linalg.solve(jacobian(point, distortion), error)
    return point


def _distort_angle(theta: torch.Tensor, distortion: torch.Tensor) -> torch.Tensor:
    k1, k2, k3, k4 = distortion[:, :4].unbind(1)
    return theta * (1 + k1 * theta**2 + k2 * theta**4 + k3 * theta**6 + k4 * theta**8)


def _undistort_fisheye(plane: torch.Tensor, distortion: torch.Tensor) -> torch.Tensor:
    distorted = torch.linalg.vector_norm(plane, dim=1)
    k1, k2, k3, k4 = distortion[:, :4].unbind(1)
    theta = distorted.clamp(max=torch.pi)
    for _ in range(_STEPS):
        slope = 1 + 3 * k1 * theta**2 + 5 * k2 * theta**4 + 7 * k3 * theta**6 + 9 * k4 * theta**8
        theta = (theta - (_distort_angle(theta, distortion) - distorted) / slope).clamp(0, torch.pi)
    factor = torch.sin(theta) / distorted.clamp(min=1e-30)
    return torch.cat([plane * factor[:, None], torch.cos(theta)[:, None]], dim=1)
