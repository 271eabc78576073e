"""HyperNeRF's folders, written from the built-in scene and read back."""

import pytest

from msth_taichi.errors import DataError
from msth_taichi.scene.formats import hypernerf
from msth_taichi.scene.sources import shrink
from tests.scene.formats.nerfies import FAR, NEAR, SCALE, distorted, edit, write_nerfies
from tests.scene.rig import AS_IS, assert_same_scene, room_sweep

COUNT = 9
NAMES = [f"{'left' if k % 2 == 0 else 'right'}1_{k:06d}" for k in range(COUNT)]
LEFT, RIGHT = list(range(0, COUNT, 2)), list(range(1, COUNT, 2))
HALF = AS_IS.model_copy(update={"downscale": 2})


@pytest.fixture(scope="module")
def sweep():
    return room_sweep(COUNT)


@pytest.fixture
def folder(tmp_path, sweep):
    return write_nerfies(tmp_path, sweep, NAMES, LEFT, RIGHT)


def test_a_rig_of_two(folder, sweep):
    assert hypernerf.detects(folder)
    scene = hypernerf.load(folder, AS_IS)
    assert_same_scene(scene, sweep, {"train": LEFT, "test": RIGHT})
    assert (scene.format, scene.num_frames, scene.static_cameras) == ("hypernerf", COUNT, False)
    assert scene.cameras.names == tuple(NAMES)
    # scene.json counts distances in units of its scale
    assert scene.bounds == pytest.approx((NEAR / SCALE, FAR / SCALE))


def test_lenses_and_oblong_pixels(tmp_path, sweep):
    rig = distorted(sweep)
    scene = hypernerf.load(write_nerfies(tmp_path, rig, NAMES, LEFT, RIGHT), AS_IS)
    assert_same_scene(scene, rig, {"train": LEFT, "test": RIGHT})


def test_older_name_of_the_tangential_distortion(tmp_path, sweep):
    folder = write_nerfies(tmp_path, sweep, NAMES, LEFT, RIGHT)
    edit(folder / "camera" / f"{NAMES[2]}.json", tangential=[0.003, 0.004])
    assert hypernerf.load(folder, AS_IS).cameras.distortion[2, 6:].tolist() == pytest.approx([0.003, 0.004])


def test_a_sequence_to_interpolate(tmp_path, sweep):
    folder = write_nerfies(tmp_path, sweep, NAMES, list(range(COUNT)), [])
    scene = hypernerf.load(folder, AS_IS)
    # images that neither train nor test are not read, but count as times
    assert_same_scene(scene, sweep, {"train": [0, 4, 8], "test": [2, 6]})


def test_time_id_goes_before_warp_id(folder):
    metadata = {name: {"warp_id": 0, "time_id": 3 * k, "camera_id": 0} for k, name in enumerate(NAMES)}
    edit(folder / "metadata.json", **metadata)
    times = hypernerf.load(folder, AS_IS).images("train").time.tolist()
    assert times == pytest.approx([3 * k / (3 * COUNT - 2) for k in LEFT])


def test_downscale_reads_the_folder_of_that_scale(folder, sweep):
    (folder / "rgb" / "1x").rename(folder / "rgb" / "unused")
    scene = hypernerf.load(folder, HALF)
    assert scene.cameras.size(0) == (16, 12)
    assert scene.cameras.intrinsics[0].tolist() == pytest.approx([x / 2 for x in sweep.views[0].intrinsics])
    for frame, v in zip(scene.images("train").read(), LEFT, strict=True):
        assert (frame == shrink(sweep.frames[v, 0], 2)).all()


def test_downscale_without_a_folder_averages(tmp_path, sweep):
    scene = hypernerf.load(write_nerfies(tmp_path, sweep, NAMES, LEFT, RIGHT, scales=(1,)), HALF)
    assert scene.cameras.intrinsics[0].tolist() == pytest.approx([x / 2 for x in sweep.views[0].intrinsics])
    assert (next(scene.images("train").read()) == shrink(sweep.frames[0, 0], 2)).all()


def test_images_cut_to_a_multiple(folder):
    edit(folder / "camera" / f"{NAMES[0]}.json", image_size=[33, 25])
    assert hypernerf.load(folder, HALF).cameras.size(0) == (16, 12)


def test_foreign_folders(tmp_path):
    assert not hypernerf.detects(tmp_path)
    (tmp_path / "dataset.json").write_text("?")
    assert not hypernerf.detects(tmp_path)


CAMERA, IMAGE = f"camera/{NAMES[2]}.json", f"rgb/1x/{NAMES[2]}.png"

SPOILT = {
    "camera missing": (lambda f: (f / CAMERA).unlink(), CAMERA, "restore"),
    "image missing": (lambda f: (f / IMAGE).unlink(), IMAGE, "restore"),
    "image damaged": (lambda f: (f / IMAGE).write_bytes(b"\x89PNG"), IMAGE, "restore"),
    "image of another scale": (lambda f: (f / "rgb/2x" / f"{NAMES[2]}.png").replace(f / IMAGE), IMAGE, "its scale"),
    "json damaged": (lambda f: (f / "metadata.json").write_text('{"a": '), "metadata.json", "restore"),
    "metadata short": (lambda f: (f / "metadata.json").write_text("{}"), "metadata.json", f"'{NAMES[0]}'; add"),
    "unknown id": (lambda f: edit(f / "dataset.json", train_ids=["x"]), "dataset.json", "correct"),
    "id of two lines": (lambda f: edit(f / "dataset.json", val_ids=["a\nb"]), "dataset.json", "restore"),
    "no ids": (lambda f: edit(f / "dataset.json", ids=None), "dataset.json", "restore"),
    "nothing to train on": (lambda f: edit(f / "dataset.json", train_ids=[]), "dataset.json", "restore"),
    "no images": (lambda f: (f / "rgb").rename(f / "images"), "rgb/1x", "restore"),
    "only smaller images": (lambda f: (f / "rgb/1x").rename(f / "rgb/full"), "rgb", "data.downscale=2"),
    "scale of 0": (lambda f: edit(f / "scene.json", scale=0), "scene.json", "positive"),
    "near beyond far": (lambda f: edit(f / "scene.json", near=2), "scene.json", "near below far"),
    "camera mirrored": (
        lambda f: edit(f / CAMERA, orientation=[[1, 0, 0], [0, 1, 0], [0, 0, -1]]),
        NAMES[2],
        "mirroring",
    ),
    "skewed pixels": (lambda f: edit(f / CAMERA, skew=3.0), CAMERA, "undistort"),
    "focal length of text": (lambda f: edit(f / CAMERA, focal_length="long"), CAMERA, "correct"),
}


@pytest.mark.parametrize(("spoil", "name", "remedy"), SPOILT.values(), ids=SPOILT)
def test_bad_input_is_one_line_with_file_and_remedy(folder, spoil, name, remedy):
    spoil(folder)
    with pytest.raises(DataError) as error:
        hypernerf.load(folder, AS_IS)
    message = str(error.value)
    assert str(folder) in message and name in message and remedy in message
    assert "\n" not in message
