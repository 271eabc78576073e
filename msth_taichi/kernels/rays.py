"""Rays of pixels through six lenses, and the gradient to the cameras' poses.

Letters: N rays, C cameras; (x, y) on the image plane at z = 1 in OpenCV's axes, y down; r its radius,
theta the angle from the optical axis.
"""

from functools import cache
from types import SimpleNamespace

import taichi as ti
import torch

from msth_taichi.kernels.cells import TAICHI_DTYPE
from msth_taichi.kernels.launch import launchers
from msth_taichi.lenses import EQUIRECTANGULAR, FISHEYE, OPENCV, ORTHOGRAPHIC, STEREO_360

# Newton converges quadratically: 5 steps reach float64 on common lenses, the rest serve strong distortion
NEWTON_STEPS = 10
# where the derivative vanishes the lens model folds over, and a step would leave the image
MIN_SLOPE = 1e-3


@cache
def ray_kernels(dtype: torch.dtype) -> SimpleNamespace:
    """Kernels for float32 or float64; see `msth_taichi.ops.rays`."""
    real = TAICHI_DTYPE[dtype]
    vec3 = ti.types.vector(3, real)
    matrix = ti.types.ndarray(dtype=real, ndim=2)
    poses = ti.types.ndarray(dtype=real, ndim=3)
    integers = ti.types.ndarray(dtype=ti.i32, ndim=1)

    @ti.func
    def undistort(u, v, distortion: matrix, c, steps):
        """The (x, y) that radial-tangential distortion moves to (u, v); (u, v) itself after no steps."""
        k1, k2, k3 = distortion[c, 0], distortion[c, 1], distortion[c, 2]
        k4, k5, k6 = distortion[c, 3], distortion[c, 4], distortion[c, 5]
        p1, p2 = distortion[c, 6], distortion[c, 7]
        x, y = u, v
        for _ in range(steps):
            rr = x * x + y * y
            above, below = 1 + rr * (k1 + rr * (k2 + rr * k3)), 1 + rr * (k4 + rr * (k5 + rr * k6))
            radial = above / below
            # twice the derivative of the quotient to r^2
            slope = 2 * (k1 + rr * (2 * k2 + rr * 3 * k3) - radial * (k4 + rr * (2 * k5 + rr * 3 * k6))) / below
            error_x = x * radial + 2 * p1 * x * y + p2 * (rr + 2 * x * x) - u
            error_y = y * radial + 2 * p2 * x * y + p1 * (rr + 2 * y * y) - v
            # the Jacobian is symmetric: [[xx, xy], [xy, yy]]
            xx = radial + slope * x * x + 2 * p1 * y + 6 * p2 * x
            yy = radial + slope * y * y + 2 * p2 * x + 6 * p1 * y
            xy = slope * x * y + 2 * p1 * x + 2 * p2 * y
            determinant = xx * yy - xy * xy
            step = 1 / determinant if ti.abs(determinant) > real(MIN_SLOPE) else ti.cast(0, real)
            x -= (yy * error_x - xy * error_y) * step
            y -= (xx * error_y - xy * error_x) * step
        return x, y

    @ti.func
    def undistort_angle(distorted, distortion: matrix, c, steps):
        """The theta in [0, pi] that the fisheye moves to `distorted`."""
        k1, k2, k3, k4 = distortion[c, 0], distortion[c, 1], distortion[c, 2], distortion[c, 3]
        theta = ti.min(distorted, real(ti.math.pi))
        for _ in range(steps):
            tt = theta * theta
            error = theta * (1 + tt * (k1 + tt * (k2 + tt * (k3 + tt * k4)))) - distorted
            slope = 1 + tt * (3 * k1 + tt * (5 * k2 + tt * (7 * k3 + tt * 9 * k4)))
            step = 1 / slope if ti.abs(slope) > real(MIN_SLOPE) else ti.cast(0, real)
            theta = ti.min(ti.max(theta - error * step, 0), real(ti.math.pi))
        return theta

    @ti.func
    def camera_ray(pixels: matrix, intrinsics: matrix, distortion: matrix, lens: integers, ray, c):
        """Start of a pixel's ray and its direction, not yet of unit length, in the camera's OpenGL axes."""
        x = (pixels[ray, 0] - intrinsics[c, 2]) / intrinsics[c, 0]
        y = (pixels[ray, 1] - intrinsics[c, 3]) / intrinsics[c, 1]
        z = ti.cast(1, real)
        start = vec3(0)
        # Taichi cannot differentiate a loop inside a branch; other lenses take no steps instead
        x, y = undistort(x, y, distortion, c, NEWTON_STEPS if lens[c] == OPENCV else 0)
        r = ti.sqrt(x * x + y * y)
        theta = undistort_angle(r, distortion, c, NEWTON_STEPS if lens[c] == FISHEYE else 0)
        if lens[c] == FISHEYE:
            # on the axis x and y are zero themselves, so that any finite factor will do
            factor = ti.sin(theta) / ti.max(r, real(1e-30))
            x, y, z = x * factor, y * factor, ti.cos(theta)
        elif lens[c] == EQUIRECTANGULAR:
            x, y, z = ti.sin(x) * ti.cos(y), ti.sin(y), ti.cos(x) * ti.cos(y)
        elif lens[c] == STEREO_360:
            left = y < 0
            y += real(0.5 * ti.math.pi) if left else -real(0.5 * ti.math.pi)
            offset = -distortion[c, 0] if left else distortion[c, 0]
            start = offset * vec3(ti.cos(x), 0, ti.sin(x))
            x, y, z = ti.sin(x) * ti.cos(y), ti.sin(y), ti.cos(x) * ti.cos(y)
        elif lens[c] == ORTHOGRAPHIC:
            start = vec3(x, -y, 0)
            x, y = ti.cast(0, real), ti.cast(0, real)
        return start, vec3(x, -y, -z)

    @ti.kernel
    def forward(
        pixels: matrix,  # (N, 2)
        camera: integers,  # (N,)
        camera_to_world: poses,  # (C, 3, 4)
        intrinsics: matrix,  # (C, 4)
        distortion: matrix,  # (C, 8)
        lens: integers,  # (C,)
        origins: matrix,  # (N, 3)
        directions: matrix,  # (N, 3)
    ):
        for ray in range(pixels.shape[0]):
            c = camera[ray]
            start, local = camera_ray(pixels, intrinsics, distortion, lens, ray, c)
            origin = vec3(0)
            world = vec3(0)
            for i in ti.static(range(3)):
                origin[i] = camera_to_world[c, i, 3]
                for j in ti.static(range(3)):
                    origin[i] += camera_to_world[c, i, j] * start[j]
                    world[i] += camera_to_world[c, i, j] * local[j]
            unit = world / ti.sqrt(world.dot(world))
            for i in ti.static(range(3)):
                origins[ray, i] = origin[i]
                directions[ray, i] = unit[i]

    @ti.kernel
    def backward(
        pixels: matrix,
        camera: integers,
        camera_to_world: poses,
        intrinsics: matrix,
        distortion: matrix,
        lens: integers,
        origin_gradient: matrix,  # (N, 3)
        direction_gradient: matrix,
        pose_gradient: poses,  # (C, 3, 4), zero on entry
    ):
        for ray in range(pixels.shape[0]):
            c = camera[ray]
            start, local = camera_ray(pixels, intrinsics, distortion, lens, ray, c)
            world = vec3(0)
            gradient = vec3(0)
            for i in ti.static(range(3)):
                gradient[i] = direction_gradient[ray, i]
                for j in ti.static(range(3)):
                    world[i] += camera_to_world[c, i, j] * local[j]
            length = ti.sqrt(world.dot(world))
            unit = world / length
            gradient = (gradient - unit * unit.dot(gradient)) / length
            for i in ti.static(range(3)):
                pose_gradient[c, i, 3] += origin_gradient[ray, i]
                for j in ti.static(range(3)):
                    pose_gradient[c, i, j] += gradient[i] * local[j] + origin_gradient[ray, i] * start[j]

    return launchers(forward=forward, backward=backward)
