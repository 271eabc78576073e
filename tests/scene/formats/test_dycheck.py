"""DyCheck's iPhone folders, written from the built-in scene and read back."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from msth_taichi.errors import DataError
from msth_taichi.scene.formats import dycheck, hypernerf
from tests.scene.formats.nerfies import edit, write, write_nerfies
from tests.scene.rig import AS_IS, Rig, assert_same_scene, room_sweep

TRAIN, VAL = [0, 1, 2, 3, 4, 5], [6, 7]
NAMES = [f"0_{v:05d}" for v in TRAIN] + [f"1_{v:05d}" for v in (1, 2)]


@pytest.fixture(scope="module")
def sweep():
    return room_sweep(8)


@pytest.fixture
def folder(tmp_path, sweep):
    return write_dycheck(sweep, tmp_path)


def write_dycheck(sweep: Rig, folder: Path) -> Path:
    """The hand-held camera sees times 0 to 5; the one that stands still sees 1 and 2 of them."""
    write_nerfies(folder, sweep, NAMES, TRAIN, VAL)
    ids = [(int(name[2:]), int(name[0])) for name in NAMES]
    metadata = {n: {"warp_id": t, "appearance_id": t, "camera_id": c} for n, (t, c) in zip(NAMES, ids, strict=True)}
    write(folder / "metadata.json", metadata)
    extra = {"factor": 2, "fps": 60.0, "bbox": [[-1, -1, -1], [1, 1, 1]], "lookat": [0, 0, 1], "up": [0, 1, 0]}
    write(folder / "extra.json", extra)
    for split, rows in (("train", TRAIN), ("val", VAL)):
        values = {
            "frame_names": [NAMES[v] for v in rows],
            "camera_ids": [ids[v][1] for v in rows],
            "time_ids": [ids[v][0] for v in rows],
        }
        write(folder / "splits" / f"{split}.json", values)
    for name in ("depth/1x", "covisible/1x/val", "keypoint/1x/train"):
        (folder / name).mkdir(parents=True)
    return folder


def test_as_published(folder, sweep):
    assert dycheck.detects(folder) and not hypernerf.detects(folder)
    scene = dycheck.load(folder, AS_IS)
    times = [int(name[2:]) / len(TRAIN) for name in NAMES]
    assert_same_scene(scene, replace(sweep, times=np.array(times)), {"train": TRAIN, "test": VAL})
    assert (scene.format, scene.num_frames, scene.fps) == ("dycheck", 6, 60.0)


@pytest.mark.parametrize("scale", [1, 2])
def test_depth_maps(folder, scale):
    """Of the scale that is used, and of the images that have one; in units of the cameras."""
    depth = np.linspace(0.5, 2, 24 * 32 // scale**2, dtype=np.float32).reshape(24 // scale, 32 // scale, 1)
    (folder / f"depth/{scale}x").mkdir(exist_ok=True)
    for v in (0, 3):
        np.save(folder / f"depth/{scale}x/{NAMES[v]}.npy", depth)
    scene = dycheck.load(folder, AS_IS.model_copy(update={"downscale": scale}))
    train = scene.images("train")
    assert train.with_depth() == [0, 3] and not scene.images("test").with_depth()
    assert np.array_equal(train.depth_map(3), depth[..., 0])


def test_without_splits(folder):
    for split in ("train", "val"):
        (folder / "splits" / f"{split}.json").unlink()
    (folder / "splits").rmdir()
    assert dycheck.detects(folder)
    assert len(dycheck.load(folder, AS_IS).images("test")) == len(VAL)


def test_a_folder_of_hypernerf_that_dycheck_has_been_in(folder):
    for split in ("train", "val"):
        (folder / "splits" / f"{split}.json").rename(folder / "splits" / f"{split}_mono.json")
    assert hypernerf.detects(folder) and not dycheck.detects(folder)


SPLIT = "splits/val.json"

SPOILT = {
    "split missing": (lambda f: (f / SPLIT).unlink(), SPLIT, "restore"),
    "split damaged": (lambda f: (f / SPLIT).write_bytes(b"\xff"), SPLIT, "restore"),
    "split of another scene": (lambda f: edit(f / SPLIT, frame_names=["2_00000"]), SPLIT, "correct"),
    "no frame rate": (lambda f: edit(f / "extra.json", fps=0), "extra.json", "positive"),
    "image cut off": (lambda f: (f / "rgb/1x/1_00001.png").write_bytes(b""), "1_00001.png", "restore"),
}


@pytest.mark.parametrize(("spoil", "name", "remedy"), SPOILT.values(), ids=SPOILT)
def test_bad_input_is_one_line_with_file_and_remedy(folder, spoil, name, remedy):
    spoil(folder)
    with pytest.raises(DataError) as error:
        dycheck.load(folder, AS_IS)
    message = str(error.value)
    assert str(folder) in message and name in message and remedy in message
    assert "\n" not in message
