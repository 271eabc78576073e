"""What is learnt of each camera: it starts as nothing, reaches the cameras of the rays alone, and keeps its mean."""

import pytest
import torch

from msth_taichi.model.corrections import Appearances, CameraColors, CameraPoses, rotation_matrices
from tests.comparison import assert_close

TRAINED = (0, 1, 3)  # rows of four cameras; the third is held out


@pytest.fixture
def cameras(device) -> torch.Tensor:
    return torch.tensor(TRAINED, device=device)


def rough(part: torch.nn.Module, size: float = 0.3, seed: int = 0) -> torch.nn.Module:
    """The same part with random values."""
    values = torch.rand(part.values.shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    part.values.data.copy_(size * values)
    return part


def cross_matrix(vectors: torch.Tensor) -> torch.Tensor:
    """[w]x, for which [w]x a = w x a, row by row."""
    axes = torch.eye(3, dtype=vectors.dtype).expand(len(vectors), 3, 3)
    return torch.cross(vectors[:, None].expand_as(axes), axes, dim=2).transpose(1, 2)


def vectors_of(angles: list[float], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    axes = torch.randn(len(angles), 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return (axes / axes.norm(dim=1, keepdim=True) * torch.tensor(angles, dtype=torch.float64)[:, None]).to(dtype)


ANGLES = [0.0, 1e-8, 1e-4, 3e-3, 9.99e-3, 1.001e-2, 0.02, 0.5, 1.5, 3.1, 3.2, 7.0]


def test_rotations_are_the_exponential_of_the_cross_matrix():
    vectors = vectors_of(ANGLES)
    rotations = rotation_matrices(vectors)
    expected = torch.matrix_exp(cross_matrix(vectors.double()))
    assert (rotations - expected).abs().max() < 1e-6
    assert torch.equal(rotations[0], torch.eye(3))
    assert (rotations @ rotations.transpose(1, 2) - torch.eye(3)).abs().max() < 1e-6
    assert (torch.linalg.det(rotations) - 1).abs().max() < 1e-6


def test_slopes_of_rotations_are_those_of_the_exponential():
    """Also at no angle at all, where |w| itself has none."""
    vectors = vectors_of(ANGLES)
    weights = torch.randn(len(vectors), 3, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    mine, exact = vectors.clone().requires_grad_(), vectors.double().requires_grad_()
    (rotation_matrices(mine) * weights.float()).sum().backward()
    (torch.matrix_exp(cross_matrix(exact)) * weights).sum().backward()
    assert mine.grad.isfinite().all()
    assert (mine.grad - exact.grad).abs().max() < 2e-4  # (1 - cos a) / a^2 loses digits at a = 0.01
    assert mine.grad[0].abs().min() > 0


@pytest.mark.gradcheck
def test_slopes_of_rotations_are_those_of_finite_differences():
    assert torch.autograd.gradcheck(rotation_matrices, vectors_of(ANGLES, torch.float64).requires_grad_())


def test_colours_start_as_they_are(cameras, device):
    tint = CameraColors(cameras).to(device)(torch.tensor([3, 0, 2, 3], device=device))
    assert torch.equal(tint, torch.tensor([1.0, 1, 1, 0, 0, 0], device=device).expand(4, 6))


def test_colours_are_those_of_each_rays_camera_around_the_mean(cameras, device):
    colors = rough(CameraColors(cameras)).to(device)
    tint = colors(torch.tensor([3, 0, 2, 1, 3], device=device)).detach()
    own = colors.values.detach() - colors.values.detach().mean(0)
    identity = torch.tensor([1.0, 1, 1, 0, 0, 0], device=device)
    assert_close(tint, identity + torch.stack([own[2], own[0], 0 * own[0], own[1], own[2]]), 1e-6)
    assert torch.equal(tint[2], identity), "a camera that is held out has the colours of the scene"
    of_trained = colors(cameras).detach()
    assert_close(of_trained.mean(0), identity, 1e-6)


def test_gradients_reach_the_cameras_of_the_rays_alone(cameras, device):
    """But for the mean, in which all cameras have an equal part."""
    colors = rough(CameraColors(cameras)).to(device)
    weights = torch.randn(5, 6, generator=torch.Generator().manual_seed(3)).to(device)
    camera = torch.tensor([0, 3, 0, 2, 0], device=device)
    (colors(camera) * weights).sum().backward()
    of_row = {0: weights[[0, 2, 4]].sum(0), 1: torch.zeros(6, device=device), 3: weights[1]}
    direct = torch.stack([of_row[i] for i in TRAINED])
    assert_close(colors.values.grad, direct - direct.mean(0), 1e-5)
    assert colors.values.grad.sum(0).abs().max() < 1e-5, "nothing moves all cameras together"
    colors.zero_grad()
    colors(torch.tensor([2, 2], device=device)).sum().backward()
    assert not colors.values.grad.any()


def test_the_prior_of_colours_by_hand(cameras):
    colors = CameraColors(cameras.cpu())
    assert colors.prior() == 0
    colors.values.data[1, 4] = 0.6
    colors.values.data[2, 0] = -0.3
    assert colors.prior().item() == pytest.approx((0.36 + 0.09) / 18)
    colors.prior().backward()
    expected = torch.zeros(3, 6)
    expected[1, 4], expected[2, 0] = 1.2 / 18, -0.6 / 18
    assert_close(colors.values.grad, expected, 1e-6)


def test_poses_start_as_they_are(cameras, tiny_scene, device):
    given = tiny_scene.cameras.camera_to_world.to(device)
    assert torch.equal(CameraPoses(cameras).to(device)(given), given)


def test_poses_turn_about_the_worlds_axes_and_shift(cameras, tiny_scene, device):
    """Each camera about itself: a point before it moves as the camera does."""
    given = tiny_scene.cameras.camera_to_world.to(device)
    poses = rough(CameraPoses(cameras)).to(device)
    refined = poses(given).detach()
    offsets = poses.values.detach() - poses.values.detach().mean(0)
    for row, offset in zip(TRAINED, offsets.cpu(), strict=True):
        turn = torch.matrix_exp(cross_matrix(offset[None, :3])[0])
        assert_close(refined[row, :, :3].cpu(), turn @ given[row, :, :3].cpu(), 1e-5)
        assert_close(refined[row, :, 3].cpu(), given[row, :, 3].cpu() + offset[3:], 1e-5)
    assert torch.equal(refined[2], given[2]), "a camera that is held out stands where it stood"
    assert_close((refined - given)[list(TRAINED), :, 3].sum(0), torch.zeros(3, device=device), 1e-5)


def test_poses_have_a_slope_at_the_start(cameras, tiny_scene, device):
    given = tiny_scene.cameras.camera_to_world.to(device)
    poses = CameraPoses(cameras).to(device)
    poses(given)[0].sum().backward()
    gradient = poses.values.grad
    assert gradient.isfinite().all() and (gradient[0].abs() > 0).all()
    assert_close(gradient[1], -gradient[0] / 2, 1e-5)
    assert_close(gradient[1], gradient[2], 1e-6)


def test_appearances_are_those_of_the_cameras_and_of_none_the_mean(cameras, device):
    looks = Appearances(cameras, 5).to(device)
    assert not looks(None, 4).any() and not looks(torch.tensor([0, 3], device=device), 2).any()
    rough(looks)
    values = looks.values.detach()
    found = looks(torch.tensor([3, 0, 1], device=device), 3)
    assert found.shape == (5, 3)
    assert_close(found, values[[2, 0, 1]].T, 1e-6)
    mean = looks(None, 4)
    assert mean.shape == (5, 4)
    assert_close(mean, values.mean(0)[:, None].expand(-1, 4), 1e-6)
    looks(torch.tensor([3, 3], device=device), 2).sum().backward()
    expected = torch.zeros(3, 5, device=device)
    expected[2] = 2
    assert torch.equal(looks.values.grad, expected)
