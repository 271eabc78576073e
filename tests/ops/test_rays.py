"""Rays against OpenCV, against their own projection and the PyTorch twin, and the gradient to poses."""

import numpy as np
import pytest
import torch

from msth_taichi.errors import TensorError
from msth_taichi.kernels.rays import ray_kernels
from msth_taichi.lenses import EQUIRECTANGULAR, FISHEYE, OPENCV, ORTHOGRAPHIC, PINHOLE, STEREO_360
from msth_taichi.ops.rays import generate_rays
from msth_taichi.reference import rays as twin
from tests.comparison import (
    assert_close,
    assert_gradients_close,
    assert_matches,
    assert_safe_autograd,
    taichi_gradients,
)

WIDTH, HEIGHT = 960, 540
DTYPES = [torch.float32, torch.float64]
# what calibrations of real cameras look like, and the mildest and strongest of each lens
INTRINSICS = [
    [700.0, 710.0, 483.1, 266.2],
    [700.0, 710.0, 470.3, 280.9],
    [620.0, 630.0, 475.2, 268.8],
    [330.0, 335.0, 478.8, 271.4],
    [WIDTH / 6.2, HEIGHT / 3.1, WIDTH / 2, HEIGHT / 2],  # not quite around: the seam is two pixels at once
    [90.0, 95.0, 481.0, 268.0],
    [WIDTH / 6.3, HEIGHT / 6.3, WIDTH / 2, HEIGHT / 2],
]
DISTORTION = [
    [0.0] * 8,
    [-0.28, 0.11, -0.02, 0.0, 0.0, 0.0, 1.2e-3, -2.1e-3],
    [0.42, -0.31, 0.052, 0.61, -0.27, 0.018, -8e-4, 1.5e-3],
    [0.05, -0.013, 0.006, -0.0015, 0.0, 0.0, 0.0, 0.0],
    [0.0] * 8,
    [0.0] * 8,
    [0.0325] + [0.0] * 7,
]
LENSES = [PINHOLE, OPENCV, OPENCV, FISHEYE, EQUIRECTANGULAR, ORTHOGRAPHIC, STEREO_360]
COUNT = len(LENSES)


def rig(device: torch.device, dtype=torch.float64, seed=0) -> tuple[torch.Tensor, ...]:
    """Poses, intrinsics, distortion and lens of cameras of every lens."""
    generator = torch.Generator().manual_seed(seed)
    rotation, _ = torch.linalg.qr(torch.randn(COUNT, 3, 3, generator=generator, dtype=torch.float64))
    rotation = rotation * torch.linalg.det(rotation).sign()[:, None, None]
    translation = torch.randn(COUNT, 3, 1, generator=generator, dtype=torch.float64)
    tensors = (torch.cat([rotation, translation], dim=2), torch.tensor(INTRINSICS), torch.tensor(DISTORTION))
    lens = torch.tensor(LENSES, dtype=torch.int32)
    return *(x.to(device, dtype).contiguous() for x in tensors), lens.to(device)


def centred(device: torch.device, dtype=torch.float64) -> tuple[torch.Tensor, ...]:
    """The same cameras, all at the origin in their own axes."""
    pose, *others = rig(device, dtype)
    return torch.eye(4, dtype=dtype, device=device)[:3].repeat(len(pose), 1, 1), *others


def image_grid(device: torch.device, dtype=torch.float64, step=20) -> torch.Tensor:
    """Pixels over the whole image, its borders and corners included."""
    x = torch.linspace(0, WIDTH, WIDTH // step + 1, dtype=dtype)
    y = torch.linspace(0, HEIGHT, HEIGHT // step + 1, dtype=dtype)
    return torch.cartesian_prod(x, y).to(device)


def random_pixels(count: int, device: torch.device, dtype=torch.float64, seed=0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.rand(count, 2, generator=generator, dtype=torch.float64) * torch.tensor([WIDTH, HEIGHT])
    camera = torch.randint(0, COUNT, (count,), generator=generator, dtype=torch.int32)
    return pixels.to(device, dtype), camera.to(device)


def every_camera(pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Each pixel once through each camera, the cameras alternating."""
    camera = torch.arange(COUNT, dtype=torch.int32, device=pixels.device).repeat(len(pixels))
    return pixels.repeat_interleave(COUNT, dim=0), camera


@pytest.mark.parametrize(("dtype", "pixel_error"), [(torch.float64, 1e-9), (torch.float32, 5e-4)], ids=str)
def test_project_undoes_unproject_over_the_whole_image(device, dtype, pixel_error):
    pixels, camera = every_camera(image_grid(device, dtype))
    pose, *lenses = centred(device, dtype)
    origins, directions = generate_rays(pixels, camera, pose, *lenses)
    back = twin.project((origins + directions).double(), camera, *(x.double() for x in lenses[:2]), lenses[2])
    once = lenses[2][camera.long()] != STEREO_360
    assert (back - pixels)[once].abs().max() < pixel_error


@pytest.mark.parametrize("camera", range(4), ids=["pinhole", "opencv", "rational", "fisheye"])
def test_agrees_with_opencv(device, camera):
    """To 1e-4 pixels both ways; tangential terms are given, so that a flipped axis would show."""
    cv2 = pytest.importorskip("cv2")
    pixels = image_grid(device)
    index = torch.full((len(pixels),), camera, dtype=torch.int32, device=device)
    _, directions = generate_rays(pixels, index, *centred(device))
    points = directions.cpu().numpy() * np.array([1.0, -1.0, -1.0])

    fx, fy, cx, cy = INTRINSICS[camera]
    k1, k2, k3, k4, k5, k6, p1, p2 = DISTORTION[camera]
    matrix = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    criteria = (cv2.TERM_CRITERIA_COUNT + cv2.TERM_CRITERIA_EPS, 100, 1e-12)
    observed = pixels.cpu().numpy()[:, None]
    zero = np.zeros(3)
    if LENSES[camera] == FISHEYE:
        coefficients = np.array([k1, k2, k3, k4])
        projected, _ = cv2.fisheye.projectPoints(points[:, None], zero, zero, matrix, coefficients)
        # OpenCV takes every angle above 90 degrees, before it is undistorted, for 90 degrees
        known = np.linalg.norm((observed[:, 0] - [cx, cy]) / [fx, fy], axis=1) < np.pi / 2
        plane = cv2.fisheye.undistortPoints(observed, matrix, coefficients, criteria=criteria)
    else:
        coefficients = np.array([k1, k2, p1, p2, k3, k4, k5, k6])
        projected, _ = cv2.projectPoints(points[:, None], zero, zero, matrix, coefficients)
        plane = cv2.undistortPoints(observed, matrix, coefficients, criteria=criteria)
        known = np.ones(len(plane), dtype=bool)
    assert np.abs(projected[:, 0] - observed[:, 0]).max() < 1e-4
    expected = np.concatenate([plane[:, 0], np.ones((len(plane), 1))], axis=1)[known]
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.abs(points[known] - expected).max() * fx < 1e-4
    assert known.mean() > 0.95


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("count", [0, 1, 7, 500])
def test_matches_reference(device, dtype, count):
    pixels, camera = random_pixels(count, device, dtype, seed=count)
    pose, *lenses = rig(device, dtype)
    tolerance = 1e-6 if dtype == torch.float32 else 1e-13
    assert_matches(
        lambda pose: generate_rays(pixels, camera, pose, *lenses),
        lambda pose: twin.generate_rays(pixels, camera, pose, *lenses),
        [pose.requires_grad_()],
        tolerance,
        10 * tolerance,
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_optical_axis_has_no_nan(device, dtype):
    """theta = 0, where sin(theta) / theta is 0 / 0; and the pixels next to it."""
    pose, intrinsics, distortion, lens = centred(device, dtype)
    camera = torch.arange(COUNT, dtype=torch.int32, device=device)
    for offset in (0.0, 1e-30, 1e-6):
        _, directions = generate_rays(
            intrinsics[:, 2:] + offset, camera, pose.requires_grad_(), intrinsics, distortion, lens
        )
        mono = lens != STEREO_360  # which looks up or down there
        assert_close(directions[mono], torch.tensor([[0.0, 0.0, -1.0]] * (COUNT - 1)), 1e-6)
        (gradient,) = torch.autograd.grad(directions.sum(), pose)
        assert torch.isfinite(gradient).all()


def test_directions_by_hand(device):
    """Columns run right and rows down, while the camera's y axis points up."""
    pose = torch.eye(4, device=device)[None, :3].contiguous()
    intrinsics = torch.tensor([[10.0, 10.0, 20.0, 20.0]], device=device)
    pixels = torch.tensor([[30.0, 20.0], [20.0, 30.0]], device=device)
    camera, plain = torch.zeros(2, dtype=torch.int32, device=device), torch.zeros(1, 8, device=device)
    lens = torch.full((1,), PINHOLE, dtype=torch.int32, device=device)
    _, directions = generate_rays(pixels, camera, pose, intrinsics, plain, lens)
    assert_close(directions, torch.tensor([[1.0, 0, -1], [0, -1, -1]]) / 2**0.5, 1e-6)
    # equidistant: the distance from the centre is the angle, here a quarter turn and more
    pixels = torch.tensor([[20 + 5 * torch.pi, 20.0], [20.0, 20 + 7.5 * torch.pi]], device=device)
    _, directions = generate_rays(pixels, camera, pose, intrinsics, plain, torch.full_like(lens, FISHEYE))
    assert_close(directions, torch.tensor([[1.0, 0, 0], [0, -(0.5**0.5), 0.5**0.5]]), 1e-6)
    # longitude to the right, latitude up: here a quarter turn right, and an eighth down
    pixels = torch.tensor([[20 + 5 * torch.pi, 20.0], [20.0, 20 + 2.5 * torch.pi]], device=device)
    _, directions = generate_rays(pixels, camera, pose, intrinsics, plain, torch.full_like(lens, EQUIRECTANGULAR))
    assert_close(directions, torch.tensor([[1.0, 0, 0], [0, -(0.5**0.5), -(0.5**0.5)]]), 1e-6)
    # parallel rays, ten pixels to a unit
    pixels = torch.tensor([[30.0, 20.0], [20.0, 25.0]], device=device)
    origins, directions = generate_rays(pixels, camera, pose, intrinsics, plain, torch.full_like(lens, ORTHOGRAPHIC))
    assert_close(directions, torch.tensor([[0.0, 0, -1]] * 2), 1e-6)
    assert_close(origins, torch.tensor([[1.0, 0, 0], [0, -0.5, 0]]), 1e-6)


def test_eyes_of_a_stereo_panorama_stand_side_by_side_of_each_ray(device):
    """Ahead, to the right, behind and up, through the left eye's half of the image and the right eye's."""
    pose = torch.eye(4, device=device)[None, :3].contiguous()
    width, height, radius = 80.0, 80.0, 0.25
    intrinsics = torch.tensor([[width, height, 0, 0]], device=device) / (2 * torch.pi)
    intrinsics[:, 2:] = torch.tensor([width / 2, height / 2])
    eyes = torch.tensor([[radius] + [0.0] * 7], device=device)
    lens = torch.full((1,), STEREO_360, dtype=torch.int32, device=device)
    upper = torch.tensor([[40.0, 20.0], [60.0, 20.0], [80.0, 20.0], [40.0, 0.0]], device=device)
    pixels = torch.cat([upper, upper + torch.tensor([0, height / 2], device=device)])
    camera = torch.zeros(8, dtype=torch.int32, device=device)
    origins, directions = generate_rays(pixels, camera, pose, intrinsics, eyes, lens)
    assert_close(directions, torch.tensor([[0.0, 0, -1], [1, 0, 0], [0, 0, 1], [0, 1, 0]] * 2), 1e-6)
    left = torch.tensor([[-radius, 0, 0], [0, 0, -radius], [radius, 0, 0], [-radius, 0, 0]])
    assert_close(origins, torch.cat([left, -left]), 1e-6)


def test_undistorted_lenses_agree_with_the_pinhole(device):
    pixels, camera = random_pixels(50, device)
    pose, intrinsics, distortion, lens = rig(device)
    expected = generate_rays(pixels, camera, pose, intrinsics, distortion, torch.full_like(lens, PINHOLE))
    values = generate_rays(pixels, camera, pose, intrinsics, 0 * distortion, torch.full_like(lens, OPENCV))
    for value, target in zip(values, expected, strict=True):
        assert_close(value, target, 1e-14)


def test_rays_start_at_the_camera_and_have_unit_length(device):
    pixels, camera = random_pixels(50, device)
    pose, *lenses = rig(device)
    origins, directions = generate_rays(pixels, camera, 3 * pose, *lenses)
    central = lenses[2][camera.long()] < ORTHOGRAPHIC
    assert torch.equal(origins[central], 3 * pose[camera.long(), :, 3][central])
    assert_close(torch.linalg.vector_norm(directions, dim=1), torch.ones(50), 1e-14)


def test_pixels_outside_the_lens_stay_finite(device):
    """Where strong distortion folds over, no direction is right, but none may poison a batch."""
    pose, intrinsics, _, _ = centred(device, torch.float32)
    strong = torch.tensor([[-0.6, 0.1, 0, 0, 0, 0, 0.01, 0.01]] * COUNT, device=device)
    pixels = image_grid(device, torch.float32) * 6 - 2000
    for lens in (OPENCV, FISHEYE):
        _, directions = generate_rays(
            *every_camera(pixels),
            pose,
            intrinsics,
            strong,
            torch.full((COUNT,), lens, dtype=torch.int32, device=device),
        )
        assert torch.isfinite(directions).all()
        assert_close(torch.linalg.vector_norm(directions, dim=1), torch.ones(len(directions)), 1e-5)


def test_hand_written_adjoint_equals_taichis():
    cpu = torch.device("cpu")
    pixels, camera = random_pixels(60, cpu)
    inputs = (pixels, camera, *rig(cpu))
    origins, directions = torch.empty(60, 3, dtype=torch.float64), torch.empty(60, 3, dtype=torch.float64)
    gradients = torch.randn_like(origins), torch.randn_like(directions)
    kernels = ray_kernels(torch.float64)
    (expected,) = taichi_gradients(
        kernels.forward, (*inputs, origins, directions), {6: gradients[0], 7: gradients[1]}, (2,)
    )
    pose_gradient = torch.zeros(COUNT, 3, 4, dtype=torch.float64)
    kernels.backward(*inputs, *gradients, pose_gradient)
    assert_gradients_close(pose_gradient, expected, 1e-12)


@pytest.mark.gradcheck
def test_gradcheck(device):
    pixels, camera = random_pixels(12, device)
    pose, *lenses = rig(device)
    assert torch.autograd.gradcheck(lambda pose: generate_rays(pixels, camera, pose, *lenses), (pose.requires_grad_(),))


@pytest.mark.parametrize("output", [0, 1], ids=["origins", "directions"])
def test_safe_under_autograd(device, output):
    pixels, camera = random_pixels(9, device)
    pose, *lenses = rig(device)
    assert_safe_autograd(lambda pose: generate_rays(pixels, camera, pose, *lenses)[output], [pose.requires_grad_()])


def test_typed_errors(device):
    pixels, camera = random_pixels(4, device)
    pose, intrinsics, distortion, lens = rig(device)
    good = [pixels, camera, pose, intrinsics, distortion, lens]
    wrong = {
        0: [pixels.half(), pixels[:, :1].contiguous(), pixels.t().contiguous().t()],
        1: [camera.long(), camera[:3]],
        2: [pose.float(), pose[:, :, :3].contiguous(), pose.transpose(1, 2).contiguous().transpose(1, 2)],
        3: [intrinsics[:2], intrinsics[:, :3].contiguous()],
        4: [distortion[:, :4].contiguous(), distortion.float()],
        5: [lens.long(), lens[:1]],
    }
    names = ["pixels", "camera", "camera_to_world", "intrinsics", "distortion", "lens"]
    for position, tensors in wrong.items():
        for tensor in tensors:
            with pytest.raises(TensorError, match=f"^{names[position]}:"):
                generate_rays(*good[:position], tensor, *good[position + 1 :])
