"""Flicker and dynamic pixels, by hand."""

import pytest
import torch

from msth_taichi.evaluation.motion import DynamicPixels, psnr_over, temporal_psnr


def frame(*values):
    """An image of one row."""
    return torch.tensor(values)[None, :, None].expand(1, len(values), 3)


def test_temporal_psnr_sees_changes_only():
    target_before, target = frame(0.2, 0.4), frame(0.3, 0.4)
    assert temporal_psnr(target + 0.2, target_before + 0.2, target, target_before) == pytest.approx(100)
    # the second pixel alone changes by 0.1 more than it should: mean squared 0.005
    wrong = frame(0.3, 0.5)
    assert temporal_psnr(wrong, target_before, target, target_before) == pytest.approx(23.0103, abs=1e-3)
    valid = torch.tensor([[True, False]])
    assert temporal_psnr(wrong, target_before, target, target_before, valid) == pytest.approx(100)


def test_dynamic_pixels_by_hand():
    pixels = DynamicPixels()
    for value in (0.4, 0.6):  # variance 0.01 in the first pixel, none in the second
        pixels.add(frame(value, 0.5))
    assert pixels.above(0.009).tolist() == [[True, False]]
    assert pixels.above(0.011).tolist() == [[False, False]]


def test_a_pixel_that_is_hidden_once_is_not_dynamic():
    pixels = DynamicPixels()
    pixels.add(frame(0.0, 0.0), torch.tensor([[True, True]]))
    pixels.add(frame(1.0, 1.0), torch.tensor([[False, True]]))
    assert pixels.above(0.1).tolist() == [[False, True]]


def test_psnr_over_some_pixels():
    image, target = frame(0.5, 0.5, 0.5), frame(0.6, 0.5, 0.0)
    assert psnr_over(torch.tensor([[True, False, False]]), image, target) == pytest.approx(20, abs=1e-4)
    assert psnr_over(torch.tensor([[False] * 3]), image, target) is None
