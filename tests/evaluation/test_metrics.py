"""Image metrics: values that can be worked out by hand."""

import math

import pytest
import torch

from msth_taichi.errors import TensorError
from msth_taichi.evaluation.metrics import aggregate, image_metrics, ms_ssim, mse, psnr, ssim


def random_image(height=24, width=20, seed=0):
    return torch.rand(height, width, 3, generator=torch.Generator().manual_seed(seed))


def test_psnr_of_a_constant_error():
    target = random_image() * 0.5
    assert psnr(target + 0.1, target) == pytest.approx(20.0, abs=1e-5)
    assert psnr(target - 0.01, target) == pytest.approx(40.0, abs=1e-4)


def test_mse_counts_every_channel():
    image, target = torch.zeros(2, 2, 3), torch.zeros(2, 2, 3)
    image[0, 0, 1] = 0.6
    assert mse(image, target) == pytest.approx(0.36 / 12)


def test_equal_images():
    image = random_image(176, 176)
    assert psnr(image, image) == 100
    assert ssim(image, image) == pytest.approx(1, abs=1e-9)
    assert ms_ssim(image, image) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("data_range", [1.0, 2.0])
def test_ssim_of_flat_images_is_its_luminance_term(data_range):
    a, b = 0.6, 0.4
    c = (0.01 * data_range) ** 2
    value = ssim(torch.full((16, 16, 3), a), torch.full((16, 16, 3), b), data_range)
    assert value == pytest.approx((2 * a * b + c) / (a * a + b * b + c), abs=1e-5)


@pytest.fixture(scope="module")
def noisy():
    """Metrics of an image against itself with a little noise, with much, and the other way round."""
    target, noise = random_image(176, 177), random_image(176, 177, seed=2) - 0.5
    little, much = ((target + s * noise).clamp(0, 1) for s in (0.05, 0.5))
    return image_metrics(little, target), image_metrics(much, target), image_metrics(target, much)


def test_metrics_are_symmetric(noisy):
    _, much, swapped = noisy
    assert much == pytest.approx(swapped, abs=1e-9)


def test_worse_images_score_worse(noisy):
    little, much, _ = noisy
    for name in ("psnr", "ssim", "ssim2", "ms_ssim"):
        assert 0 < much[name] < little[name]
    for name in ("mse", "d_ssim", "d_ssim2", "d_ms_ssim"):
        assert 0 < little[name] < much[name] < 0.5


def test_conventions_of_ssim(noisy):
    _, values, _ = noisy
    assert values["d_ssim"] == pytest.approx((1 - values["ssim"]) / 2)
    assert values["d_ms_ssim"] == pytest.approx((1 - values["ms_ssim"]) / 2)
    assert values["d_ssim2"] == pytest.approx((1 - values["ssim2"]) / 2)
    assert values["ssim2"] > values["ssim"]  # the larger range forgives more


@pytest.mark.parametrize(
    ("size", "missing"),
    [
        ((10, 400), {"ssim", "ssim2", "ms_ssim", "d_ssim", "d_ssim2", "d_ms_ssim"}),
        ((11, 11), {"ms_ssim", "d_ms_ssim"}),
        ((175, 177), {"ms_ssim", "d_ms_ssim"}),
    ],
)
def test_small_images_lack_metrics(size, missing):
    values = image_metrics(random_image(*size), random_image(*size, seed=1))
    assert {name for name, value in values.items() if value is None} == missing
    assert all(math.isfinite(value) for value in values.values() if value is not None)


def test_aggregate_keeps_mean_and_pooled_psnr_apart():
    target = torch.full((12, 12, 3), 0.5)
    rows = [image_metrics(target + error, target) for error in (0.1, 0.01)]
    total = aggregate(rows)
    assert total["psnr"] == pytest.approx(30, abs=1e-4)
    assert total["psnr_pooled"] == pytest.approx(-10 * math.log10((0.01 + 0.0001) / 2), abs=1e-4)
    assert total["ssim"] == pytest.approx((rows[0]["ssim"] + rows[1]["ssim"]) / 2)
    assert total["ms_ssim"] is None
    with pytest.raises(ValueError, match="no images"):
        aggregate([])


@pytest.mark.parametrize("metric", [psnr, ssim, ms_ssim])
def test_images_of_different_shapes_are_refused(metric):
    with pytest.raises(TensorError, match=r"\(12, 12, 3\) and \(12, 13, 3\)"):
        metric(torch.zeros(12, 12, 3), torch.zeros(12, 13, 3))


@pytest.mark.parametrize("size", [(11, 30), (181, 190)])
@pytest.mark.parametrize("noise", [0.05, 2.0])
def test_similarities_are_those_of_torchmetrics(size, noise):
    from torchmetrics.functional.image import (
        multiscale_structural_similarity_index_measure as reference_ms_ssim,
    )
    from torchmetrics.functional.image import (
        structural_similarity_index_measure as reference_ssim,
    )

    target = random_image(*size)
    image = (target + noise * (random_image(*size, seed=1) - 0.5)).clamp(0, 1)
    pair = [picture.double().permute(2, 0, 1)[None] for picture in (image, target)]
    for data_range in (1.0, 2.0):
        expected = float(reference_ssim(*pair, data_range=data_range))
        assert ssim(image, target, data_range) == pytest.approx(expected, abs=1e-9)
    if min(size) >= 176:
        assert ms_ssim(image, target) == pytest.approx(float(reference_ms_ssim(*pair, data_range=1.0)), abs=1e-6)
    values = image_metrics(image, target)
    assert (values["ssim"], values["ms_ssim"]) == (ssim(image, target), ms_ssim(image, target))


def test_ms_ssim_of_opposites_is_zero():
    target = random_image(180, 180)
    assert ms_ssim(1 - target, target) == 0
