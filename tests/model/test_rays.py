"""Rays through pixel centres, and the part of them that lies in the box."""

from dataclasses import fields, replace

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


PER_COLUMN = ("harmonics",)  # their rays lie side by side


def a_batch(scene, device: torch.device, ndc: float | None = None) -> Rays:
    """Eleven rays of four cameras, with all that rays can carry but `ndc`, unless a near plane is given."""
    camera = torch.arange(11, device=device) % 4
    pixel = torch.arange(11, device=device)
    return replace(
        camera_rays(scene.cameras.to(device), camera, pixel, pixel, pixel / 11, NEAR, FAR, ndc=ndc), camera=camera
    )


@pytest.mark.parametrize("ndc", [None, 0.1])
def test_every_third_ray_keeps_all_that_is_its_own(tiny_scene, device, ndc):
    rays = a_batch(tiny_scene, device, ndc)
    some = rays[::3]
    assert len(some) == 4
    for field in fields(Rays):
        before, after = getattr(rays, field.name), getattr(some, field.name)
        if before is None:
            assert after is None and field.name == "ndc"
            continue
        assert torch.equal(after, before[:, ::3] if field.name in PER_COLUMN else before[::3]), field.name
    assert len(rays[::1]) == 11


@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize("ndc", [None, 0.1])
def test_every_third_ray_follows_once_more(tiny_scene, device, ndc, bare):
    rays = a_batch(tiny_scene, device, ndc)
    if bare:
        rays = replace(rays, harmonics=None, camera=None)
    more = rays.followed_by_some(3)
    assert len(more) == 11 + 4
    for field in fields(Rays):
        values, whole, some = (getattr(x, field.name) for x in (more, rays, rays[::3]))
        axis = 1 if field.name in PER_COLUMN else 0
        assert (values is None) == (whole is None)
        assert whole is None or torch.equal(values, torch.cat([whole, some], dim=axis)), field.name


def test_rays_that_follow_lead_back_to_no_pose(tiny_scene, device):
    rays = a_batch(tiny_scene, device)
    origins = rays.origins.clone().requires_grad_()
    replace(rays, origins=origins).followed_by_some(3).origins.sum().backward()
    assert origins.grad is not None and (origins.grad == 1).all()


@pytest.mark.parametrize("bare", [False, True])
def test_parts_make_up_the_whole(tiny_scene, device, bare):
    rays = a_batch(tiny_scene, device)
    if bare:
        rays = replace(rays, harmonics=None, camera=None)
    parts = rays.split(4)
    assert [len(part) for part in parts] == [4, 4, 3]
    for field in fields(Rays):
        whole, pieces = getattr(rays, field.name), [getattr(part, field.name) for part in parts]
        if whole is None:
            assert pieces == [None] * 3
        else:
            assert torch.equal(torch.cat(pieces, dim=1 if field.name in PER_COLUMN else 0), whole), field.name


def test_rays_lead_back_to_poses_until_they_are_detached(tiny_scene, device):
    cameras = tiny_scene.cameras.to(device)
    poses = cameras.camera_to_world.clone().requires_grad_()
    zero = torch.zeros(3, dtype=torch.int64, device=device)
    rays = camera_rays(cameras.with_poses(poses), zero, zero, zero, zero.float(), NEAR, FAR, box=1.0)
    free = rays.detach()
    assert rays.origins.requires_grad and rays.directions.requires_grad and rays.harmonics.requires_grad
    assert not rays.near.requires_grad and not rays.far.requires_grad, "where the box begins is no way to turn a camera"
    for field in fields(Rays):
        values = getattr(free, field.name)
        assert values is None or (not values.requires_grad and torch.equal(values, getattr(rays, field.name)))
    assert free.detach() is free
    (rays.directions[:, 0].sum() + rays.origins[:, 1].sum()).backward()
    assert poses.grad[0].abs().max() > 0 and not poses.grad[1:].any()
