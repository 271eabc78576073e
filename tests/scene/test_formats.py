"""One tiny data set a format, and every way to spoil it."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch

from msth_taichi.config import DataConfig
from msth_taichi.errors import DataError
from msth_taichi.lenses import DISTORTION, FISHEYE, OPENCV, PINHOLE
from msth_taichi.scene.scene import load_scene
from msth_taichi.scene.sources import VideoSource
from tests.scene import data_sets
from tests.scene.data_sets import FRAMES, HEIGHT, WIDTH, edit_json, picture, write_video


def test_multiview(tmp_path):
    scene = load_scene(data_sets.multiview(tmp_path))
    train, test = scene.images("train"), scene.images("test")
    assert (scene.format, scene.static_cameras, scene.num_frames, scene.fps) == (
        "multiview",
        True,
        FRAMES,
        25,
    )
    assert scene.cameras.names == ("cam01", "cam02", "cam03", "cam00")
    assert scene.cameras.sizes.unique(dim=0).tolist() == [[WIDTH, HEIGHT]]
    assert train.camera.tolist() == [c for c in range(3) for _ in range(FRAMES)]
    assert test.camera.tolist() == [3] * FRAMES
    assert train.frame.tolist() == list(range(FRAMES)) * 3
    assert torch.equal(train.time, train.frame / FRAMES)
    # fl_y defaults to fl_x
    assert torch.equal(scene.cameras.intrinsics[:, 0], torch.tensor([21.0, 22.0, 23.0, 20.0]))
    assert torch.equal(scene.cameras.intrinsics[:, 1], scene.cameras.intrinsics[:, 0])
    assert torch.equal(scene.cameras.lens, torch.full((4,), PINHOLE, dtype=torch.int32))


def test_multiview_frames_are_those_of_the_videos(tmp_path):
    images = load_scene(data_sets.multiview(tmp_path)).images("train")
    for k, frame in enumerate(images.read()):
        expected = picture(1 + k // FRAMES + k % FRAMES)
        assert frame.dtype == np.uint8
        assert np.abs(frame.astype(int) - expected).mean() < 4  # H.264 loses a little


def test_multiview_frames_in_any_order(tmp_path):
    images = load_scene(data_sets.multiview(tmp_path)).images("train")
    everything = list(images.read())
    rows = [7, 2, 2, 4, 0, 14]
    for frame, row in zip(images.select(rows).read(), rows, strict=True):
        assert np.array_equal(frame, everything[row])


@pytest.mark.parametrize(("cameras", "train"), [(1, 1), (2, 1), (9, 8), (10, 9), (11, 10), (20, 18)])
def test_one_json_holds_out_the_last_cameras(tmp_path, cameras, train):
    data_sets.multiview(tmp_path, cameras=1, split=False)
    entry = json.loads((tmp_path / "transforms.json").read_text())["frames"][0]
    edit_json(tmp_path / "transforms.json", lambda top: top.update(frames=[entry] * cameras))
    splits = load_scene(tmp_path).splits
    assert len(splits["train"]) == train * FRAMES
    assert ("test" in splits) == (cameras > train)
    if cameras > train:
        assert splits["test"].camera.unique().tolist() == list(range(train, cameras))


def test_first_frames_only(tmp_path):
    scene = load_scene(data_sets.multiview(tmp_path), DataConfig(num_frames=2))
    assert scene.num_frames == 2
    assert scene.images("test").time.tolist() == [0.0, 0.5]
    assert len(list(scene.images("train").read())) == 6


def test_dnerf(tmp_path):
    scene = load_scene(data_sets.dnerf(tmp_path))
    assert (scene.format, scene.static_cameras) == ("dnerf", False)
    assert {name: len(images) for name, images in scene.splits.items()} == {"train": 4, "test": 2, "val": 1}
    assert len(scene.cameras) == 7
    train = scene.images("train")
    assert torch.allclose(train.time, torch.tensor([0, 1 / 3, 2 / 3, 1]))
    assert scene.num_frames == 4 and train.frame.tolist() == [0, 1, 2, 3]
    assert scene.images("test").frame.tolist() == [0, 3]
    focal = 0.5 * WIDTH / math.tan(0.4)
    assert torch.allclose(scene.cameras.intrinsics[0], torch.tensor([focal, focal, WIDTH / 2, HEIGHT / 2]))
    frames = list(train.read())
    assert all(np.array_equal(frame, picture(i, 4)) for i, frame in enumerate(frames))


def test_dnerf_without_alpha_has_three_channels(tmp_path):
    images = load_scene(data_sets.dnerf(tmp_path, channels=3)).images("train")
    assert images.channels == 3
    assert np.array_equal(next(images.read()), picture(0, 3))


def test_intrinsics_per_frame(tmp_path):
    data_sets.dnerf(tmp_path)

    def per_frame(top):
        del top["camera_angle_x"]
        for i, frame in enumerate(top["frames"]):
            frame.update(fl_x=10 + i, fl_y=11 + i, cx=7, cy=5)

    for split in ("train", "val", "test"):
        edit_json(tmp_path / f"transforms_{split}.json", per_frame)
    intrinsics = load_scene(tmp_path).cameras.intrinsics
    assert intrinsics[3].tolist() == [13, 14, 7, 5]


def test_top_level_intrinsics_override_those_of_frames(tmp_path):
    data_sets.images(tmp_path)
    edit_json(tmp_path / "transforms.json", lambda top: top.update(fl_x=30.0))
    assert load_scene(tmp_path).cameras.intrinsics[5].tolist() == [30.0, 19.0, 8.5, 6.5]


def test_images_hold_out_every_eighth_in_time(tmp_path):
    data_sets.images(tmp_path, count=13)
    edit_json(tmp_path / "transforms.json", lambda top: top["frames"].reverse())
    scene = load_scene(tmp_path)
    assert (scene.format, scene.num_frames) == ("images", 13)
    assert torch.allclose(scene.images("test").time.sort().values, torch.tensor([4 / 13, 12 / 13]))
    assert sorted(scene.images("train").keys.tolist() + scene.images("test").keys.tolist()) == list(range(13))
    # the picture belongs to its row, whatever the order of the json
    row = scene.images("train").frame.tolist().index(3)
    assert np.array_equal(next(scene.images("train").select([row]).read()), picture(3))


@pytest.mark.parametrize(
    ("values", "lens"),
    [
        ({"camera_model": "OPENCV"}, PINHOLE),
        ({"camera_model": "SIMPLE_RADIAL", "k1": 0.1}, OPENCV),
        ({"k1": 0.1, "p2": -0.01}, OPENCV),
        ({"camera_model": "OPENCV_FISHEYE"}, FISHEYE),
        ({"camera_model": "OPENCV_FISHEYE", "k4": 0.2}, FISHEYE),
    ],
)
def test_lenses(tmp_path, values, lens):
    data_sets.images(tmp_path)
    edit_json(tmp_path / "transforms.json", lambda top: (top.pop("camera_model"), top.update(values)))
    cameras = load_scene(tmp_path).cameras
    assert cameras.lens.unique().tolist() == [lens]
    expected = [values.get(key, 0.0) for key in DISTORTION]
    assert torch.allclose(cameras.distortion[0], torch.tensor(expected))


def test_distortion_at_the_top_replaces_that_of_frames_as_a_whole(tmp_path):
    data_sets.images(tmp_path)

    def spoil(top):
        top.update(k1=0.1)
        for frame in top["frames"]:
            frame.update(k1=0.5, k2=0.5)

    edit_json(tmp_path / "transforms.json", spoil)
    assert torch.allclose(load_scene(tmp_path).cameras.distortion[0], torch.tensor([0.1, 0, 0, 0, 0, 0, 0, 0]))


def test_downscale_averages_and_scales_intrinsics(tmp_path):
    data_sets.images(tmp_path)
    scene = load_scene(tmp_path, DataConfig(downscale=2))
    assert scene.cameras.sizes.unique(dim=0).tolist() == [[8, 6]]
    assert scene.cameras.intrinsics[0].tolist() == [9.0, 9.5, 4.25, 3.25]
    image = picture(int(scene.images("train").keys[0])).astype(float)
    expected = (image[::2, ::2] + image[1::2, ::2] + image[::2, 1::2] + image[1::2, 1::2]) / 4
    assert np.abs(next(scene.images("train").read()) - expected).max() <= 0.5


def test_splits_share_one_normalisation(tmp_path):
    scene = load_scene(data_sets.dnerf(tmp_path))
    positions = scene.cameras.camera_to_world[:, :, 3]
    assert positions.mean(0).abs().max() < 1e-6
    assert abs(positions.abs().max() - 0.5) < 1e-6
    undone = scene.transform.invert_poses(scene.cameras.camera_to_world.double().numpy())
    assert np.abs(undone[:4] - np.array(data_sets.poses(5))[:4, :3]).max() < 1e-5


Format = Callable[[Path], Path]
MULTIVIEW, DNERF, IMAGES = data_sets.multiview, data_sets.dnerf, data_sets.images


def edit(name: str, spoil: Callable[[dict], object]) -> Callable[[Path], None]:
    return lambda folder: edit_json(folder / name, spoil)


def frame(index: int, **values: object) -> Callable[[dict], None]:
    return lambda top: top["frames"][index].update(values)


def without(key: str, index: int = 1) -> Callable[[dict], None]:
    return lambda top: (top["frames"][index] if index >= 0 else top).pop(key)


def matrix(change: Callable[[np.ndarray], object], index: int = 1) -> Callable[[dict], None]:
    def spoil(top: dict) -> None:
        pose = np.array(top["frames"][index]["transform_matrix"])
        change(pose)
        top["frames"][index]["transform_matrix"] = pose.tolist()

    return spoil


def scale_rotation(factor: float) -> Callable[[np.ndarray], None]:
    return lambda pose: pose[:3, :3].__imul__(factor)


def truncate(name: str, share: float = 0.5) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(len(data) * share)])

    return spoil


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


TRAIN, TEST, VAL = "transforms_train.json", "transforms_test.json", "transforms_val.json"
ONE = "transforms.json"
VIDEO = "videos/cam02.mp4"
BAD_POSE = "transform_matrix"

SPOILT = {
    "video missing": (MULTIVIEW, remove(VIDEO), VIDEO, "restore"),
    "video unreadable": (MULTIVIEW, lambda f: (f / VIDEO).write_bytes(b"no video" * 99), VIDEO, "restore"),
    "video empty": (MULTIVIEW, lambda f: (f / VIDEO).write_bytes(b""), VIDEO, "restore"),
    "video cut off": (MULTIVIEW, truncate(VIDEO), VIDEO, "restore"),
    "video short": (MULTIVIEW, lambda f: write_video(f / VIDEO, frames=3), VIDEO, "data.num_frames=3"),
    "video of another shape": (MULTIVIEW, lambda f: write_video(f / VIDEO, width=32), "cam02.mp4", "without cropping"),
    "video is not w x h": (MULTIVIEW, edit(TRAIN, lambda top: top.update(w=32)), "cam01.mp4", "without cropping"),
    "image missing": (DNERF, remove("test/r_001.png"), "test/r_001.png", "restore"),
    "image unreadable": (
        DNERF,
        lambda f: (f / "val/r_000.png").write_bytes(b"?"),
        "val/r_000.png",
        "restore",
    ),
    "image of another shape": (
        IMAGES,
        lambda f: iio.imwrite(f / "images/003.png", picture(3, width=20)),
        "images/003.png",
        "without cropping",
    ),
    "image is not w x h": (IMAGES, edit(ONE, frame(2, h=13)), "images/002.png", "without cropping"),
    "image of 16 bits": (
        IMAGES,
        lambda f: iio.imwrite(f / "images/003.png", picture(3)[..., 0].astype(np.uint16)),
        "images/003.png",
        "8-bit",
    ),
    "json missing": (DNERF, remove(TEST), TEST, "restore"),
    "no json": (IMAGES, remove(ONE), "", "transforms.json"),
    "json is not json": (IMAGES, lambda f: (f / ONE).write_text('{"frames": ['), ONE, "correct"),
    "json is binary": (IMAGES, lambda f: (f / ONE).write_bytes(b"\xff\xfe\x00"), ONE, "restore"),
    "json of endless digits": (IMAGES, lambda f: (f / ONE).write_text('{"fps": ' + "1" * 5000 + "}"), ONE, "restore"),
    "json is a folder": (DNERF, lambda f: ((f / VAL).unlink(), (f / VAL).mkdir()), VAL, "restore"),
    "json is a list": (IMAGES, lambda f: (f / ONE).write_text("[]"), ONE, "add"),
    "no frames": (IMAGES, edit(ONE, without("frames", -1)), ONE, "add"),
    "zero images": (DNERF, edit(TRAIN, lambda top: top["frames"].clear()), TRAIN, "zero images"),
    "zero test images": (DNERF, edit(TEST, lambda top: top["frames"].clear()), TEST, "zero images"),
    "frames is an object": (IMAGES, edit(ONE, lambda top: top.update(frames={"a": 1})), ONE, "add"),
    "file_path too long": (IMAGES, edit(ONE, frame(1, file_path="a" * 5000 + ".png")), "aaa", "correct its name"),
    "no file_path": (IMAGES, edit(ONE, without("file_path")), ONE, "add"),
    "unknown suffix": (IMAGES, edit(ONE, frame(0, file_path="a.exr")), "", ".png"),
    "no pose": (IMAGES, edit(ONE, without("transform_matrix")), ONE, "add"),
    "no time": (DNERF, edit(TRAIN, without("time")), TRAIN, "'time'; add"),
    "no first time": (DNERF, edit(TRAIN, without("time", 0)), TRAIN, "'time'; add"),
    "no focal length": (DNERF, edit(TRAIN, without("camera_angle_x", -1)), TRAIN, "add the focal length"),
    "no num_frames": (MULTIVIEW, edit(TRAIN, without("num_frames", -1)), TRAIN, "'num_frames'; add"),
    "num_frames differ": (
        MULTIVIEW,
        edit(TEST, lambda top: top.update(num_frames=4)),
        "transforms_",
        "equal",
    ),
    "num_frames of 0": (MULTIVIEW, edit(TRAIN, lambda top: top.update(num_frames=0)), TRAIN, "at least 1"),
    "time above 1": (IMAGES, edit(ONE, frame(3, time=1.5)), ONE, "[0, 1]"),
    "time not a number": (IMAGES, edit(ONE, frame(3, time="late")), ONE, "finite number"),
    "time beyond float": (IMAGES, edit(ONE, frame(3, time=10**400)), ONE, "finite number"),
    "time negative": (DNERF, edit(TEST, frame(1, time=-0.1)), TEST, "[0, 1]"),
    "width of 0": (MULTIVIEW, edit(TRAIN, lambda top: top.update(w=0)), TRAIN, "write the size"),
    "distortion not a number": (IMAGES, edit(ONE, frame(3, k1=math.nan)), ONE, "finite number"),
    "angle not a number": (
        DNERF,
        edit(TRAIN, lambda top: top.update(camera_angle_x=math.nan)),
        TRAIN,
        "camera_angle_x is nan",
    ),
    "focal length negative": (IMAGES, edit(ONE, frame(3, fl_x=-5)), ONE, "positive"),
    "angle impossible": (DNERF, edit(TRAIN, lambda top: top.update(camera_angle_x=40)), TRAIN, "radians"),
    "unknown lens": (IMAGES, edit(ONE, lambda top: top.update(camera_model="MIRROR")), ONE, "OPENCV_FISHEYE"),
    "pose not finite": (IMAGES, edit(ONE, matrix(lambda p: p.__setitem__((0, 3), np.nan))), ONE, BAD_POSE),
    "pose infinite": (DNERF, edit(TEST, matrix(lambda p: p.__setitem__((1, 1), np.inf))), TEST, BAD_POSE),
    "pose beyond float32": (DNERF, edit(TRAIN, matrix(lambda p: p.__setitem__((0, 3), 1e300))), TRAIN, BAD_POSE),
    "pose transposed": (MULTIVIEW, edit(TEST, matrix(lambda p: p.__setitem__(..., p.T.copy()), 0)), TEST, "last row"),
    "pose scaled": (MULTIVIEW, edit(TRAIN, matrix(scale_rotation(1.01))), TRAIN, "not rigid"),
    "pose mirrored": (IMAGES, edit(ONE, matrix(scale_rotation(-1.0))), ONE, "not rigid"),
    "pose of 3 x 3": (IMAGES, edit(ONE, frame(1, transform_matrix=np.eye(3).tolist())), ONE, "4x4"),
    "pose ragged": (IMAGES, edit(ONE, frame(1, transform_matrix=[[1, 2], [3]])), ONE, "4x4"),
    "fps of 0": (MULTIVIEW, edit(TRAIN, lambda top: top.update(fps=0)), TRAIN, "positive"),
}


@pytest.mark.parametrize(("make", "spoil", "name", "remedy"), SPOILT.values(), ids=SPOILT)
def test_bad_input_is_one_line_with_file_and_remedy(tmp_path, make, spoil, name, remedy):
    folder = make(tmp_path / "data")
    spoil(folder)
    with pytest.raises(DataError) as error:
        load_scene(folder)
    message = str(error.value)
    assert str(folder) in message and name in message and remedy in message
    assert "\n" not in message


def test_poses_within_the_tolerance_are_taken(tmp_path):
    data_sets.images(tmp_path)
    edit_json(tmp_path / ONE, matrix(scale_rotation(1.0003)))
    assert len(load_scene(tmp_path).cameras) == 9


def test_damage_that_headers_hide_is_named_while_reading(tmp_path):
    data_sets.images(tmp_path / "a")
    noise = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    iio.imwrite(tmp_path / "a/images/003.png", noise)
    truncate("images/003.png", 0.6)(tmp_path / "a")
    with pytest.raises(DataError, match=r"images/003\.png: unreadable image .* restore"):
        list(load_scene(tmp_path / "a").images("train").read())


def test_cameras_of_one_name_stay_apart(tmp_path):
    data_sets.multiview(tmp_path)
    edit_json(tmp_path / TRAIN, lambda top: [entry.update(camera="cam") for entry in top["frames"]])
    assert load_scene(tmp_path).cameras.names == ("cam", "cam#2", "cam#3", "cam00")


def test_a_short_video_is_found_where_the_header_states_no_length(tmp_path):
    data_sets.multiview(tmp_path)
    for path in sorted((tmp_path / "videos").glob("*.mp4")):
        write_video(path.with_suffix(".mkv"), frames=3 if path.stem == "cam03" else FRAMES)
    for name in (TRAIN, TEST):
        text = (tmp_path / name).read_text().replace(".mp4", ".mkv")
        (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=r"cam03\.mkv: 3 frames, .* data\.num_frames=3"):
        load_scene(tmp_path)


def test_a_video_that_ends_early_is_named_while_reading(tmp_path):
    write_video(tmp_path / "a.mp4", frames=3)
    source = VideoSource((tmp_path / "a.mp4",), 5, ((WIDTH, HEIGHT),))
    with pytest.raises(DataError, match=r"a\.mp4: ends before frame 3, .*data\.num_frames"):
        list(source.read(np.arange(5)))


def test_no_such_folder(tmp_path):
    with pytest.raises(DataError, match="no such data set"):
        load_scene(tmp_path / "nothing")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="not a folder"):
        load_scene(tmp_path / "file")


def test_downscale_beyond_the_image(tmp_path):
    with pytest.raises(DataError, match=r"data\.downscale=13"):
        load_scene(data_sets.images(tmp_path), DataConfig(downscale=13))
