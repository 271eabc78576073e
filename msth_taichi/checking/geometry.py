"""Rays and projections of single cameras, float64 on the host.

Letters: N points, H image height, W image width.
"""

import numpy as np
import torch

from msth_taichi.lenses import EQUIRECTANGULAR, FISHEYE, ORTHOGRAPHIC, PINHOLE
from msth_taichi.reference import rays
from msth_taichi.scene.cameras import Cameras


def directions(cameras: Cameras, i: int, pixels: np.ndarray) -> np.ndarray:
    """(N, 3) unit directions, in the axes of camera i, of the rays through its `pixels` (N, 2)."""
    pixels = np.asarray(pixels, np.float64)
    if int(cameras.lens[i]) == PINHOLE:  # most cameras: the general way takes ten times as long
        plane = (pixels - _numpy(cameras.intrinsics[i, 2:])) / _numpy(cameras.intrinsics[i, :2])
        local = np.stack([plane[:, 0], -plane[:, 1], np.full(len(plane), -1.0)], 1)
    else:
        local = rays.unproject(torch.from_numpy(pixels), torch.full((len(pixels),), i), *_lens(cameras)).numpy()
    return local / np.linalg.norm(local, axis=1, keepdims=True)


def grid_directions(cameras: Cameras, i: int, width: int, height: int) -> np.ndarray:
    """(height * width, 3) directions through the pixel centres of a reduced image, in the camera's axes."""
    full = np.array(cameras.size(i), np.float64)
    u, v = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    return directions(cameras, i, np.stack([u.ravel(), v.ravel()], 1) * full / [width, height])


def project(cameras: Cameras, i: int, points: np.ndarray) -> np.ndarray:
    """(N, 2) places of points (N, 3) in the image, as a share of its width and height; NaN outside of it."""
    pose = cameras.camera_to_world[i].double().numpy()
    local = (points - pose[:, 3]) @ pose[:, :3]
    if int(cameras.lens[i]) == PINHOLE:
        plane = local[:, :2] / np.maximum(-local[:, 2:], 1e-9) * [1, -1]
        pixels = plane * _numpy(cameras.intrinsics[i, :2]) + _numpy(cameras.intrinsics[i, 2:])
    else:
        pixels = rays.project(torch.from_numpy(local), torch.full((len(points),), i), *_lens(cameras)).numpy()
    place = pixels / np.array(cameras.size(i), np.float64)
    seen = np.all((place >= 0) & (place < 1), axis=1)
    if int(cameras.lens[i]) not in (FISHEYE, EQUIRECTANGULAR):
        seen = seen & (local[:, 2] < 0)
    return np.where(seen[:, None], place, np.nan)


def focal(cameras: Cameras, i: int) -> float:
    """Pixels per radian at the centre of the image."""
    return float(cameras.intrinsics[i, :2].mean())


def central(cameras: Cameras, i: int) -> bool:
    """Whether all rays start in one point."""
    return int(cameras.lens[i]) != ORTHOGRAPHIC


def half_plane(vectors: np.ndarray, axis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The half plane around `axis` in which each vector lies, and how steeply it leaves the axis.

    Rays of two cameras to one point lie in the same half plane around the line through both centres.

    Args:
        vectors: (N, 3) unit.
        axis: (3,).
    Returns:
        angle (N,) in (-pi, pi], and sine (N,) of the angle to the axis.
    """
    axis = axis / np.linalg.norm(axis)
    first = np.cross(axis, np.eye(3)[np.abs(axis).argmin()])
    first /= np.linalg.norm(first)
    second = np.cross(axis, first)
    p, q = vectors @ first, vectors @ second
    return np.arctan2(p, q), np.hypot(p, q)


def _lens(cameras: Cameras) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return cameras.intrinsics.double(), cameras.distortion.double(), cameras.lens


def _numpy(values: torch.Tensor) -> np.ndarray:
    return values.double().numpy()
