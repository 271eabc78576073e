"""Rays through pixel centres, and the part of them that lies in the box."""

import pytest
import torch

from msth_taichi.lenses import PINHOLE
from msth_taichi.model.rays import Rays, camera_rays
from msth_taichi.scene.cameras import make_cameras
from tests.comparison import assert_close

NEAR, FAR = 0.05, 100.0


def ray(device: torch.device, position: list[float], box: float | None, near: float = NEAR, far: float = FAR) -> Rays:
    """One ray from `position` along -z, exactly parallel to two axes."""
    pose = [[[1, 0, 0, position[0]], [0, 1, 0, position[1]], [0, 0, 1, position[2]]]]
    cameras = make_cameras(pose, [[1, 1, 0.5, 0.5]], [[0] * 8], [PINHOLE], [[1, 1]], ["a"]).to(device)
    zero = torch.zeros(1, dtype=torch.int64, device=device)
    return camera_rays(cameras, zero, zero, zero, torch.full((1,), 0.25, device=device), near, far, box)


def test_rays_pass_through_pixel_centres(tiny_scene, device):
    cameras = tiny_scene.cameras.to(device)
    camera = torch.tensor([0, 1, 3, 2], device=device)
    row, column = torch.tensor([0, 17, 5, 9], device=device), torch.tensor([0, 23, 7, 12], device=device)
    times = torch.tensor([0.0, 0.25, 0.5, 0.75], device=device)
    rays = camera_rays(cameras, camera, row, column, times, NEAR, FAR)
    assert len(rays) == 4 and torch.equal(rays.times, times)
    assert_close(rays.directions.norm(dim=1), torch.ones(4, device=device), 1e-6)
    pose = cameras.camera_to_world[camera]
    assert_close(rays.origins, pose[:, :, 3], 1e-6)
    # one unit along -z of the camera, the ray is at the pixel centre of the image plane
    local = torch.einsum("nji,nj->ni", pose[:, :, :3], rays.directions)
    fx, fy, cx, cy = cameras.intrinsics[camera].T
    assert_close(cx - fx * local[:, 0] / local[:, 2], column + 0.5, 1e-5)
    assert_close(cy + fy * local[:, 1] / local[:, 2], row + 0.5, 1e-5)
    assert (rays.near == NEAR).all() and (rays.far == FAR).all()


@pytest.mark.parametrize(
    ("position", "expected"),
    [
        ([0.0, 0.0, 3.0], (2.0, 4.0)),
        ([0.9, -0.9, 5.0], (4.0, 6.0)),
        ([0.0, 0.0, 0.5], (NEAR, 1.5)),  # starts inside
        ([0.0, 0.0, 1.0 + NEAR / 2], (NEAR, 2.0 + NEAR / 2)),
    ],
)
def test_rays_are_clipped_to_the_box(device, position, expected):
    rays = ray(device, position, box=1.0)
    assert rays.near.item() == pytest.approx(expected[0], abs=1e-5)
    assert rays.far.item() == pytest.approx(expected[1], abs=1e-5)


def test_bounds_cut_within_the_box(device):
    rays = ray(device, [0.0, 0.0, 3.0], box=1.0, near=2.5, far=3.5)
    assert (rays.near.item(), rays.far.item()) == (2.5, 3.5)


@pytest.mark.parametrize("position", [[0.0, 1.5, 3.0], [-7.0, 0.0, 3.0], [0.0, 0.0, -3.0], [0.0, 0.0, 500.0]])
def test_a_ray_that_misses_the_box_has_no_length(device, position):
    rays = ray(device, position, box=1.0)
    assert rays.near.item() == rays.far.item()
    assert NEAR <= rays.near.item() <= FAR


def test_slanted_rays_enter_and_leave_on_the_faces(tiny_scene, device):
    """The cameras of the room stand outside a box of 0.2."""
    cameras, box = tiny_scene.cameras.to(device), 0.2
    pixels = torch.arange(24 * 18, device=device)
    rays = camera_rays(cameras, torch.zeros_like(pixels), pixels // 24, pixels % 24, pixels / 432, 1e-3, FAR, box)
    hit = rays.far > rays.near
    assert 0 < hit.sum() < len(rays)
    for t in (rays.near, rays.far):
        ends = (rays.origins + rays.directions * t[:, None])[hit].abs().amax(1)
        assert_close(ends, torch.full_like(ends, box), 1e-4)
    middle = (rays.origins + rays.directions * ((rays.near + rays.far) / 2)[:, None])[hit]
    assert (middle.abs() < box).all()
