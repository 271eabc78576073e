"""Rays of pixels under torch autograd. Letters: N rays, C cameras."""

import torch
from torch.autograd.function import once_differentiable

from msth_taichi.kernels.rays import ray_kernels
from msth_taichi.ops.checks import check


class _Rays(torch.autograd.Function):
    @staticmethod
    def forward(ctx, pixels, camera, camera_to_world, intrinsics, distortion, lens):
        inputs = [x.detach() for x in (pixels, camera, camera_to_world, intrinsics, distortion, lens)]
        origins = pixels.new_empty(len(pixels), 3)
        directions = torch.empty_like(origins)
        if len(pixels):
            ray_kernels(pixels.dtype).forward(*inputs, origins, directions)
        ctx.save_for_backward(*inputs)
        return origins, directions

    @staticmethod
    @once_differentiable
    def backward(ctx, origin_gradient, direction_gradient):
        inputs = ctx.saved_tensors
        pixels, camera_to_world = inputs[0], inputs[2]
        pose_gradient = torch.zeros_like(camera_to_world)
        if len(pixels):
            ray_kernels(pixels.dtype).backward(
                *inputs, origin_gradient.contiguous(), direction_gradient.contiguous(), pose_gradient
            )
        return None, None, pose_gradient, None, None, None


def generate_rays(
    pixels: torch.Tensor,
    camera: torch.Tensor,
    camera_to_world: torch.Tensor,
    intrinsics: torch.Tensor,
    distortion: torch.Tensor,
    lens: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Origins and unit directions of the rays that end in the given pixels.

    With (u, v) = ((px - cx) / fx, (py - cy) / fy), y down, the lens is inverted by Newton's method:

        pinhole          (x, y, 1) = (u, v, 1)
        opencv           u = x q + 2 p1 x y + p2 (r^2 + 2 x^2),  v = y q + 2 p2 x y + p1 (r^2 + 2 y^2),
                         q = (1 + k1 r^2 + k2 r^4 + k3 r^6) / (1 + k4 r^2 + k5 r^4 + k6 r^6),  r^2 = x^2 + y^2
        fisheye          |(u, v)| = a (1 + k1 a^2 + k2 a^4 + k3 a^6 + k4 a^8),  a in [0, pi] from the optical axis
        equirectangular  (sin u cos v, sin v, cos u cos v), u the longitude, v the latitude downwards, radians
        orthographic     (0, 0, 1) from (u, v, 0): fx and fy are pixels per scene unit
        stereo-360       as equirectangular, the left eye's with v + pi/2 where v < 0, below it the right eye's with
                         v - pi/2, from -+k1 (cos u, 0, -sin u): eyes 2 k1 apart on a circle, side by side of each ray

    Then y and z are turned to OpenGL's (y up, looks along -z), and the direction is rotated to the world and
    normalised.

    Args:
        pixels: (N, 2) image coordinates x, y, float32 or float64; the first pixel's centre is (0.5, 0.5).
        camera: (N,) int32 in [0, C), camera of each ray; not checked.
        camera_to_world: (C, 3, 4) pose of each camera, scene units, dtype of pixels.
        intrinsics: (C, 4) fx, fy, cx, cy in pixels, dtype of pixels.
        distortion: (C, 8) k1 to k6, p1, p2, dtype of pixels; opencv reads all, fisheye the first four,
            stereo-360 the first, scene units.
        lens: (C,) int32 code from `msth_taichi.lenses`; rays of one call may differ in lens.
    Returns:
        origins (N, 3) and directions (N, 3) of length 1. Differentiable in camera_to_world.
    Raises:
        TensorError: wrong shape, dtype, device or layout.
    Source: lens models of OpenCV's calib3d and fisheye modules; Google 2015, Rendering Omni-directional Stereo Content.

    Example:
        >>> pose, intrinsics = torch.eye(4)[None, :3].contiguous(), torch.tensor([[100.0, 100.0, 32.0, 24.0]])
        >>> first = torch.zeros(1, dtype=torch.int32)
        >>> centre = torch.tensor([[32.0, 24.0]])
        >>> generate_rays(centre, first, pose, intrinsics, torch.zeros(1, 8), first)[1]
        tensor([[ 0.,  0., -1.]])
    """
    check("pixels", pixels, (None, 2))
    check("camera", camera, (len(pixels),), torch.int32)
    check("camera_to_world", camera_to_world, (None, 3, 4), pixels.dtype)
    cameras = len(camera_to_world)
    check("intrinsics", intrinsics, (cameras, 4), pixels.dtype)
    check("distortion", distortion, (cameras, 8), pixels.dtype)
    check("lens", lens, (cameras,), torch.int32)
    return _Rays.apply(pixels, camera, camera_to_world, intrinsics, distortion, lens)  # type: ignore[no-any-return]
