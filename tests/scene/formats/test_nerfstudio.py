"""nerfstudio's transforms.json, of images and of videos, written from the built-in scene and read back."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import pytest

from msth_taichi.errors import DataError
from msth_taichi.lenses import DISTORTION, EQUIRECTANGULAR, FISHEYE, OPENCV, ORTHOGRAPHIC, PINHOLE
from msth_taichi.scene.formats import images, multiview
from msth_taichi.scene.sources import shrink
from tests.scene.rig import AS_IS, Rig, assert_same_scene, room_rig, room_sweep, write_video

COUNT = 9
TRAIN, TEST = [0, 1, 2, 3, 5, 6, 7, 8], [4]
MODELS = {
    PINHOLE: "PINHOLE",
    OPENCV: "OPENCV",
    FISHEYE: "OPENCV_FISHEYE",
    EQUIRECTANGULAR: "EQUIRECTANGULAR",
    ORTHOGRAPHIC: "ORTHOPHOTO",
}
ONE = "transforms.json"


@pytest.fixture(scope="module")
def sweep() -> Rig:
    return room_sweep(COUNT)


@pytest.fixture(scope="module")
def rig() -> Rig:
    return room_rig(cameras=4, frames=4)


def write_images(folder: Path, rig: Rig, timed: bool = True, **top: Any) -> Path:
    """As `ns-process-data` lays a sequence out, intrinsics in each frame."""
    frames = []
    for v in range(len(rig.views)):
        name = f"images/frame_{v + 1:05d}.png"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        iio.imwrite(folder / name, rig.frames[v, 0])
        frame = {"file_path": name, "colmap_im_id": v + 1, **entry(rig, v)}
        frames.append({**frame, "time": float(rig.times[v])} if timed else frame)
    write_json(folder, {**nerfstudio(), **top, "frames": frames})
    return folder


def write_videos(folder: Path, rig: Rig, starts: Sequence[int] = (), **top: Any) -> Path:
    """One entry a camera; a file whose start is later has other pictures before it."""
    frames = []
    for v, pictures in enumerate(rig.frames):
        name = f"videos/cam{v:02d}.mp4"
        start = starts[v] if starts else 0
        write_video(folder / name, [255 - pictures[0]] * start + list(pictures), rig.fps)
        frames.append({"file_path": name, **entry(rig, v), **({"start_frame": start} if starts else {})})
    write_json(folder, {"fps": rig.fps, "num_frames": rig.frames.shape[1], **top, "frames": frames})
    return folder


def nerfstudio() -> dict[str, Any]:
    """What its programs note at the top for themselves."""
    transform = [[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, -1.0, 0.0, 0.0]]
    return {"applied_transform": transform, "applied_scale": 2.0, "ply_file_path": "sparse_pc.ply"}


def entry(rig: Rig, v: int) -> dict[str, Any]:
    view = rig.views[v]
    fx, fy, cx, cy = view.intrinsics
    if view.lens == EQUIRECTANGULAR:  # nerfstudio's unit is half a turn
        fx, fy = fx * math.pi, fy * math.pi
    return {
        "transform_matrix": [*view.pose.tolist(), [0.0, 0.0, 0.0, 1.0]],
        "camera_model": MODELS[view.lens],
        "fl_x": fx,
        "fl_y": fy,
        "cx": cx,
        "cy": cy,
        "w": view.width,
        "h": view.height,
        **dict(zip(DISTORTION, view.distortion, strict=True)),
    }


def write_json(folder: Path, values: Any) -> None:
    (folder / ONE).write_text(json.dumps(values))


def edit(folder: Path, change) -> None:
    values = json.loads((folder / ONE).read_text())
    change(values)
    write_json(folder, values)


def frame(index: int, **values: Any):
    return lambda top: top["frames"][index].update(values)


def lens(rig: Rig, code: int, scale: Sequence[float] = (1.0, 1.05, 1.1, 0.9), **coefficients: float) -> Rig:
    """The same pictures through other lenses, different in each view."""
    bent = [coefficients.get(key, 0.0) for key in DISTORTION]
    views = [
        replace(
            view,
            lens=code,
            intrinsics=tuple(np.array(view.intrinsics) * scale * (1 + 0.01 * v)),
            distortion=[k * (1 + 0.1 * v) for k in bent],
        )
        for v, view in enumerate(rig.views)
    ]
    return replace(rig, views=views)


def test_images_with_a_time(tmp_path, sweep):
    scene = images.load(write_images(tmp_path, sweep), AS_IS)
    assert images.detects(tmp_path) and not multiview.detects(tmp_path)
    assert_same_scene(scene, sweep, {"train": TRAIN, "test": TEST})
    assert (scene.format, scene.num_frames, scene.static_cameras) == ("images", COUNT, False)


def test_images_without_a_time_show_one_moment(tmp_path, sweep):
    scene = images.load(write_images(tmp_path, sweep, timed=False), AS_IS)
    still = replace(sweep, times=np.zeros(COUNT))
    assert_same_scene(scene, still, {"train": TRAIN, "test": TEST})
    assert scene.num_frames == 1


@pytest.mark.parametrize(
    ("code", "coefficients"),
    [
        (OPENCV, {"k1": 0.1, "k2": -0.02, "k3": 0.01, "k4": 0.02, "k5": 0.01, "k6": -0.01, "p1": 0.002, "p2": 0.001}),
        (FISHEYE, {"k1": 0.05, "k2": -0.01, "k3": 0.002, "k4": 0.001}),
        (EQUIRECTANGULAR, {}),
        (ORTHOGRAPHIC, {}),
    ],
)
def test_lenses(tmp_path, sweep, code, coefficients):
    bent = lens(sweep, code, **coefficients)
    assert_same_scene(images.load(write_images(tmp_path, bent), AS_IS), bent, {"train": TRAIN, "test": TEST})


def test_a_panorama_needs_no_intrinsics(tmp_path, sweep):
    width, height = sweep.views[0].width, sweep.views[0].height
    whole = (width / (2 * math.pi), height / math.pi, width / 2, height / 2)
    views = [replace(view, lens=EQUIRECTANGULAR, intrinsics=whole) for view in sweep.views]
    write_images(tmp_path, sweep, camera_model="EQUIRECTANGULAR")
    edit(tmp_path, lambda top: [each.pop(key) for each in top["frames"] for key in ("fl_x", "fl_y", "cx", "cy")])
    assert_same_scene(images.load(tmp_path, AS_IS), replace(sweep, views=views), {"train": TRAIN, "test": TEST})


def test_sizes_may_differ_and_copies_may_be_smaller(tmp_path, sweep):
    write_images(tmp_path, sweep)
    iio.imwrite(tmp_path / "images/frame_00002.png", shrink(sweep.frames[1, 0], 2))
    scene = images.load(tmp_path, AS_IS)
    assert (scene.cameras.size(0), scene.cameras.size(1)) == ((32, 24), (16, 12))
    # half the size, half the focal length
    assert scene.cameras.intrinsics[1].tolist() == pytest.approx([x / 2 for x in sweep.views[1].intrinsics])
    assert (list(scene.images("train").read())[1] == shrink(sweep.frames[1, 0], 2)).all()


def test_masks(tmp_path, sweep):
    write_images(tmp_path, sweep)
    mask = np.full(sweep.frames.shape[2:4], 255, np.uint8)
    mask[:5] = 0
    (tmp_path / "masks").mkdir()
    iio.imwrite(tmp_path / "masks/2.png", mask)
    edit(tmp_path, frame(1, mask_path="masks/2.png"))
    scene = images.load(tmp_path, AS_IS)
    assert scene.images("train").masked
    pictures = list(scene.images("train").read())
    assert (pictures[1][..., -1] == mask).all() and (pictures[0][..., -1] == 255).all()
    assert_same_scene(scene, sweep, {"train": TRAIN, "test": TEST})


def test_depth_maps(tmp_path, sweep):
    """Named by some entries, in units of the top or of the entry; not looked for while nobody asks."""
    write_images(tmp_path, sweep)
    depth = np.linspace(500, 4000, 24 * 32).reshape(24, 32).astype(np.uint16)
    iio.imwrite(tmp_path / "depth.png", depth)
    np.save(tmp_path / "depth.npy", depth.astype(np.float32))
    edit(tmp_path, frame(0, depth_file_path="depth.png"))
    edit(tmp_path, frame(1, depth_file_path="depth.npy", depth_unit_scale_factor=0.01))
    edit(tmp_path, frame(2, depth_file_path="not there.png"))
    edit(tmp_path, frame(3, depth_file_path=None))
    train = images.load(tmp_path, AS_IS).images("train")
    assert train.with_depth() == [0, 1, 2]
    for row, unit in ((0, 0.001), (1, 0.01)):
        found = train.depth_map(row)
        assert found is not None and np.allclose(found, depth * unit, rtol=1e-6)
    with pytest.raises(DataError, match=r"not there\.png: missing"):
        train.depth_map(2)
    assert train.depth_map(3) is None
    edit(tmp_path, lambda top: top.update(depth_unit_scale_factor=2.0))
    assert all(images.load(tmp_path, AS_IS).images("train").depth_map(k)[3, 4] == 2.0 * depth[3, 4] for k in (0, 1))


def test_listed_splits(tmp_path, sweep):
    names = [f"images/frame_{v + 1:05d}.png" for v in range(COUNT)]
    write_images(tmp_path, sweep, train_filenames=names[:5], val_filenames=[f"./{names[6]}"], test_filenames=names[7:])
    scene = images.load(tmp_path, AS_IS)
    assert_same_scene(scene, sweep, {"train": range(5), "val": [6], "test": [7, 8]})


def test_val_tests_where_nothing_else_does(tmp_path, sweep):
    names = [f"images/frame_{v + 1:05d}.png" for v in range(COUNT)]
    write_images(tmp_path, sweep, train_filenames=names[:5], val_filenames=names[5:])
    assert_same_scene(images.load(tmp_path, AS_IS), sweep, {"train": range(5), "test": range(5, 9)})


def test_videos(tmp_path, rig):
    scene = multiview.load(write_videos(tmp_path, rig), AS_IS)
    assert multiview.detects(tmp_path) and not images.detects(tmp_path)
    assert_same_scene(scene, rig, {"train": [0, 1, 2], "test": [3]})
    assert (scene.format, scene.num_frames, scene.fps, scene.static_cameras) == ("multiview", 4, rig.fps, True)


def test_videos_that_start_at_different_frames(tmp_path, rig):
    scene = multiview.load(write_videos(tmp_path, rig, starts=[0, 2, 1, 3]), AS_IS)
    assert_same_scene(scene, rig, {"train": [0, 1, 2], "test": [3]})


def test_a_start_at_the_top_belongs_to_no_file(tmp_path, rig):
    scene = multiview.load(write_videos(tmp_path, rig, start_frame=100), AS_IS)
    assert_same_scene(scene, rig, {"train": [0, 1, 2], "test": [3]})


def test_videos_of_two_sizes_and_lenses(tmp_path, rig):
    bent = lens(rig, FISHEYE, k1=0.05, k2=-0.01)
    write_videos(tmp_path, bent)
    write_video(tmp_path / "videos/cam01.mp4", [shrink(picture, 2) for picture in rig.frames[1]], rig.fps)
    scene = multiview.load(tmp_path, AS_IS)
    assert (scene.cameras.size(0), scene.cameras.size(1)) == ((32, 24), (16, 12))
    small = scene.images("train").select(range(4, 8))
    assert all((a == shrink(b, 2)).all() for a, b in zip(small.read(), rig.frames[1], strict=True))


def test_listed_splits_of_videos(tmp_path, rig):
    names = [f"videos/cam{v:02d}.mp4" for v in range(4)]
    write_videos(tmp_path, rig, train_filenames=names[1:], test_filenames=names[:1])
    assert_same_scene(multiview.load(tmp_path, AS_IS), rig, {"train": [1, 2, 3], "test": [0]})


def test_units_of_an_orthographic_camera_are_the_users(tmp_path, sweep):
    flat = lens(sweep, ORTHOGRAPHIC)
    scene = images.load(write_images(tmp_path, flat), AS_IS.model_copy(update={"scale_factor": 0.5}))
    assert scene.cameras.intrinsics[0, 0].item() == pytest.approx(2 * flat.views[0].intrinsics[0])


SPOILT = {
    "mask missing": (frame(2, mask_path="masks/3.png"), "masks/3.png", "restore"),
    "mask is a number": (frame(2, mask_path=3), ONE, "mask_path"),
    "depth map is a number": (frame(2, depth_file_path=3), ONE, "depth_file_path"),
    "unit of depth": (frame(2, depth_file_path="a.png", depth_unit_scale_factor=0), ONE, "depth_unit_scale_factor"),
    "listed name of no frame": (lambda top: top.update(train_filenames=["images/0.png"]), ONE, "correct one"),
    "list of numbers": (lambda top: top.update(train_filenames=[1]), ONE, "train_filenames"),
    "who trains is not listed": (
        lambda top: top.update(test_filenames=["images/frame_00001.png"]),
        ONE,
        "add 'train_filenames'",
    ),
    "name of two lines": (frame(2, file_path="a\nb.png"), ONE, "add the name of its file"),
    "pose beyond all numbers": (frame(2, transform_matrix=[[10**400] * 4] * 4), ONE, "transform_matrix"),
    "lens is a list": (frame(2, camera_model=["OPENCV"]), ONE, "EQUIRECTANGULAR"),
    "time of some": (lambda top: top["frames"][3].pop("time"), ONE, "'time'; add"),
    "flat lens by an angle": (
        lambda top: (top["frames"][1].pop("fl_x"), top["frames"][1].update(camera_model="ORTHOPHOTO")),
        ONE,
        "add the focal length",
    ),
}


@pytest.mark.parametrize(("spoil", "name", "remedy"), SPOILT.values(), ids=SPOILT)
def test_bad_images_are_one_line_with_file_and_remedy(tmp_path, sweep, spoil, name, remedy):
    write_images(tmp_path, sweep)
    edit(tmp_path, spoil)
    with pytest.raises(DataError) as error:
        images.load(tmp_path, AS_IS)
    message = str(error.value)
    assert str(tmp_path) in message and name in message and remedy in message
    assert "\n" not in message


def test_a_mask_of_another_size(tmp_path, sweep):
    write_images(tmp_path, sweep)
    iio.imwrite(tmp_path / "mask.png", np.zeros((4, 4), np.uint8))
    edit(tmp_path, frame(2, mask_path="mask.png"))
    with pytest.raises(DataError, match=r"mask\.png: 4x4, but its image is 32x24; bring"):
        images.load(tmp_path, AS_IS)


@pytest.mark.parametrize(
    ("start", "remedy"),
    [(1, "use data.num_frames=3"), (9, "lower its start_frame"), (-1, "at least 0"), (0.5, "whole")],
)
def test_a_start_too_late(tmp_path, rig, start, remedy):
    write_videos(tmp_path, rig)
    edit(tmp_path, frame(2, start_frame=start))
    with pytest.raises(DataError, match=remedy):
        multiview.load(tmp_path, AS_IS)
