"""The same cameras with other lenses and images.

Letters: C cameras.
"""

import math
import re
from dataclasses import replace

import numpy as np
import torch

from msth_taichi.errors import RunError
from msth_taichi.lenses import EQUIRECTANGULAR, FISHEYE, LENS_NAMES, ORTHOGRAPHIC, STEREO_360
from msth_taichi.scene.cameras import Cameras

LENSES = tuple(name for name in LENS_NAMES if name != "opencv")
"""What a path can be seen through instead of its own lens."""

LARGEST_SIZE = 16384
"""Pixels along an edge."""

EYE_DISTANCE = 0.065
"""Between the eyes of a stereo panorama, the user's units where those are metres."""

_PANORAMAS = (EQUIRECTANGULAR, STEREO_360)


def parse_lens(name: str) -> int:
    """The code of a lens that a path can be seen through.

    Raises:
        RunError: there is none of that name.
    """
    if name not in LENSES:
        raise RunError(f"--lens {name}: unknown lens; use one of {', '.join(LENSES)}")
    return LENS_NAMES.index(name)


def parse_size(size: str | tuple[int, int]) -> tuple[int, int]:
    """Width and height, pixels, from those or from a text such as "960x540".

    Raises:
        RunError: not two numbers within range.
    """
    text = size if isinstance(size, str) else "x".join(map(str, size))
    match = re.fullmatch(r"(\d{1,9})x(\d{1,9})", text)
    width, height = (int(part) for part in match.groups()) if match else (0, 0)
    if not (1 <= width <= LARGEST_SIZE and 1 <= height <= LARGEST_SIZE):
        raise RunError(f"--size {text:.40}: not a size; use WIDTHxHEIGHT up to {LARGEST_SIZE}, such as 960x540")
    return width, height


def with_lens(cameras: Cameras, lens: int, up: np.ndarray, target: np.ndarray, eye_distance: float) -> Cameras:
    """Cameras at the same places, seen through another lens; those that have it stay as they are.

    A pinhole keeps the focal length of perspective and fisheye cameras, and so the size of what is in the middle of
    the image; of others it sees 90 degrees across. A fisheye sees 180 degrees across the shorter edge.
    Orthographic cameras keep the size of what is as far as `target`. Panoramas are twice as wide as high (stereo
    panoramas square, an eye above the other), and upright.

    Args:
        cameras: C.
        lens: code of `msth_taichi.lenses`.
        up: (3,) unit, scene coordinates; what panoramas have above.
        target: (3,) what orthographic cameras look at, scene units.
        eye_distance: of stereo panoramas, scene units.

    Example:
        >>> with_lens(scene.cameras, EQUIRECTANGULAR, np.array([0.0, 0.0, 1.0]), np.zeros(3), 0.0).size(0)
        (192, 96)
    """
    known = torch.tensor([*_PANORAMAS, ORTHOGRAPHIC], dtype=cameras.lens.dtype)
    width, height = cameras.sizes.float().unbind(1)
    # pixels per radian in the middle
    wide = torch.isin(cameras.lens, known)[:, None]
    focal = torch.where(wide, width[:, None] / 2, cameras.intrinsics[:, :2])
    centre = torch.where(wide, cameras.sizes / 2, cameras.intrinsics[:, 2:])
    poses, sizes, distortion = cameras.camera_to_world, cameras.sizes, torch.zeros_like(cameras.distortion)
    if lens == FISHEYE:
        focal, centre = (torch.minimum(width, height) / math.pi)[:, None].expand(-1, 2), sizes / 2
    elif lens == ORTHOGRAPHIC:
        distance = torch.linalg.vector_norm(poses[:, :, 3] - torch.from_numpy(target).float(), dim=1)
        focal = focal / distance.clamp(min=1e-6)[:, None]
    elif lens in _PANORAMAS:
        poses, sizes = _upright(poses, up), _panorama_sizes(cameras, lens)
        distortion[:, 0] = eye_distance / 2 if lens == STEREO_360 else 0.0
        focal, centre = panorama_focals(sizes, lens), sizes / 2
    made = replace(
        cameras,
        camera_to_world=poses,
        intrinsics=torch.cat([focal, centre], dim=1),
        distortion=distortion,
        lens=torch.full_like(cameras.lens, lens),
        sizes=sizes,
    )
    return _choose(cameras.lens == lens, cameras, made)


def with_size(cameras: Cameras, size: tuple[int, int]) -> Cameras:
    """Cameras with images of another width and height.

    Panoramas show all around as before; others keep their vertical field of view, and show more or less to the sides.
    """
    new = torch.tensor([size]).expand(len(cameras), 2).clone()
    ratio = new / cameras.sizes
    panorama = torch.isin(cameras.lens, torch.tensor(_PANORAMAS, dtype=cameras.lens.dtype))[:, None]
    ratio = torch.where(panorama, ratio, ratio[:, 1:])
    centre = new / 2 + (cameras.intrinsics[:, 2:] - cameras.sizes / 2) * ratio
    intrinsics = torch.cat([cameras.intrinsics[:, :2] * ratio, centre], dim=1).float()
    return replace(cameras, intrinsics=intrinsics, sizes=new)


def panorama_focals(sizes: torch.Tensor, lens: int) -> torch.Tensor:
    """(C, 2) pixels per radian of panoramas that show all around in images of sizes (C, 2)."""
    around = torch.tensor([2 * math.pi, math.pi if lens == EQUIRECTANGULAR else 2 * math.pi])
    return sizes / around


def _panorama_sizes(cameras: Cameras, lens: int) -> torch.Tensor:
    """(C, 2) as high, for each eye, as the image was."""
    width, height = cameras.sizes.unbind(1)
    height = torch.where(cameras.lens == STEREO_360, height // 2, height)
    width = torch.where(torch.isin(cameras.lens, torch.tensor(_PANORAMAS, dtype=cameras.lens.dtype)), width, 2 * height)
    return torch.stack([width, height * (2 if lens == STEREO_360 else 1)], dim=1)


def _upright(poses: torch.Tensor, up: np.ndarray) -> torch.Tensor:
    """Poses (C, 3, 4) that look level, where they looked before."""
    above = torch.from_numpy(up).double().expand(len(poses), 3)
    back, top = poses[:, :, 2].double(), poses[:, :, 1].double()
    # who looks straight up or down has the image's upper edge ahead or behind
    steep = (back * above).sum(1).abs() > 1 - 1e-6
    back = torch.where(steep[:, None], top * (back * above).sum(1, keepdim=True).sign() * -1, back)
    right = torch.linalg.cross(above, back)
    right = right / torch.linalg.vector_norm(right, dim=1, keepdim=True)
    level = torch.stack([right, above, torch.linalg.cross(right, above)], dim=2)
    return torch.cat([level.to(poses), poses[:, :, 3:]], dim=2)


def _choose(kept: torch.Tensor, first: Cameras, second: Cameras) -> Cameras:
    """Of each camera the first where `kept` (C,), else the second."""
    names = ("camera_to_world", "intrinsics", "distortion", "lens", "sizes")
    chosen = {}
    for name in names:
        a, b = getattr(first, name), getattr(second, name)
        chosen[name] = torch.where(kept.view(-1, *[1] * (a.ndim - 1)), a, b)
    return replace(first, **chosen)
