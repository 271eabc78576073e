"""The built-in scene's colour, depth and motion agree with each other, seen from several cameras."""

import numpy as np
import pytest
import torch

from msth_taichi.errors import ConfigError
from msth_taichi.scene.cameras import Cameras
from msth_taichi.scene.scene import Scene, load_scene
from msth_taichi.scene.synthetic import synthetic_scene

FRAMES = 4


@pytest.fixture(scope="module")
def scene() -> Scene:
    return synthetic_scene(cameras=5, test_cameras=2, frames=FRAMES, width=64, height=48)


def points(cameras: Cameras, index: int, depth: np.ndarray) -> np.ndarray:
    """(H, W, 3) world points seen at pixel centres."""
    fx, fy, cx, cy = cameras.intrinsics[index].double().numpy()
    width, height = cameras.size(0)
    y, x = np.mgrid[:height, :width] + 0.5
    d = np.stack([(x - cx) / fx, -(y - cy) / fy, -np.ones_like(x)], -1)
    d /= np.linalg.norm(d, axis=-1, keepdims=True)
    pose = cameras.camera_to_world[index].double().numpy()
    return pose[:, 3] + depth[..., None] * (d @ pose[:, :3].T)


def project(cameras: Cameras, index: int, world: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Image coordinates (..., 2) and distance from the camera (...)."""
    fx, fy, cx, cy = cameras.intrinsics[index].double().numpy()
    pose = cameras.camera_to_world[index].double().numpy()
    local = (world - pose[:, 3]) @ pose[:, :3]
    pixel = np.stack([cx - fx * local[..., 0] / local[..., 2], cy + fy * local[..., 1] / local[..., 2]], -1)
    distance = np.linalg.norm(local, axis=-1)
    return np.where(local[..., 2:] < 0, pixel, -1.0), distance


def test_layout(scene):
    train, test = scene.images("train"), scene.images("test")
    assert (len(train), len(test)) == (5 * FRAMES, 2 * FRAMES)
    assert scene.num_frames == FRAMES and scene.static_cameras and scene.format == "synthetic"
    assert torch.equal(train.time[:FRAMES], torch.arange(FRAMES) / FRAMES)
    assert test.camera.unique().tolist() == [5, 6]
    assert next(train.read()).shape == (48, 64, 3)
    assert len(set(scene.cameras.names)) == 7


def test_cameras_stand_within_the_unit_ball_and_test_cameras_between_training_cameras(scene):
    pose = scene.cameras.camera_to_world.double()
    position = pose[:, :, 3]
    assert position.norm(dim=1).max() <= 1
    rotation = pose[:, :, :3]
    assert torch.allclose(rotation @ rotation.mT, torch.eye(3).double().expand(7, 3, 3), atol=1e-6)
    angle = torch.atan2(position[:, 0], -position[:, 1])
    train = angle[:5].sort().values
    for test in angle[5:]:
        nearest = (train - test).abs().sort().values
        assert train[0] < test < train[-1]
        assert torch.isclose(nearest[0], nearest[1], atol=1e-5), "half way"


def test_a_static_point_has_its_distance_and_colour_in_every_camera(scene):
    images = scene.images("train")
    a, b = FRAMES, 2 * FRAMES  # first frames of cameras 1 and 2
    world = points(scene.cameras, 1, images.depth(a))
    pixel, distance = project(scene.cameras, 2, world)
    row, column = np.floor(pixel[..., 1]).astype(int), np.floor(pixel[..., 0]).astype(int)
    inside = (row >= 1) & (row < 47) & (column >= 1) & (column < 63)
    row, column = row.clip(1, 46), column.clip(1, 62)
    depth_b = images.depth(b)
    # the nearest pixel sees another point of the surface: its depth is within that of its neighbours
    around = np.stack([depth_b[row + i, column + j] for i in (-1, 0, 1) for j in (-1, 0, 1)])
    smooth = np.ptp(around, axis=0) < 0.2
    visible = inside & smooth & (distance < around.max(0) + 0.02) & ~images.moving(a)
    visible &= ~images.moving(b)[row, column]
    assert visible.mean() > 0.3
    assert ((distance > around.min(0) - 0.02) | ~visible).mean() > 0.99
    color_a, color_b = (frame.astype(float) for frame in images.select([a, b]).read())
    difference = np.abs(color_a - color_b[row, column]).mean(-1)[visible]
    assert np.median(difference) < 8, "textures and light belong to the surface, not to the camera"


def test_depth_of_moving_things_agrees_between_cameras(scene):
    images = scene.images("train")
    for frame in range(FRAMES):
        a, b = 2 * FRAMES + frame, 3 * FRAMES + frame
        moving = images.moving(a)
        assert moving.any()
        pixel, distance = project(scene.cameras, 3, points(scene.cameras, 2, images.depth(a))[moving])
        inside = ((pixel >= 0) & (pixel < [64, 48])).all(-1)
        column, row = pixel[inside].astype(int).T
        depth, moving = (np.pad(x, 1, "edge") for x in (images.depth(b), images.moving(b)))
        around = [(row + i, column + j) for i in range(3) for j in range(3)]
        nearest = np.min([depth[index] for index in around], axis=0)
        # what is hidden lies behind what camera 3 sees there, never in front of it
        assert (nearest < distance[inside] + 0.02).all()
        # and what is not hidden moves there as well
        seen = nearest > distance[inside] - 0.05
        assert np.any([moving[index] for index in around], axis=0)[seen].mean() > 0.95


def test_what_never_moves_keeps_depth_and_colour_exactly(scene):
    images = scene.images("train")
    rows = range(2 * FRAMES, 3 * FRAMES)
    moving = np.stack([images.moving(k) for k in rows])
    depth = np.stack([images.depth(k) for k in rows])
    color = np.stack(list(images.select(rows).read()))
    grown = np.pad(moving.any(0), 1)
    grown = np.stack([grown[1 + i : 49 + i, 1 + j : 65 + j] for i in (-1, 0, 1) for j in (-1, 0, 1)]).any(0)
    static = ~grown
    assert 0.5 < static.mean() < 0.99
    assert (np.ptp(depth, axis=0) == 0)[static].all()
    assert (np.ptp(color, axis=0) == 0)[static].all()
    # and where something comes or goes, depth changes: nothing moves unseen by the mask
    comes_or_goes = moving.any(0) & ~moving.all(0)
    assert (np.ptp(depth, axis=0) > 1e-3)[comes_or_goes].mean() > 0.95
    assert (np.ptp(color, axis=0).max(-1) > 2)[moving.any(0)].mean() > 0.9


def test_two_things_move(scene):
    """At the middle camera the moving pixels fall into two patches at some time."""
    images = scene.images("train")
    for k in range(2 * FRAMES, 3 * FRAMES):
        columns = images.moving(k).any(0).astype(int)
        if (np.diff(columns) == 1).sum() + columns[0] == 2:
            return
    pytest.fail("never two patches")


def test_walls_and_action_lie_where_the_contraction_wants_them(scene):
    images = scene.images("train")
    for camera in range(5):
        k = camera * FRAMES
        world = points(scene.cameras, camera, images.depth(k))
        assert np.abs(world).max() < 2.5
        assert np.linalg.norm(world[images.moving(k)], axis=-1).max(initial=0) < 1
        far = images.depth(k) > 0
        assert far.all() and np.isfinite(world).all()


def test_resolution_changes_only_the_sampling():
    small = synthetic_scene(cameras=2, test_cameras=1, frames=1, width=20, height=16)
    large = synthetic_scene(cameras=2, test_cameras=1, frames=1, width=60, height=48)
    a = next(small.images("test").read()).astype(float)
    b = next(large.images("test").read()).astype(float).reshape(16, 3, 20, 3, 3).mean((1, 3))
    assert np.abs(a - b).mean() < 2.5
    # 3x3 pixels share the centre with the large image's middle pixel
    assert np.abs(small.images("test").depth(0) - large.images("test").depth(0)[1::3, 1::3]).max() < 1e-4


def test_options():
    scene = load_scene("synthetic:cameras=3,test_cameras=1,frames=2,width=10,height=8")
    assert len(scene.cameras) == 4 and scene.num_frames == 2
    assert scene.cameras.size(0) == (10, 8)
    assert len(load_scene("demo").cameras) == 10


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("synthetic:camera=3", "unknown option 'camera' .*'cameras'"),
        ("synthetic:lights=3", "unknown option 'lights' .*known: cameras"),
        ("synthetic:cameras=many", "cameras='many' is not a whole number"),
        ("synthetic:cameras", "cameras='' is not a whole number"),
        ("synthetic:width=0", "width=0 is out of range; use 4 to"),
        ("synthetic:cameras=2,test_cameras=2", "test_cameras=2 is too many"),
    ],
)
def test_wrong_options(path, message):
    with pytest.raises(ConfigError, match=message):
        load_scene(path)
