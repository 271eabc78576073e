"""The measures behind the findings."""

import numpy as np
import pytest
from PIL import Image

from msth_taichi.checking.features import corners, match
from msth_taichi.checking.findings import Finding, failed
from msth_taichi.checking.geometry import directions, half_plane, project
from msth_taichi.checking.layout import contact_sheet, draw_layout
from msth_taichi.checking.motion import lag_curve, similarity, without_trend
from msth_taichi.checking.poses import meeting_point
from msth_taichi.checking.report import html_report
from msth_taichi.checking.timing import solve_lags
from msth_taichi.lenses import FISHEYE, OPENCV, PINHOLE
from msth_taichi.scene.cameras import make_cameras
from tests.scene.data_sets import look_at


def picture(seed: int = 0, size: int = 160) -> np.ndarray:
    """Blobs of random colour, smooth enough to be seen turned."""
    generator = np.random.default_rng(seed)
    small = generator.integers(0, 255, (size // 8, size // 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((size, size), Image.Resampling.BICUBIC))


def test_corners_of_a_turned_picture_find_each_other():
    image = picture()
    a, b = corners(image), corners(np.ascontiguousarray(image[::-1, ::-1]))
    pairs = match(a, b)
    error = np.abs(a.place[pairs[:, 0]] - (1 - b.place[pairs[:, 1]])).max(1)
    assert len(pairs) > 40
    assert (error < 0.02).mean() > 0.9


def test_corners_of_different_pictures_do_not_match():
    a, b = corners(picture(0)), corners(picture(1))
    assert len(match(a, b)) < 0.2 * len(a.place)


def test_flat_and_tiny_pictures_have_no_corners():
    assert len(corners(np.full((64, 64, 3), 90, np.uint8)).place) == 0
    assert len(corners(picture(size=16)).place) == 0


def test_rays_to_one_point_lie_in_one_half_plane():
    generator = np.random.default_rng(0)
    a, b = generator.normal(size=(2, 3))
    points = generator.normal(size=(50, 3)) * 5
    angles = []
    for centre in (a, b):
        rays = points - centre
        angles.append(half_plane(rays / np.linalg.norm(rays, axis=1, keepdims=True), b - a)[0])
    np.testing.assert_allclose(*angles, atol=1e-9)


@pytest.mark.parametrize("lens", [PINHOLE, OPENCV, FISHEYE])
def test_points_along_a_pixels_ray_are_seen_in_that_pixel(lens):
    pose = np.array(look_at(np.array([1.0, 2.0, 0.5])))[:3]
    distortion = [0.0] * 8 if lens == PINHOLE else [0.01] + [0.0] * 7
    cameras = make_cameras(pose, [50, 52, 31, 25], distortion, [lens], [64, 48], ["a"])
    pixels = np.random.default_rng(0).uniform([1, 1], [63, 47], (40, 2))
    points = pose[:, 3] + 3 * directions(cameras, 0, pixels) @ pose[:, :3].T
    np.testing.assert_allclose(project(cameras, 0, points) * [64, 48], pixels, atol=1e-4)
    assert np.isnan(project(cameras, 0, 2 * pose[:, 3] - points)).all()  # behind


@pytest.mark.parametrize("lag", [-4, 0, 7])
def test_the_lag_of_a_signal_is_where_its_curve_peaks(lag):
    signal = np.random.default_rng(1).normal(size=(100, 3))
    over = range(-10, 11)
    curve = lag_curve(np.roll(signal, lag, 0), signal, over)
    assert over[int(curve.argmax())] == lag
    assert curve.max() > 0.9


def test_a_trend_is_taken_out_and_what_is_quick_stays():
    ramp, spike = np.linspace(0, 50, 60), np.zeros(60)
    spike[30] = 1
    assert np.abs(without_trend(ramp)[8:-8]).max() < 1e-9
    assert without_trend(spike).argmax() == 30


def test_similarity_of_what_stands_still_is_none():
    assert similarity(np.zeros((5, 2)), np.ones((5, 2))) == 0


def test_two_late_cameras_among_six_are_both_found():
    generator = np.random.default_rng(2)
    base, lags = generator.normal(size=(160, 4)), [0, 5, 0, 0, -3, 0]
    signals = [np.roll(base, lag, 0) + 0.3 * generator.normal(size=base.shape) for lag in lags]
    over = range(-15, 16)
    pairs = [(i, j) for i in range(6) for j in range(i + 1, 6)]
    curves = {(i, j): lag_curve(signals[i], signals[j], over) for i, j in pairs}
    energies = [np.abs(signal).mean(1) for signal in signals]
    assert [lag.frames for lag in solve_lags(curves, energies, over)] == lags


def test_without_poses_the_motion_of_the_whole_image_tells_the_lag():
    base = np.abs(np.random.default_rng(3).normal(size=160))
    energies = [np.roll(base, lag) for lag in (0, 0, 6, 0)]
    assert [lag.frames for lag in solve_lags({}, energies, range(-15, 16))] == [0, 0, 6, 0]


def test_noise_tells_no_lag():
    energies = list(np.random.default_rng(4).normal(size=(4, 160)))
    assert [lag.frames for lag in solve_lags({}, energies, range(-15, 16))] == [None] * 4


def test_optical_axes_meet_where_cameras_look():
    target = np.array([1.0, 2.0, 0.5])
    angles = np.linspace(0, 4, 6)
    places = [target + np.array([3 * np.cos(a), 3 * np.sin(a), 1]) for a in angles]
    poses = np.array([look_at(place, target) for place in places])[:, :3]
    meeting = meeting_point(poses)
    np.testing.assert_allclose(meeting.point, target, atol=1e-6)
    np.testing.assert_allclose(meeting.distance, np.sqrt(10), rtol=1e-6)
    poses[2, :, 1:3] *= -1
    assert (meeting_point(poses).distance < 0).tolist() == [False, False, True, False, False, False]


def test_parallel_axes_meet_nowhere():
    poses = np.tile(np.eye(4)[:3], (5, 1, 1))
    poses[:, 0, 3] = np.arange(5)
    assert meeting_point(poses).point is None


def test_the_layout_shows_cameras_where_they_are(tiny_scene):
    picture = draw_layout(tiny_scene.cameras, box=1.0, held_out=[3], bad=["cam01"])
    colors = {color for _, color in picture.getcolors(1 << 20) or []}
    assert {(31, 92, 160), (214, 128, 20), (200, 30, 30)} <= colors


def test_a_contact_sheet_takes_pictures_of_any_size():
    sheet = contact_sheet([np.zeros((10, 20, 3), np.uint8), np.zeros((30, 10, 3), np.uint8)], ["a", "b"])
    assert sheet.height > 400


def test_names_cannot_write_into_the_page():
    finding = Finding("counts", "error", "<b>cam</b>", "<script>alert(1)</script>", "a & b", ("x",))
    page = html_report("<i>", [finding], [])
    assert "<script" not in page and "<b>cam</b>" not in page and "a &amp; b" in page
    assert failed([finding])
