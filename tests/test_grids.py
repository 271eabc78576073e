"""Grid sizes beyond the published ones, which tests/ops/test_hash_grid.py holds to their known values."""

import math

import pytest

from msth_taichi.grids import GridSpec, mask_spec


@pytest.mark.parametrize("resolution", [2, 7, 64, 128])
def test_every_mask_vertex_has_a_slot_of_its_own(resolution):
    spec = mask_spec(resolution)
    assert (spec.levels, spec.features, spec.axes) == (1, 1, 3)
    (strides,) = spec.strides
    last = sum(stride * resolution for stride in strides)
    assert strides == (1, resolution + 1, (resolution + 1) ** 2)
    assert last == (resolution + 1) ** 3 - 1 < spec.num_entries


@pytest.mark.parametrize("times", [2, 3, 64])
def test_a_mask_of_times_has_as_many_vertices_along_time(times):
    spec = mask_spec(5, times)
    (strides,) = spec.strides
    assert (spec.axes, spec.resolutions) == (4, ((5, 5, 5, times - 1),))
    assert strides == (1, 6, 36, 216) and spec.num_entries == times * 216


def test_a_mask_of_one_time_is_that_of_space():
    assert mask_spec(5, 1) == mask_spec(5)


def test_levels_lie_one_after_the_other():
    spec = GridSpec((4, 5, 6, 3), (40, 30, 20, 9), 5, 2, 10)
    assert spec.offsets[0] == 0
    for level in range(1, spec.levels):
        assert spec.offsets[level] == spec.offsets[level - 1] + spec.entries[level - 1]
    assert spec.num_entries == spec.offsets[-1] + spec.entries[-1]
    assert spec.num_outputs == 10


def test_ends_of_each_axis_are_base_and_max():
    spec = GridSpec((4, 5, 6), (40, 30, 20), 7, 2, None)
    assert spec.resolutions[0] == (4, 5, 6) and spec.resolutions[-1] == (40, 30, 20)
    for level in range(1, spec.levels):
        for axis, growth in enumerate(spec.growth):
            ratio = (spec.scales[level][axis] + 1) / (spec.scales[level - 1][axis] + 1)
            assert math.isclose(ratio, growth)


def test_one_level_does_not_grow():
    spec = GridSpec((4, 5, 6), (40, 30, 20), 1, 2, 10)
    assert spec.growth == (1.0, 1.0, 1.0) and spec.resolutions == ((4, 5, 6),)


def test_a_level_is_dense_where_all_its_vertices_fit():
    spec = GridSpec((4, 4, 4), (64, 64, 64), 5, 2, 10)
    for resolution, strides, entries in zip(spec.resolutions, spec.strides, spec.entries, strict=True):
        vertices = math.prod(r + 1 for r in resolution)
        assert any(strides) == (vertices <= entries)
        assert entries % 8 == 0 and entries == (-(-vertices // 8) * 8 if any(strides) else 1024)
    unlimited = GridSpec((4, 4, 4), (64, 64, 64), 5, 2, None)
    assert all(any(strides) for strides in unlimited.strides)
