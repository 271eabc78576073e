import numpy as np
import pytest

from msth_taichi.scene.sources import shrink


def test_area_average_rounds_to_nearest_and_cuts_what_fills_no_block():
    image = np.zeros((5, 7, 3), np.uint8)
    image[0, 0], image[0, 1], image[2:4, 4:6] = 5, 1, 200
    small = shrink(image, 2)
    assert small.shape == (2, 3, 3)
    assert small[0, 0].tolist() == [2, 2, 2]  # 6 / 4 = 1.5
    assert small[1, 2].tolist() == [200] * 3
    assert small.sum() == 3 * 202


def test_transparent_pixels_do_not_darken_colours():
    image = np.zeros((2, 2, 4), np.uint8)
    image[0] = [200, 100, 50, 255]
    assert shrink(image, 2)[0, 0].tolist() == [200, 100, 50, 128]


@pytest.mark.parametrize("channels", [3, 4])
def test_factor_1_changes_nothing(channels):
    image = np.random.default_rng(0).integers(0, 256, (3, 4, channels), dtype=np.uint8)
    assert np.array_equal(shrink(image, 1), image)
