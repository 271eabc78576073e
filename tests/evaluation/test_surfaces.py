"""Depth errors and intersection over union, by hand."""

import numpy as np
import pytest
import torch

from msth_taichi.evaluation.surfaces import MaskScores, depth_errors, iou


def test_depth_errors_by_hand():
    errors = depth_errors(torch.tensor([[1.0, 3.0]]), np.array([[2.0, 2.0]], np.float32))
    assert errors == {"depth_error": 1.0, "depth_error_relative": 0.5}


@pytest.mark.parametrize(
    ("a", "b", "value"),
    [([1, 1, 0, 0], [0, 1, 1, 0], 1 / 3), ([1, 0], [1, 0], 1.0), ([1, 0], [0, 1], 0.0), ([0, 0], [0, 0], None)],
)
def test_iou_by_hand(a, b, value):
    assert iou(torch.tensor(a, dtype=torch.bool), torch.tensor(b, dtype=torch.bool)) == value


def test_scores_are_pooled_over_images():
    scores = MaskScores()
    # 4 pixels are said to move in all, 3 do, 2 of both: 2 / 5
    scores.add(torch.tensor([[0.1, 0.2, 0.9]]), torch.ones(1, 3), np.array([[True, True, False]]))
    scores.add(torch.tensor([[0.4, 0.4, 0.9]]), torch.ones(1, 3), np.array([[False, False, True]]))
    result = scores.result()
    assert result["iou"] == pytest.approx(2 / 5) and result["iou_rendered"] == 0
    assert result["moving"] == pytest.approx((0.1 + 0.2 + 0.9) / 3)
    assert result["static"] == pytest.approx((0.9 + 0.4 + 0.4) / 3)


def test_where_nothing_moves_there_is_no_mean_of_it():
    scores = MaskScores()
    scores.add(torch.ones(1, 2), torch.ones(1, 2), np.zeros((1, 2), bool))
    assert scores.result() == {"static": 1, "moving": None, "difference": None, "iou": None, "iou_rendered": None}
