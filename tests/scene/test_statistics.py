import os

import numpy as np
import pytest
import torch

from msth_taichi.config import DataConfig, SamplerConfig
from msth_taichi.sampling import make_sampler
from msth_taichi.scene import frame_cache, statistics, statistics_cache
from msth_taichi.scene.frames import FrameStore
from msth_taichi.scene.scene import load_scene, make_images
from msth_taichi.scene.statistics import temporal_median, temporal_variance
from msth_taichi.scene.statistics_cache import cached_statistics
from msth_taichi.scene.synthetic import synthetic_scene
from tests.scene import data_sets


class Masked:
    """A source whose frames have a mask."""

    channels, masked = 4, True


def table(camera: list[int], source=None):
    count = len(camera)
    return make_images(camera, np.zeros(count), np.zeros(count), np.arange(count), source)


def random_frames(count: int, channels: int = 3) -> torch.Tensor:
    """(count, 5, 4, channels) uint8; the fourth channel is a mask."""
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(256, (count, 5, 4, channels), generator=generator, dtype=torch.uint8)
    if channels == 4:
        frames[..., 3] = torch.where(frames[..., 3] > 100, 255, 0)
        frames[:, 0, 0, 3] = 0  # never counts
    return frames


def test_population_variance_of_each_camera(device):
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(256, (23, 3, 4, 4), generator=generator, dtype=torch.uint8).to(device)
    # interleaved, unequal, and longer than a block
    camera = [5, 2, 5] + [2, 2] * 6 + [5] * 8
    cameras, variance = temporal_variance(FrameStore.of(frames, device), table(camera))
    assert cameras.tolist() == [2, 5] and [v.shape for v in variance] == [(3, 4)] * 2
    for u, c in enumerate(cameras.tolist()):
        colors = frames[torch.tensor(camera) == c][..., :3].double() / 255
        expected = colors.var(0, correction=0).mean(-1)
        assert torch.allclose(variance[u].double(), expected, atol=1e-7)


def test_what_does_not_change_has_variance_0(device):
    frames = torch.full((9, 2, 2, 3), 255, dtype=torch.uint8, device=device)
    frames[4, 0, 1] = 0
    _, variance = temporal_variance(FrameStore.of(frames, device), table([0] * 9))
    assert (variance[0] > 0).tolist() == [[False, True], [False, False]]


def test_dynamic_pixels_of_the_built_in_scene_are_where_things_move():
    scene = synthetic_scene(cameras=2, test_cameras=1, frames=6, width=48, height=36)
    images = scene.images("train")
    store = FrameStore.from_images(images, scene.cameras, torch.device("cpu"), DataConfig(), progress=False)
    cameras, variance = temporal_variance(store, images)
    for u in cameras.tolist():
        moving = np.stack([images.moving(k) for k in range(6 * u, 6 * u + 6)])
        dynamic = variance[u].numpy() > 0.01
        assert dynamic.any()
        # colours are averaged over a pixel, motion is known at its centre: edges may differ
        assert (dynamic & ~moving.any(0)).sum() < 0.1 * dynamic.sum()


def test_variance_is_of_the_frames_in_which_a_pixel_counts(device):
    frames = random_frames(19, 4).to(device)
    _, (variance,) = temporal_variance(FrameStore.of(frames, device), table([0] * 19, Masked()))
    for y, x in np.ndindex(5, 4):
        colors = frames[frames[:, y, x, 3] > 0, y, x, :3].double() / 255
        expected = colors.var(0, correction=0).mean() if len(colors) else torch.zeros(())
        assert abs(float(variance[y, x]) - float(expected)) < 1e-7


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("count", [1, 2, 6, 7])
def test_median_of_all_frames(device, channels, count):
    frames = random_frames(9, channels)
    rows = torch.randperm(9, generator=torch.Generator().manual_seed(1))[:count]
    median = temporal_median(FrameStore.of(frames.to(device), device), rows, 100, channels == 4)
    assert median.shape == (5, 4, 3) and median.dtype == torch.uint8
    for y, x in np.ndindex(5, 4):
        values = frames[rows, y, x]
        values = values[values[:, 3] > 0] if channels == 4 else values
        # the lower of the middle two
        expected = values[:, :3].sort(0).values[(len(values) - 1) // 2].tolist() if len(values) else [0] * 3
        assert median[y, x].tolist() == expected


@pytest.mark.parametrize("channels", [3, 4])
def test_median_looks_at_so_many_frames_and_memory_at_most(device, channels, monkeypatch):
    frames = random_frames(21, channels)
    store, rows, asked = FrameStore.of(frames.to(device), device), torch.arange(21), []
    whole = temporal_median(store, rows, 5, channels == 4)
    assert torch.equal(whole, temporal_median(store, torch.tensor([0, 5, 10, 15, 20]), 5, channels == 4))
    monkeypatch.setattr(statistics, "WORKING_BYTES", 1)
    read = store.raw
    monkeypatch.setattr(store, "raw", lambda k: asked.append(k) or read(k))
    assert torch.equal(temporal_median(store, rows, 5, channels == 4), whole)
    assert asked == [0, 5, 10, 15, 20] * 5, "row by row"


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """Image files in a store, and a folder in which statistics of any size are kept."""
    monkeypatch.setattr(statistics_cache, "WORTHWHILE", 0)
    scene = load_scene(data_sets.dnerf(tmp_path / "data"))
    images, data = scene.images("train"), DataConfig(cache=str(tmp_path / "cache"))
    return images, FrameStore.from_images(images, scene.cameras, torch.device("cpu"), data, progress=False), data


class Compute:
    """Counts how often it is asked."""

    def __init__(self):
        self.calls = 0

    def __call__(self) -> dict[str, torch.Tensor]:
        self.calls += 1
        return {"mean": torch.tensor([0.1, 0.2]), "count": torch.arange(3)}


def test_statistics_are_worked_out_once_and_again_when_anything_changes(kept):
    images, store, data = kept
    compute = Compute()

    def found(settings=None, table=images, data=data):
        result = cached_statistics(store, table, settings or {"kind": "a", "edge": 1}, compute, data)
        assert all(torch.equal(result[name], value) for name, value in Compute()().items())
        return compute.calls

    assert [found(), found(), found({"kind": "a", "edge": 1})] == [1, 1, 1]
    assert [found({"kind": "a", "edge": 2}), found({"kind": "b", "edge": 1}), found()] == [2, 3, 3]
    later = make_images(images.camera, images.time + 0.01, images.frame, images.keys, images.source)
    fewer = images.select([0, 1])
    assert [found(table=later), found(table=fewer), found()] == [4, 5, 5]
    file = images.source.files[0]
    os.utime(file, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns + 1))
    assert [found(), found()] == [6, 6]
    assert [found(data=None), found(data=None)] == [7, 8], "no folder, nothing kept"


def test_statistics_are_listed_and_cleared_with_frames(kept):
    images, store, data = kept
    cached_statistics(store, images, {"kind": "a"}, Compute(), data)
    folder = frame_cache.cache_folder(data)
    ((path, size, origin),) = frame_cache.caches(folder)
    assert path.suffix == ".statistics" and size == path.stat().st_size and origin.endswith("r_000.png")
    (folder / f".{path.stem}.123{path.suffix}").write_bytes(b"half written")
    assert frame_cache.clear(folder) >= size and not list(folder.iterdir())


def test_a_damaged_file_or_folder_costs_time_only(kept, tmp_path):
    images, store, data = kept
    compute = Compute()
    cached_statistics(store, images, {}, compute, data)
    ((path, *_),) = frame_cache.caches(frame_cache.cache_folder(data))
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    cached_statistics(store, images, {}, compute, data)
    assert compute.calls == 2 and path.read_bytes() == whole
    (tmp_path / "file").write_text("not a folder")
    nowhere = DataConfig(cache=str(tmp_path / "file" / "below"))
    assert "mean" in cached_statistics(store, images, {}, compute, nowhere) and compute.calls == 3


def test_statistics_of_few_frames_are_not_kept(kept, monkeypatch):
    images, store, data = kept
    monkeypatch.setattr(statistics_cache, "WORTHWHILE", store.nbytes + 1)
    cached_statistics(store, images, {}, Compute(), data)
    assert not frame_cache.caches(frame_cache.cache_folder(data))


@pytest.mark.parametrize("kind", ["static_dynamic", "importance"])
def test_samplers_draw_the_same_from_kept_statistics(kept, tmp_path, monkeypatch, kind):
    scene, data = synthetic_scene(cameras=2, test_cameras=1, frames=5, width=24, height=18), kept[2]
    cpu = torch.device("cpu")
    store = FrameStore.from_images(scene.images("train"), scene.cameras, cpu, DataConfig(), progress=False)

    def draw(variance: float = 0.01, **settings) -> torch.Tensor:
        config = SamplerConfig(kind=kind, variance=variance, weight="isg_ist", ist_step=0, **settings)
        sampler = make_sampler(scene, store, config, cpu, torch.Generator().manual_seed(0), data=data)
        return sampler.sample(0, 500).image

    first = draw()
    with monkeypatch.context() as patch:

        def refuse(_):
            raise AssertionError("frames were looked at again")

        patch.setattr(store, "raw", refuse)
        assert torch.equal(draw(), first)
        draw(variance=0.02)  # a threshold, which is no part of the statistics
        if kind == "importance":
            draw(uniform=0.5)
            with pytest.raises(AssertionError, match="again"):
                draw(gamma=0.5)
            with pytest.raises(AssertionError, match="again"):
                draw(map_memory=0.001)
