"""What a browser may ask for: cameras by viser's conventions, and nothing beyond its bounds."""

import math

import numpy as np
import pytest

from msth_taichi.viewer.requests import bounded, from_browser, picture_size, scaled_size, to_browser, vector


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "../x", None, [1.0], object()])
def test_what_is_no_number_is_replaced(value):
    assert bounded(value, (0.0, 1.0), 0.5) == 0.5


@pytest.mark.parametrize(("value", "kept"), [(-3, 0.0), (0.25, 0.25), (10**18, 1.0), (7.0, 1.0)])
def test_numbers_are_moved_into_their_limits(value, kept):
    assert bounded(value, (0.0, 1.0), 0.5) == kept


@pytest.mark.parametrize("values", [None, "abc", [1, 2], [1, 2, math.nan], [1, 2, 1e300], [[1], [2, 3], 4], ["a"] * 3])
def test_what_is_no_vector_is_none(values):
    assert vector(values, 3) is None


def test_a_browsers_camera_looks_along_z_with_y_down():
    pose = from_browser((1, 0, 0, 0), (1, 2, 3))
    np.testing.assert_array_equal(pose, [[1, 0, 0, 1], [0, -1, 0, 2], [0, 0, -1, 3]])


def test_a_quaternion_turns_as_it_should():
    # a quarter turn about z takes x to y
    pose = from_browser((math.sqrt(0.5), 0, 0, math.sqrt(0.5)), (0, 0, 0))
    np.testing.assert_allclose(pose[:, 0], [0, 1, 0], atol=1e-12)


def test_poses_survive_the_way_to_a_browser_and_back():
    transforms = pytest.importorskip("viser.transforms")
    generator = np.random.default_rng(0)
    for _ in range(10):
        matrix = transforms.SO3(generator.normal(size=4)).normalize().as_matrix()
        pose = np.column_stack([matrix, generator.normal(size=3)])
        rotation, position = to_browser(pose)
        back = from_browser(transforms.SO3.from_matrix(rotation).wxyz, position)
        np.testing.assert_allclose(back, pose, atol=1e-12)


@pytest.mark.parametrize("wxyz", [(0, 0, 0, 0), (9, 0, 0, 0), (math.nan, 0, 0, 1), (1, 0, 0)])
def test_what_is_no_camera_is_none(wxyz):
    assert from_browser(wxyz, (0, 0, 0)) is None


def test_sizes_keep_their_longer_edge_and_shape():
    assert picture_size(512, 2.0) == (512, 256)
    assert picture_size(512, 0.5) == (256, 512)
    assert picture_size(1e9, 1e9) == (2048, 410)
    assert picture_size(math.nan, math.nan) == (64, 64)


def test_smaller_pictures_have_the_same_shape():
    assert scaled_size((400, 200), 20_000) == (200, 100)
    assert scaled_size((400, 200), 1e9) == (400, 200)
    assert scaled_size((400, 200), 0.1) == (1, 1)
