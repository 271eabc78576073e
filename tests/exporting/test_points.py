"""Point clouds: where surfaces are, in the user's coordinates."""

import numpy as np
import pytest

from msth_taichi.errors import RunError
from msth_taichi.exporting.outputs import spread_times, write_series
from msth_taichi.exporting.points import export_points, thinned
from msth_taichi.exporting.surfaces import Points, content_box, training_cameras
from tests.exporting.conftest import TRANSFORM, read_ply


def on_the_wall(file):
    """Points in scene units; every one must lie on the wall, look away from it and have its colour."""
    cloud = read_ply(file)
    x, y, z = TRANSFORM.apply_points(cloud.positions).T
    assert np.abs(y - 0.5).max() < 1e-3 and np.abs(x).max() < 0.81
    assert np.allclose(cloud.normals @ TRANSFORM.rotation.T, [0, -1, 0], atol=1e-3)
    sure = np.abs(z) > 0.1
    assert (cloud.colors[sure] == np.where(z[sure, None] < 0, [255, 0, 0], [0, 255, 0])).all()
    return np.stack([x, y, z], 1)


def test_points_lie_on_what_is_seen_in_the_users_coordinates(wall_run, tmp_path):
    assert export_points(wall_run, tmp_path / "a.ply", 0.5, progress=False) == tmp_path / "a.ply"
    points = on_the_wall(tmp_path / "a.ply")
    assert len(points) > 300 and np.ptp(points[:, 0]) > 1 and np.ptp(points[:, 2]) > 0.5


def test_more_points_than_wanted_become_fewer_that_cover_the_same(wall_run, tmp_path):
    export_points(wall_run, tmp_path / "few.ply", points=60, progress=False)
    points = on_the_wall(tmp_path / "few.ply")
    assert 30 <= len(points) <= 60 and np.ptp(points[:, 0]) > 1


def test_a_box_of_the_users_keeps_what_is_inside(wall_run, tmp_path):
    low, high = np.sort(TRANSFORM.invert_points(np.array([[-0.3, 0.4, -0.2], [0.3, 0.6, 0.3]])), axis=0)
    export_points(wall_run, tmp_path / "a.ply", box=[*low, *high], progress=False)
    points = on_the_wall(tmp_path / "a.ply")
    assert (np.abs(points[:, 0]) < 0.3001).all() and (points[:, 2] > -0.2001).all() and (points[:, 2] < 0.3001).all()


def test_means_of_voxels_are_means():
    corners = np.array([[0.0, 0, 0], [8.0, 0, 0]])
    positions = np.repeat(corners, 2, 0) + np.tile([[0.0, 0, 0], [0.01, 0, 0]], (2, 1))
    colors = np.array([[0.0, 0, 0], [1, 1, 1], [0.5, 0, 0], [0.5, 0, 0]])
    found = thinned(Points(positions, np.tile([0.0, 0, 1], (4, 1)), colors), 2)
    assert np.allclose(found.positions[:, 0], [0.005, 8.005])
    assert np.allclose(found.colors, [[0.5] * 3, [0.5, 0, 0]]) and np.allclose(found.normals, [0, 0, 1])


def test_a_few_points_far_off_do_not_widen_the_box(generator):
    positions = np.random.default_rng(0).uniform(-1, 1, (1000, 3))
    positions[:5] = 500
    low, high = content_box(positions)
    assert (low > -1.3).all() and (high < 1.3).all() and (low < -0.95).all() and (high > 0.95).all()


def test_cameras_have_as_many_pixels_as_wanted_and_are_those_of_training(tiny_run):
    assert training_cameras(tiny_run, 1e9).names == ("cam00", "cam01", "cam02")
    assert training_cameras(tiny_run, 1e9).size(0) == (24, 18)
    assert training_cameras(tiny_run, 3 * 12 * 9).size(0) == (12, 9)


def test_points_of_several_times_are_a_folder_of_files(wall_run, tmp_path):
    times = spread_times(wall_run.scene, 3)
    assert times == pytest.approx([0, 0.375, 0.75])
    folder = tmp_path / "cloud"
    (folder / "frame_00007.ply").parent.mkdir()
    (folder / "frame_00007.ply").write_bytes(b"old")
    (folder / "notes.txt").write_text("mine")

    def write(file, time):
        return export_points(wall_run, file, time, points=100, progress=False)

    with pytest.raises(RunError, match="not empty; pass --overwrite"):
        write_series(write, folder, times, progress=False)
    files = write_series(write, folder, times, overwrite=True, progress=False)
    assert [file.name for file in files] == ["frame_00000.ply", "frame_00001.ply", "frame_00002.ply"]
    assert sorted(path.name for path in folder.iterdir()) == [*(file.name for file in files), "notes.txt"]
    for file in files:
        on_the_wall(file)


def test_a_series_that_fails_leaves_what_was_there(wall_run, tmp_path):
    folder = tmp_path / "cloud"
    write_series(lambda file, time: export_points(wall_run, file, time, progress=False), folder, [0.0], progress=False)
    before = (folder / "frame_00000.ply").read_bytes()

    def fail(file, time):
        if time:
            raise RunError("full")
        return export_points(wall_run, file, time, points=50, progress=False)

    with pytest.raises(RunError, match="full"):
        write_series(fail, folder, [0.0, 0.5], overwrite=True, progress=False)
    assert [path.name for path in folder.iterdir()] == ["frame_00000.ply"]
    assert (folder / "frame_00000.ply").read_bytes() == before
    with pytest.raises(RunError, match="full"):
        write_series(fail, tmp_path / "new", [0.5], progress=False)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"points": 0}, "--points 0: out of range"),
        ({"time": 1.5}, "time 1.5"),
        ({"box": [0, 0, 0, 1, 1, 0]}, "--box 0,0,0,1,1,0: no box"),
        ({"box": [90, 90, 90, 91, 91, 91]}, "no surface is seen at time 0"),
        ({"mode": "dynamic"}, "no surface is seen"),
    ],
)
def test_wrong_requests_are_named_and_write_nothing(wall_run, tmp_path, options, says):
    with pytest.raises(RunError, match=says):
        export_points(wall_run, tmp_path / "a.ply", progress=False, **options)
    with pytest.raises(RunError, match=r"ends in \.ply"):
        export_points(wall_run, tmp_path / "a.obj", progress=False)
    assert not list(tmp_path.iterdir())
