"""Frames that cannot be decoded are told, counted and left out, wherever frames are kept."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from msth_taichi.checking.check import check
from msth_taichi.config import DataConfig
from msth_taichi.errors import DataError
from msth_taichi.evaluation.evaluate import evaluate, scene_of
from msth_taichi.scene.frames import FrameStore
from msth_taichi.scene.scene import load_scene
from msth_taichi.scene.statistics import temporal_median, temporal_variance
from msth_taichi.training.run import load_run
from msth_taichi.training.start import start_training
from tests.scene import data_sets
from tests.scene.damaging import spoil, write_groups
from tests.settings import changed, overrides

FRAMES, GROUP, SIZE = 20, 5, (16, 24)
CPU = torch.device("cpu")


@pytest.fixture
def capture(tmp_path):
    """Four videos; of cam02 the frames 12 to 14 are lost, and of the held-out cam00 frame 9."""
    folder = data_sets.multiview(tmp_path / "capture")
    for name in ("transforms_train.json", "transforms_test.json"):
        data_sets.edit_json(folder / name, lambda values: values.update(num_frames=FRAMES, w=SIZE[1], h=SIZE[0]))
    for camera in range(4):
        noise = np.random.default_rng(camera).integers(60, 196, (*SIZE, 3), np.uint8)
        frames = [np.roll(noise, t, 1) + np.uint8(t) for t in range(FRAMES)]
        write_groups(folder / f"videos/cam{camera:02d}.mp4", frames, GROUP)
    spoil(folder / "videos/cam02.mp4", 12)
    spoil(folder / "videos/cam00.mp4", 9)
    return folder


def tier_config(folder, tier: str) -> DataConfig:
    return DataConfig(cache=str(folder), ram_memory=None if tier == "ram" else 0)


@pytest.mark.parametrize("tier", ["ram", "disk"])
def test_a_store_without_them_holds_all_others(capture, tmp_path, tier):
    scene = load_scene(capture)
    images = scene.images("train")
    for _ in range(2):  # the second time from what the cache has noted
        store = FrameStore.from_images(images, scene.cameras, CPU, tier_config(tmp_path / "cache", tier), False)
        assert [(error.file.name, error.frame) for error in store.damage.values()] == [
            ("cam02.mp4", 12),
            ("cam02.mp4", 13),
            ("cam02.mp4", 14),
        ]
        rows = [row for row in range(len(images)) if row not in store.damage]
        whole, kept = store.whole(), images.select(rows)
        assert whole.tier == tier and len(whole) == len(rows) == len(images) - 3
        for k, frame in enumerate(kept.read()):
            assert torch.equal(whole.raw(k), torch.from_numpy(frame)), k
        image = torch.arange(len(rows))
        there = torch.stack([whole.raw(k)[3, 5] for k in range(len(rows))]).float() / 255
        assert torch.allclose(whole.gather(image, torch.full_like(image, 3), torch.full_like(image, 5)), there)
    camera = scene.cameras.names.index("cam02")
    rows = (kept.camera == camera).nonzero()[:, 0]
    frames = torch.stack([whole.raw(k) for k in rows.tolist()]).double() / 255
    assert len(frames) == FRAMES - 3
    cameras, variances = temporal_variance(whole, kept)
    assert torch.allclose(
        variances[cameras.tolist().index(camera)].double(), frames.var(0, correction=0).mean(-1), atol=1e-6
    )
    median = temporal_median(whole, rows, FRAMES, masked=False)
    assert torch.equal(median, (frames * 255).round().to(torch.uint8).median(0).values)


def test_a_cache_whose_note_is_lost_is_written_again(capture, tmp_path):
    scene, config = load_scene(capture), tier_config(tmp_path / "cache", "disk")
    first = FrameStore.from_images(scene.images("train"), scene.cameras, CPU, config, False)
    (note,) = (tmp_path / "cache").glob("*.json")
    note.unlink()
    again = FrameStore.from_images(scene.images("train"), scene.cameras, CPU, config, False)
    assert again.damage.keys() == first.damage.keys() != set() and note.is_file()


def test_training_goes_on_without_them_and_tells_so(capture, tiny_config, tmp_path, capsys):
    config = changed(tiny_config, "sampler.kind=static_dynamic", "training.eval_every=5", "training.steps=6")
    out = tmp_path / "run"
    run = start_training(str(capture), out, preset="demo", settings=overrides(config), arch="cpu")
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert len(told) == 2
    assert told[0].endswith("cam00.mp4: frame 9 is damaged and left out; restore the file or encode it again")
    assert "cam02.mp4: frames 12-14 are damaged and left out; restore" in told[1]
    assert json.loads((out / "training.json").read_text())["damaged_frames"] == {"test": 1, "train": 3}
    assert "damaged frames, left out</span><b>4</b>" in (out / "report.html").read_text()
    assert {split: len(images) for split, images in run.scene.splits.items()} == {"train": 57, "test": 19}

    loaded = load_run(out, arch="cpu")
    scene = scene_of(loaded)
    assert len(scene.images("train")) == 57 and not ((scene.images("test").frame == 9).any())
    result = evaluate(loaded, scene, every=1, progress=False)
    assert [frame["frame"] for frame in result["views"]["cam00"]["frames"]] == [t for t in range(FRAMES) if t != 9]

    again = start_training(str(capture), out, steps=8, arch="cpu", resume=True)
    assert again.step == 8 and len(again.scene.images("train")) == 57


def test_check_counts_them(capture):
    (finding,) = [f for f in check(str(capture), progress=False).findings if "cannot be decoded" in f.title]
    assert finding.level == "warning" and finding.title.startswith("4 of the 80 frames looked at")
    assert "cam00.mp4: frame 9 is" in finding.measured and "cam02.mp4: frames 12-14 are" in finding.measured
    assert set(finding.cameras) == {"cam00", "cam02"}


@pytest.mark.parametrize(("torn", "refused"), [(1, False), (2, True)])
def test_torn_images_are_left_out_as_long_as_they_are_few(tmp_path, torn, refused):
    folder = data_sets.images(tmp_path / "images", count=14)
    scene = load_scene(folder)
    images = scene.images("train")
    for key in images.keys[3 : 3 + torn].tolist():
        file = images.source.files[key]
        noise = np.random.default_rng(0).integers(0, 256, (*np.array(Image.open(file)).shape[:2], 3), np.uint8)
        Image.fromarray(noise).save(file)
        file.write_bytes(file.read_bytes()[:300])
    if refused:
        with pytest.raises(
            DataError, match=rf"unreadable image .*\({torn} of {len(images)} frames cannot be decoded\)"
        ):
            FrameStore.from_images(images, scene.cameras, CPU, DataConfig(), False)
        return
    store = FrameStore.from_images(images, scene.cameras, CPU, DataConfig(), False)
    assert list(store.damage) == [3] and store.damage[3].file == file and len(store.whole()) == len(images) - 1


def test_files_that_the_system_does_not_give_are_not_damage(tmp_path):
    scene = load_scene(data_sets.images(tmp_path / "images", count=14))
    images = scene.images("train")
    images.source.files[images.keys[3]].unlink()
    with pytest.raises(DataError, match=r"unreadable image .*No such file"):
        FrameStore.from_images(images, scene.cameras, CPU, DataConfig(), False)
