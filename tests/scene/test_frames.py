import os

import imageio.v3 as iio
import numpy as np
import pytest
import torch

from msth_taichi.config import DataConfig
from msth_taichi.errors import DataError
from msth_taichi.scene import frame_cache
from msth_taichi.scene import frames as frames_module
from msth_taichi.scene.assemble import image_scene
from msth_taichi.scene.frames import FrameStore, choose_tier
from msth_taichi.scene.scene import load_scene
from tests.scene import data_sets
from tests.scene.rig import AS_IS, room_sweep

CPU = torch.device("cpu")


@pytest.fixture
def config(tmp_path) -> DataConfig:
    return DataConfig(cache=str(tmp_path / "cache"))


@pytest.fixture
def uneven(tmp_path):
    """Images of two sizes, some with masks."""
    rig = room_sweep(4, 32, 24)
    views, files, masks = [], [], []
    for k, view in enumerate(rig.views):
        width, height = (32, 24) if k % 2 else (20, 12)
        views.append(type(view)(view.name, view.pose, view.intrinsics, width, height))
        files.append(tmp_path / f"{k}.png")
        iio.imwrite(files[-1], rig.frames[k, 0, :height, :width])
        masks.append(tmp_path / f"mask{k}.png" if k < 2 else None)
        if masks[-1]:
            iio.imwrite(masks[-1], np.tri(height, width, dtype=np.uint8) * 200)
    splits = {"train": [3, 0, 1], "test": [2]}
    rows = range(4)
    return image_scene(
        tmp_path,
        AS_IS,
        format="images",
        views=views,
        files=files,
        camera=rows,
        times=rig.times,
        splits=splits,
        masks=masks,
    )


def tier_config(config: DataConfig, tier: str) -> DataConfig:
    return config.model_copy(update={"gpu_memory": 1e-9, "ram_memory": 0.0 if tier == "disk" else None})


@pytest.mark.parametrize("tier", ["ram", "disk"])
def test_gather_and_image_return_the_decoded_pixels(tmp_path, config, device, tier):
    scene = load_scene(data_sets.dnerf(tmp_path / "data"))
    images = scene.images("train")
    store = FrameStore.from_images(images, scene.cameras, device, tier_config(config, tier), progress=False)
    assert store.tier == tier
    expected = np.stack(list(images.read()))
    index = np.random.default_rng(0).integers(0, [4, 12, 16], (20_000, 3)).T
    colors = store.gather(*(torch.from_numpy(i).to(device) for i in index))
    assert colors.dtype == torch.float32 and colors.device.type == device.type
    assert np.allclose(colors.cpu(), expected[tuple(index)] / 255, atol=1e-7)
    assert np.allclose(store.image(2).cpu(), expected[2] / 255, atol=1e-7)
    empty = torch.zeros(0, dtype=torch.int64, device=device)
    assert store.gather(empty, empty, empty).shape == (0, 4)


@pytest.mark.gpu
def test_all_tiers_gather_the_same(tmp_path, config):
    scene = load_scene(data_sets.dnerf(tmp_path / "data"))
    images, cuda = scene.images("train"), torch.device("cuda")
    near = FrameStore.from_images(images, scene.cameras, cuda, config, progress=False)
    assert near.tier == "gpu" and near.pixels.is_cuda
    index = [torch.randint(n, (50,), device=cuda) for n in (4, 12, 16)]
    for tier in ("ram", "disk"):
        far = FrameStore.from_images(images, scene.cameras, cuda, tier_config(config, tier), progress=False)
        assert far.tier == tier and not far.pixels.is_cuda
        assert torch.equal(near.gather(*index), far.gather(*index))


@pytest.mark.parametrize("tier", ["ram", "disk"])
def test_images_of_many_sizes_with_masks(uneven, config, device, tier):
    images = uneven.images("train")
    assert images.masked and images.channels == 4
    store = FrameStore.from_images(images, uneven.cameras, device, tier_config(config, tier), progress=False)
    frames = list(images.read())
    assert [f.shape for f in frames] == [(24, 32, 4), (12, 20, 4), (24, 32, 4)]
    for k, frame in enumerate(frames):
        assert torch.equal(store.raw(k).cpu(), torch.from_numpy(frame))
        row, column = (torch.from_numpy(i).to(device) for i in np.unravel_index(np.arange(200), frame.shape[:2]))
        colors = store.gather(torch.full_like(row, k), row, column)
        assert np.allclose(colors.cpu() * 255, frame.reshape(-1, 4)[:200], atol=1e-4)
    assert (frames[0][..., 3] == 255).all(), "no mask: every pixel counts"
    assert np.array_equal(frames[1][..., 3] == 255, np.tri(12, 20, dtype=bool))


def test_a_cache_is_written_once_and_again_when_a_file_changes(tmp_path, config, monkeypatch):
    scene = load_scene(data_sets.dnerf(tmp_path / "data"))
    images, small = scene.images("train"), tier_config(config, "disk")
    first = FrameStore.from_images(images, scene.cameras, CPU, small, progress=False)
    (path, size, origin), *_ = frame_cache.caches(frame_cache.cache_folder(small))
    assert size == first.nbytes == 4 * 12 * 16 * 4 and origin.endswith("r_000.png")

    def refuse(*_):
        raise AssertionError("decoded again")

    with monkeypatch.context() as patch:
        patch.setattr(frame_cache, "decode", refuse)
        again = FrameStore.from_images(images, scene.cameras, CPU, small, progress=False)
        assert torch.equal(again.pixels, first.pixels)
        state = images.source.files[0].stat()
        os.utime(images.source.files[0], ns=(state.st_atime_ns, state.st_mtime_ns + 1))
        with pytest.raises(AssertionError, match="decoded again"):
            FrameStore.from_images(images, scene.cameras, CPU, small, progress=False)
    assert [p for p in path.parent.iterdir() if p.name.startswith(".")] == [], "nothing half written is left"
    others = [path.parent / name for name in ("transforms.json", "poetry.lock", "my.frames")]
    for other in others:
        other.touch()
    assert frame_cache.clear(path.parent) >= size and sorted(path.parent.iterdir()) == sorted(others)


def test_a_damaged_cache_is_written_again(tmp_path, config):
    scene = load_scene(data_sets.dnerf(tmp_path / "data"))
    images, small = scene.images("train"), tier_config(config, "disk")
    expected = FrameStore.from_images(images, scene.cameras, CPU, small, progress=False).pixels.clone()
    (path, *_), *_ = frame_cache.caches(frame_cache.cache_folder(small))
    path.write_bytes(b"short")
    assert torch.equal(FrameStore.from_images(images, scene.cameras, CPU, small, progress=False).pixels, expected)


def test_tiers_are_chosen_by_size(config, monkeypatch):
    monkeypatch.setattr(frames_module, "free_memory", lambda: 10e9)
    monkeypatch.setattr(frames_module, "free_disk", lambda _: 50e9)
    assert choose_tier(6e9, CPU, config) == "ram"
    assert choose_tier(8e9, CPU, config) == "disk", "some memory is left to others"
    assert choose_tier(6e9, CPU, config.model_copy(update={"ram_memory": 5.0})) == "disk"
    with pytest.raises(DataError, match=r"60\.0 GB.*data\.downscale"):
        choose_tier(60e9, CPU, config)
    if torch.cuda.is_available():
        assert choose_tier(6e9, torch.device("cuda"), config) == "gpu"


def test_a_folder_that_cannot_be_written_is_named(tmp_path, config):
    scene = load_scene(data_sets.dnerf(tmp_path / "data"))
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(DataError, match="cache"):
        FrameStore.from_images(scene.images("train"), scene.cameras, CPU, tier_config(config, "disk"), progress=False)
