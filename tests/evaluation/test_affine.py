"""The affine fit: exact where an affine change is all there is, and modest where nothing is known."""

import pytest
import torch

from msth_taichi.evaluation.affine import AffineFit, apply_affine
from msth_taichi.evaluation.metrics import psnr

MATRIX = torch.tensor([[0.7, 0.1, 0.0, 0.05], [0.0, 0.8, 0.1, 0.0], [0.05, 0.0, 0.6, 0.1]], dtype=torch.float64)


def random_image(seed=0):
    return torch.rand(9, 7, 3, generator=torch.Generator().manual_seed(seed))


def test_an_exact_affine_change_is_found():
    fit = AffineFit()
    images = [random_image(seed) for seed in (0, 1)]
    for image in images:
        fit.add(image, apply_affine(MATRIX, image))
    torch.testing.assert_close(fit.matrix(), MATRIX, atol=1e-5, rtol=0)
    for image in images:
        assert psnr(apply_affine(fit.matrix(), image), apply_affine(MATRIX, image)) == 100


def test_one_matrix_is_the_least_squares_of_all_images():
    images, targets = [random_image(0), random_image(1)], [random_image(2), random_image(3)]
    fit = AffineFit()
    for image, target in zip(images, targets, strict=True):
        fit.add(image, target)
    x = torch.nn.functional.pad(torch.cat(images).double().reshape(-1, 3), (0, 1), value=1)
    y = torch.cat(targets).double().reshape(-1, 3)
    torch.testing.assert_close(fit.matrix(), torch.linalg.lstsq(x, y).solution.T)


def test_pixels_that_do_not_count_are_left_out():
    image, target = random_image(), apply_affine(MATRIX, random_image())
    valid = torch.rand(9, 7, generator=torch.Generator().manual_seed(5)) > 0.4
    target[~valid] = 0.9
    fit = AffineFit()
    fit.add(image, target, valid)
    torch.testing.assert_close(fit.matrix(), MATRIX, atol=1e-5, rtol=0)


def test_what_was_not_seen_stays():
    nothing = AffineFit()
    nothing.add(random_image(), random_image(1), torch.zeros(9, 7, dtype=torch.bool))
    assert torch.equal(nothing.matrix(), torch.eye(3, 4, dtype=torch.float64))
    flat = AffineFit()
    flat.add(torch.full((4, 4, 3), 0.5), torch.full((4, 4, 3), 0.6))
    fitted = apply_affine(flat.matrix(), torch.full((1, 1, 3), 0.5))
    assert fitted.flatten().tolist() == pytest.approx([0.6] * 3)
    assert flat.matrix().abs().max() < 1.5


def test_colours_are_clamped():
    assert apply_affine(3 * torch.eye(3, 4), torch.full((1, 1, 3), 0.5)).tolist() == [[[1.0, 1.0, 1.0]]]
