"""Rays and projections of single cameras, float64 on the host.

Letters: N points, H image height, W image width.
"""

import numpy as np
import torch

from msth_taichi.lenses import EQUIRECTANGULAR, FISHEYE, ORTHOGRAPHIC
from msth_taichi.reference import rays
from msth_taichi.scene.cameras import Cameras


def directions(cameras: Cameras, i: int, pixels: np.ndarray) -> np.ndarray:
    """(N, 3) unit directions, in the axes of camera i, of the rays through its `pixels` (N, 2)."""
    points = torch.from_numpy(np.asarray(pixels, np.float64))
    local = rays.unproject(points, torch.full((len(points),), i), *_lens(cameras)).numpy()
    return local / np.linalg.norm(local, axis=1, keepdims=True)


def grid_directions(cameras: Cameras, i: int, width: int, height: int) -> np.ndarray:
    """(height * width, 3) directions through the pixel centres of a reduced image, in the camera's axes."""
    full = np.array(cameras.size(i), np.float64)
    u, v = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    return directions(cameras, i, np.stack([u.ravel(), v.ravel()], 1) * full / [width, height])


def project(cameras: Cameras, i: int, points: np.ndarray) -> np.ndarray:
    """(N, 2) places of points (N, 3) in the image, as a share of its width and height; NaN outside of it."""
    pose = cameras.camera_to_world[i].double().numpy()
    local = torch.from_numpy((points - pose[:, 3]) @ pose[:, :3])
    pixels = rays.project(local, torch.full((len(points),), i), *_lens(cameras)).numpy()
    place = pixels / np.array(cameras.size(i), np.float64)
    seen = ((place >= 0) & (place < 1)).all(1)
    if int(cameras.lens[i]) not in (FISHEYE, EQUIRECTANGULAR):
        seen &= local[:, 2].numpy() < 0
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
