"""Scenes written in the project's format and read back."""

import json
from dataclasses import replace
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest

from msth_taichi.config import DataConfig
from msth_taichi.errors import DataError
from msth_taichi.lenses import EQUIRECTANGULAR, FISHEYE, OPENCV, ORTHOGRAPHIC, PINHOLE
from msth_taichi.scene.assemble import image_scene, video_scene
from msth_taichi.scene.scene import load_scene
from msth_taichi.scene.sources import DepthMap
from msth_taichi.scene.write import write_transforms
from tests.scene.rig import AS_IS, assert_same_scene, room_rig, room_sweep, write_video

PLACED = DataConfig(orientation="up", center=True, auto_scale=True, scale_factor=0.7)

LENSES = {
    PINHOLE: ((20.0, 21.0, 15.5, 12.5), (0.0,) * 8),
    OPENCV: ((20.0, 21.0, 15.5, 12.5), (0.05, -0.02, 0.01, 0.001, 0.002, -0.001, 0.003, -0.004)),
    FISHEYE: ((14.0, 14.5, 15.5, 12.5), (0.05, -0.02, 0.01, 0.001, 0.0, 0.0, 0.0, 0.0)),
    EQUIRECTANGULAR: ((32 / (2 * np.pi), 24 / np.pi, 16.0, 12.0), (0.0,) * 8),
    ORTHOGRAPHIC: ((9.0, 10.0, 15.5, 12.5), (0.0,) * 8),
}


@pytest.fixture(scope="module")
def rig():
    return room_rig(cameras=3, frames=3)


@pytest.fixture(scope="module")
def sweep():
    return room_sweep(count=4)


def with_lens(rig, lens):
    intrinsics, distortion = LENSES[lens]
    return replace(
        rig, views=[replace(view, lens=lens, intrinsics=intrinsics, distortion=distortion) for view in rig.views]
    )


def videos(rig, folder, config=AS_IS, starts=None, **settings):
    files = [folder / f"cam{v}.mp4" for v in range(len(rig.views))]
    for v, file in enumerate(files):
        late = (starts or [0] * len(files))[v]
        write_video(file, [*[np.zeros_like(rig.frames[v, 0])] * late, *rig.frames[v]], rig.fps)
    splits = settings.pop("splits", {"train": [0, 1], "test": [2]})
    return video_scene(
        folder,
        config,
        format="test",
        views=rig.views,
        files=files,
        splits=splits,
        num_frames=rig.frames.shape[1],
        fps=rig.fps,
        starts=starts,
    )


def images(rig, folder, config=AS_IS, masks=None, names=None, depths=None):
    files = [folder / (names[v] if names else f"{v}.png") for v in range(len(rig.views))]
    for file, frame in zip(files, rig.frames[:, 0], strict=True):
        file.parent.mkdir(parents=True, exist_ok=True)
        iio.imwrite(file, frame)
    return image_scene(
        folder,
        config,
        format="test",
        views=rig.views,
        files=files,
        camera=range(len(files)),
        times=rig.times,
        splits={"train": [0, 1, 2], "test": [3]},
        masks=masks,
        depths=depths,
    )


@pytest.mark.parametrize("config", [AS_IS, PLACED], ids=["as_is", "placed"])
@pytest.mark.parametrize("lens", LENSES)
def test_videos_of_every_lens(rig, tmp_path, lens, config):
    changed = with_lens(rig, lens)
    paths = write_transforms(videos(changed, tmp_path / "in", config), tmp_path / "out", progress=False)
    assert [path.name for path in paths] == ["transforms_train.json", "transforms_test.json"]
    scene = load_scene(tmp_path / "out", AS_IS)
    assert_same_scene(scene, changed, {"train": [0, 1], "test": [2]})
    assert (scene.format, scene.fps, scene.num_frames) == ("multiview", rig.fps, 3)
    assert scene.cameras.names == ("cam00", "cam01", "cam02")
    assert set(scene.cameras.lens.tolist()) == {lens}


def test_frame_offsets(rig, tmp_path):
    write_transforms(videos(rig, tmp_path / "in", starts=[0, 2, 1]), tmp_path / "out", progress=False)
    assert_same_scene(load_scene(tmp_path / "out", AS_IS), rig, {"train": [0, 1], "test": [2]})
    entries = json.loads((tmp_path / "out" / "transforms_train.json").read_text())["frames"]
    assert [entry.get("start_frame") for entry in entries] == [None, 2]


@pytest.mark.parametrize("config", [AS_IS, PLACED], ids=["as_is", "placed"])
def test_images_of_one_moving_camera(sweep, tmp_path, config):
    write_transforms(images(sweep, tmp_path / "in", config), tmp_path / "out", progress=False)
    assert_same_scene(load_scene(tmp_path / "out", AS_IS), sweep, {"train": [0, 1, 2], "test": [3]})


def test_images_of_the_same_name_in_several_folders(sweep, tmp_path):
    names = [f"rig/{v}/frame.png" for v in range(4)]
    write_transforms(images(sweep, tmp_path / "in", names=names), tmp_path / "out", progress=False)
    assert_same_scene(load_scene(tmp_path / "out", AS_IS), sweep, {"train": [0, 1, 2], "test": [3]})
    assert (tmp_path / "out" / "images" / "2" / "frame.png").exists()


def test_masks(sweep, tmp_path):
    mask = np.zeros((24, 32), np.uint8)
    mask[5:] = 255
    path = tmp_path / "in" / "kept.png"
    path.parent.mkdir()
    iio.imwrite(path, mask)
    scene = images(sweep, tmp_path / "in", masks=[path, None, None, None])
    write_transforms(scene, tmp_path / "out", progress=False)
    again = load_scene(tmp_path / "out", AS_IS)
    for before, after in zip(scene.images("train").read(), again.images("train").read(), strict=True):
        np.testing.assert_array_equal(before, after)
    assert again.images("train").masked


def test_depth_maps(sweep, tmp_path):
    """Of images that have one, with their units; a copy keeps what is in the files."""
    depth = np.linspace(1, 2, 24 * 32).reshape(24, 32).astype(np.float32)
    path = tmp_path / "in" / "measured" / "0.npy"
    path.parent.mkdir(parents=True)
    np.save(path, depth)
    scene = images(sweep, tmp_path / "in", PLACED, depths=[DepthMap(path, 0.5), None, None, None])
    write_transforms(scene, tmp_path / "out", copy=True, progress=False)
    train = load_scene(tmp_path / "out", AS_IS).images("train")
    assert train.with_depth() == [0] and np.array_equal(train.depth_map(0), depth * 0.5)
    assert (tmp_path / "out" / "depths" / "0.npy").is_file()


@pytest.mark.parametrize("splits", [{"train": [0, 1, 2]}, {"train": [0, 2], "val": [1]}])
def test_without_a_test_split(rig, tmp_path, splits):
    write_transforms(videos(rig, tmp_path / "in", splits=splits), tmp_path / "out", progress=False)
    scene = load_scene(tmp_path / "out", AS_IS)
    assert_same_scene(scene, rig, splits)


def test_links_copies_and_second_calls(rig, tmp_path):
    scene, out = videos(rig, tmp_path / "in"), tmp_path / "out"
    video = out / "videos" / "cam1.mp4"
    write_transforms(scene, out, progress=False)
    assert video.is_symlink() and not Path(video.readlink()).is_absolute()
    first = video.lstat().st_mtime_ns
    write_transforms(scene, out, progress=False)
    assert video.lstat().st_mtime_ns == first

    write_transforms(scene, out, copy=True, progress=False)
    assert not video.is_symlink() and video.read_bytes() == (tmp_path / "in" / "cam1.mp4").read_bytes()
    video.write_bytes(b"broken off")
    write_transforms(scene, out, copy=True, progress=False)
    assert_same_scene(load_scene(out, AS_IS), rig, {"train": [0, 1], "test": [2]})
    write_transforms(scene, out, progress=False)
    assert video.is_symlink()


def test_json_of_an_earlier_call_does_not_stay(rig, tmp_path):
    write_transforms(videos(rig, tmp_path / "in"), tmp_path / "out", progress=False)
    write_transforms(videos(rig, tmp_path / "in", splits={"train": [0, 1, 2]}), tmp_path / "out", progress=False)
    assert_same_scene(load_scene(tmp_path / "out", AS_IS), rig, {"train": [0, 1, 2]})


def test_what_has_no_files_cannot_be_linked(tiny_scene, rig, tmp_path):
    with pytest.raises(DataError, match="not made of video or image files"):
        write_transforms(tiny_scene, tmp_path / "out")
    with pytest.raises(DataError, match=r"data.downscale=2"):
        write_transforms(videos(rig, tmp_path / "in", AS_IS.model_copy(update={"downscale": 2})), tmp_path / "out")
    assert not (tmp_path / "out").exists()
