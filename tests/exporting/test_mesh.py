"""Meshes: the zero of distances, and where depth maps put it."""

import numpy as np
import pytest

from msth_taichi.errors import RunError
from msth_taichi.exporting import mesh
from msth_taichi.exporting.mesh import export_mesh, extract, pinholes, smoothed
from msth_taichi.lenses import EQUIRECTANGULAR, FISHEYE, ORTHOGRAPHIC, PINHOLE
from msth_taichi.scene.cameras import make_cameras
from tests.exporting.conftest import TRANSFORM, read_ply


def test_without_the_extra_the_error_says_what_to_install(tiny_run, tmp_path, monkeypatch):
    monkeypatch.setattr(mesh, "import_module", lambda name: (_ for _ in ()).throw(ModuleNotFoundError(name)))
    with pytest.raises(RunError, match=r"pip install 'msth_taichi\[mesh\]'"):
        export_mesh(tiny_run, tmp_path / "a.ply")


def ball(size: int = 24, radius: float = 8.0) -> np.ndarray:
    axes = np.indices((size,) * 3) - (size - 1) / 2
    return (np.linalg.norm(axes, axis=0) - radius).astype(np.float32)


def test_triangles_are_where_distances_are_zero_and_look_outside():
    pytest.importorskip("skimage")
    positions, normals, triangles = extract(ball())
    outward = positions - 11.5
    assert np.allclose(np.linalg.norm(outward, axis=1), 8, atol=0.1)
    a, b, c = (positions[triangles[:, i]] for i in range(3))
    assert ((np.cross(b - a, c - a) * (a - 11.5)).sum(1) > 0).all()
    assert ((normals * outward / 8).sum(1) > 0.9).all()


def test_what_is_unknown_stays_open_and_small_parts_go():
    pytest.importorskip("skimage")
    distances = ball()
    distances[:, :, 14:] = np.nan
    distances[distances < -3] = np.nan
    distances[1:4, 1:4, 1:4] = 1.0
    distances[2, 2, 2] = -1.0  # a speck
    positions, _, triangles = extract(distances)
    assert len(triangles) and positions[:, 2].max() <= 13
    assert np.allclose(np.linalg.norm(positions - 11.5, axis=1), 8, atol=0.1)
    assert not len(extract(np.full((4, 4, 4), np.nan, np.float32))[2])
    assert not len(extract(np.ones((4, 4, 4), np.float32))[2])


def test_smoothing_is_the_mean_of_what_is_known():
    distances = np.full((4, 4, 4), np.nan, np.float32)
    distances[1, 1, 1], distances[1, 1, 2], distances[3, 3, 3] = 1, 3, 5
    found = smoothed(distances)
    assert np.isfinite(found).tolist() == np.isfinite(distances).tolist()
    assert found[np.isfinite(found)].tolist() == pytest.approx([2, 2, 5])
    plane = np.broadcast_to(np.arange(6, dtype=np.float32) - 2.5, (6, 6, 6))
    assert np.allclose(smoothed(plane)[:, :, 1:-1], plane[:, :, 1:-1], atol=1e-6)


def test_a_wall_becomes_a_sheet_in_the_users_coordinates(wall_run, tmp_path):
    pytest.importorskip("skimage")
    export_mesh(wall_run, tmp_path / "a.ply", 0.5, resolution=24, progress=False)
    found = read_ply(tmp_path / "a.ply")
    x, y, z = TRANSFORM.apply_points(found.positions).T
    voxel = np.ptp(x) / 20
    assert np.abs(y - 0.5).max() < voxel and np.ptp(x) > 1.2 and np.ptp(z) > 0.5
    assert (found.normals @ TRANSFORM.rotation.T)[:, 1].max() < -0.5
    a, b, c = (found.positions[found.triangles[:, i]] for i in range(3))
    assert ((np.cross(b - a, c - a) @ TRANSFORM.rotation.T)[:, 1] < 0).all(), "counter-clockwise seen by the cameras"
    sure = np.abs(z) > 0.15
    assert (found.colors[sure] == np.where(z[sure, None] < 0, [255, 0, 0], [0, 255, 0])).mean() > 0.99


def test_nothing_to_see_is_told(wall_run, tmp_path):
    pytest.importorskip("skimage")
    for options, says in (({"mode": "dynamic"}, "no surface is seen"), ({"resolution": 4}, "--resolution 4")):
        with pytest.raises(RunError, match=says):
            export_mesh(wall_run, tmp_path / "a.ply", progress=False, **{"resolution": 24, **options})
    assert not list(tmp_path.iterdir())


def test_any_lens_is_seen_through_as_a_pinhole():
    pose = np.eye(4)[None, :3].repeat(4, 0)
    lens = [PINHOLE, FISHEYE, EQUIRECTANGULAR, ORTHOGRAPHIC]
    intrinsics = [[40.0, 40, 30, 20], [35.0, 36, 32, 24], [10.2, 15.3, 32, 24], [500.0, 500, 32, 24]]
    names = ("pinhole", "fisheye", "panorama", "orthographic")
    flat = pinholes(make_cameras(pose, intrinsics, np.ones((4, 8)), lens, [[64, 48]] * 4, names), 128)
    assert flat.lens.tolist() == [PINHOLE] * 4 and flat.sizes.tolist() == [[128, 96]] * 4 and not flat.distortion.any()
    assert flat.intrinsics[:2].tolist() == [[80, 80, 60, 40], [70, 72, 64, 48]]
    assert np.allclose(flat.sizes[2:] / flat.intrinsics[2:, :2], 2), "45 degrees to each side"
