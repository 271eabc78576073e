"""Other lenses and sizes of the same views."""

import math

import numpy as np
import pytest
import torch

from msth_taichi.errors import RunError
from msth_taichi.lenses import EQUIRECTANGULAR, FISHEYE, LENS_NAMES, ORTHOGRAPHIC, PINHOLE, STEREO_360
from msth_taichi.ops.rays import generate_rays
from msth_taichi.rendering.path_lenses import parse_lens, parse_size, with_lens, with_size
from msth_taichi.rendering.rigs import look_at
from msth_taichi.scene.cameras import Cameras, make_cameras

UP = np.array([0.0, 0.0, 1.0])
TARGET = np.array([0.3, -0.2, 0.1])
POSITION = np.array([0.0, -2.0, 0.8])


def view(lens: int = PINHOLE, focal: float = 50.0) -> Cameras:
    pose = look_at(POSITION, TARGET, UP)
    return make_cameras([pose], [[focal, focal, 17.0, 11.0]], [[0.0] * 8], [lens], [[32, 24]], ["view"])


def rays(cameras: Cameras, *pixels: tuple[float, float]) -> tuple[torch.Tensor, torch.Tensor]:
    camera = torch.zeros(len(pixels), dtype=torch.int32)
    lens = (cameras.camera_to_world, cameras.intrinsics, cameras.distortion, cameras.lens)
    return generate_rays(torch.tensor(pixels), camera, *lens)


def changed(lens: int, cameras: Cameras | None = None) -> Cameras:
    return with_lens(cameras or view(), lens, UP, TARGET, eye_distance=0.1)


@pytest.mark.parametrize("lens", [PINHOLE, FISHEYE, EQUIRECTANGULAR, ORTHOGRAPHIC, STEREO_360])
def test_a_camera_that_has_the_lens_stays_as_it_is(lens):
    before = changed(lens)
    after = changed(lens, before)
    for name in ("camera_to_world", "intrinsics", "distortion", "lens", "sizes"):
        assert torch.equal(getattr(before, name), getattr(after, name)), name


def test_a_pinhole_sees_the_middle_as_the_lens_before_did():
    assert changed(PINHOLE, view(FISHEYE)).intrinsics.tolist() == [[50, 50, 17, 11]]
    wide = changed(PINHOLE, changed(EQUIRECTANGULAR))
    _, ends = rays(wide, (0.0, wide.size(0)[1] / 2), (wide.size(0)[0], wide.size(0)[1] / 2))
    assert (ends[0] @ ends[1]).abs() < 1e-6  # 90 degrees


def test_a_fisheye_sees_half_of_everything_across_its_shorter_edge():
    made = changed(FISHEYE)
    _, directions = rays(made, (16.0, 12.0), (16.0, 0.0), (16.0, 24.0))
    forward = -made.camera_to_world[0, :, 2]
    torch.testing.assert_close(directions @ forward, torch.tensor([1.0, 0.0, 0.0]), atol=1e-6, rtol=0)


def test_a_panorama_is_level_and_looks_where_the_camera_did():
    made = changed(EQUIRECTANGULAR)
    assert made.size(0) == (48, 24)
    origins, (ahead, above, behind) = rays(made, (24.0, 12.0), (24.0, 0.0), (0.0, 12.0))
    torch.testing.assert_close(origins[0], torch.tensor(POSITION).float())
    torch.testing.assert_close(above, torch.tensor([0.0, 0, 1]), atol=1e-6, rtol=0)
    level = torch.tensor(TARGET - POSITION).float() * torch.tensor([1, 1, 0])
    torch.testing.assert_close(ahead, level / level.norm(), atol=1e-5, rtol=0)
    torch.testing.assert_close(behind, -ahead, atol=1e-5, rtol=0)


@pytest.mark.parametrize("back", [1.0, -1.0])
def test_a_panorama_of_a_camera_that_looks_straight_down_or_up_is_level_too(back):
    pose = torch.tensor([[1.0, 0, 0, 0], [0, back, 0, 0], [0, 0, back, 0]])
    made = changed(EQUIRECTANGULAR, view().with_poses(pose[None]))
    _, directions = rays(made, (24.0, 12.0), (24.0, 0.0))
    # the upper edge of the image leans forward: looking down it lies ahead, looking up behind
    torch.testing.assert_close(directions, torch.tensor([[0.0, 1, 0], [0, 0, 1]]), atol=1e-6, rtol=0)


def test_a_stereo_panorama_has_an_eye_above_the_other():
    made = changed(STEREO_360)
    assert made.size(0) == (48, 48)
    origins, directions = rays(made, (24.0, 12.0), (24.0, 36.0))
    torch.testing.assert_close(directions[0], directions[1])
    right = torch.linalg.cross(directions[0], torch.tensor([0.0, 0, 1]))
    torch.testing.assert_close(origins[1] - origins[0], 0.1 * right, atol=1e-6, rtol=0)
    torch.testing.assert_close(origins.mean(0), torch.tensor(POSITION).float(), atol=1e-6, rtol=0)


def test_an_orthographic_camera_keeps_the_size_of_what_it_looks_at():
    made = changed(ORTHOGRAPHIC)
    distance = float(np.linalg.norm(TARGET - POSITION))
    origins, directions = rays(made, (17.0, 11.0), (27.0, 11.0))
    torch.testing.assert_close(directions[0], directions[1])
    # ten pixels of a focal length of fifty
    assert (origins[1] - origins[0]).norm().item() == pytest.approx(distance / 5, rel=1e-5)


def test_another_size_keeps_the_vertical_field_of_view():
    made = with_size(view(), (96, 48))
    assert made.size(0) == (96, 48)
    _, (top, bottom) = rays(view(), (17.0, 0.0), (17.0, 24.0))
    _, (new_top, new_bottom) = rays(made, (50.0, 0.0), (50.0, 48.0))
    torch.testing.assert_close(torch.stack([top, bottom]), torch.stack([new_top, new_bottom]), atol=1e-6, rtol=0)
    assert made.intrinsics[0, 0] == made.intrinsics[0, 1]


@pytest.mark.parametrize("lens", [EQUIRECTANGULAR, STEREO_360])
def test_a_panorama_of_another_size_still_shows_everything(lens):
    made = with_size(changed(lens), (100, 30))
    assert made.size(0) == (100, 30)
    high = math.pi if lens == EQUIRECTANGULAR else 2 * math.pi
    np.testing.assert_allclose(made.intrinsics[0], [100 / 2 / math.pi, 30 / high, 50, 15], rtol=1e-6)


def test_names_and_sizes_are_read():
    assert parse_lens("stereo-360") == LENS_NAMES.index("stereo-360") == STEREO_360
    assert parse_size("960x540") == parse_size((960, 540)) == (960, 540)


@pytest.mark.parametrize("size", ["", "960", "960x", "0x10", "-1x5", "1e3x10", "99999x10", "960x540x3", (0, 5)])
def test_what_is_no_size_is_named(size):
    with pytest.raises(RunError, match=r"^--size .*such as 960x540$"):
        parse_size(size)


@pytest.mark.parametrize("lens", ["", "opencv", "Pinhole", "vr180"])
def test_what_is_no_lens_is_named(lens):
    with pytest.raises(RunError, match=f"^--lens {lens}: unknown lens; use one of pinhole, fisheye"):
        parse_lens(lens)
