from dataclasses import replace

import pytest
import torch

from msth_taichi.config import DataConfig, SamplerConfig
from msth_taichi.errors import ConfigError
from msth_taichi.sampling import ImportanceSampler, UniformSampler, make_sampler
from msth_taichi.sampling.cells import Cells
from msth_taichi.sampling.importance import CELL_BYTES, importance_map
from msth_taichi.scene.frames import FrameStore
from msth_taichi.scene.scene import Scene, load_scene
from tests.sampling import tables
from tests.sampling.test_weights import GAMMA, expected_isg, expected_ist
from tests.scene import data_sets

TOP = (12, 6, 7)
"""Images, and the most rows and columns."""


@pytest.fixture
def scene(tiny_scene) -> Scene:
    return replace(tiny_scene, cameras=tables.cameras(), splits={"train": tables.images(tables.Source())})


def config(**settings) -> SamplerConfig:
    return SamplerConfig(**{"kind": "importance", "gamma": GAMMA, "floor": 0.15, "shift": 2, **settings})


def make(scene, store, settings: SamplerConfig, seed: int = 3) -> ImportanceSampler:
    generator = torch.Generator(store.device).manual_seed(seed)
    sampler = make_sampler(scene, store, settings, store.device, generator)
    assert isinstance(sampler, ImportanceSampler)
    return sampler


def counts(batch) -> torch.Tensor:
    """(images, rows, columns) times that each pixel was drawn."""
    index = (batch.image * TOP[1] + batch.row) * TOP[2] + batch.column
    return torch.bincount(index, minlength=TOP[0] * TOP[1] * TOP[2]).view(TOP).cpu()


def brute_force(store, weights) -> torch.Tensor:
    """(images, rows, columns) weights from those of each camera's frames in order of time."""
    found = torch.zeros(TOP, dtype=torch.float64)
    for camera, (width, height) in enumerate(tables.SIZES):
        for k, weight in zip(tables.ordered(camera), weights(store, camera), strict=True):
            found[k, :height, :width] = weight
    return found


def in_cells(chance: torch.Tensor, edge: int) -> torch.Tensor:
    """The same chances, even within cells of each image."""
    found = torch.zeros_like(chance)
    for k, camera in enumerate(tables.CAMERA):
        width, height = tables.SIZES[camera]
        for y in range(0, height, edge):
            for x in range(0, width, edge):
                part = (k, slice(y, min(y + edge, height)), slice(x, min(x + edge, width)))
                found[part] = chance[part].mean()
    return found


@pytest.mark.parametrize("weight", ["isg", "ist"])
@pytest.mark.parametrize("edge", [1, 3])
def test_pixels_are_drawn_by_their_weight(scene, device, weight, edge):
    store = tables.store(device)
    total = Cells(store.sizes, edge, device).total
    sampler = make(scene, store, config(weight=weight, uniform=0, map_memory=total * CELL_BYTES / 1e6))
    weights = expected_isg if weight == "isg" else lambda store, camera: expected_ist(store, camera, 2)
    chance = in_cells(brute_force(store, weights), edge)
    chance[chance < 1e-3 * chance.max()] = 0  # too rare to count
    batch = sampler.sample(0, 200_000)
    drawn = counts(batch)
    assert drawn[chance == 0].sum() < 100
    tables.assert_drawn_by(chance, torch.where(chance > 0, drawn, 0))
    assert not batch.dynamic.any()


def test_a_share_is_drawn_evenly(scene, device):
    store = tables.store(device)
    sampler = make(scene, store, config(uniform=0.4))
    chance = brute_force(store, expected_isg)
    inside = brute_force(store, lambda store, camera: expected_isg(store, camera) * 0 + 1)
    chance = 0.6 * chance / chance.sum() + 0.4 * inside / inside.sum()
    tables.assert_drawn_by(chance, counts(sampler.sample(0, 50_000, batches=4)))


def test_masked_pixels_have_no_weight(scene, device):
    scene.splits["train"] = tables.images(tables.Source(4, True))
    store = tables.store(device, channels=4)
    for weight in ("isg", "ist"):
        sampler = make(scene, store, config(weight=weight, uniform=0))
        batch = sampler.sample(0, 5000)
        assert (store.gather(batch.image, batch.row, batch.column)[:, 3] == 1).all()


def test_one_weight_first_then_the_other(scene, device):
    store = tables.store(device)
    both = make(scene, store, config(weight="isg_ist", ist_step=100))
    for step, weight in ((0, "isg"), (99, "isg"), (100, "ist"), (10**6, "ist")):
        alone = make(scene, store, config(weight=weight)).sample(step, 500)
        both._generator.manual_seed(3)
        assert torch.equal(both.sample(step, 500).image, alone.image), step


def test_maps_keep_to_their_memory(scene):
    store = tables.store(torch.device("cpu"))
    for weight in ("isg", "isg_ist"):
        for memory in (100e-6, 400e-6, 1e-3):
            sampler = make(scene, store, config(weight=weight, map_memory=memory))
            assert sum(sums.nbytes for sums in sampler._maps) <= memory * 1e6
    with pytest.raises(ConfigError, match=r"sampler\.map_memory"):
        make(scene, store, config(map_memory=1e-5))


def test_batches_drawn_at_once_are_whole_batches(scene, device):
    sampler = make(scene, tables.store(device), config(uniform=0.25))
    batch = sampler.sample(7, 40, batches=3)
    assert len(batch) == 120
    alone = make(scene, tables.store(device), config(uniform=0.25)).sample(7, 40, batches=3)
    for name in ("image", "row", "column", "dynamic"):
        assert torch.equal(getattr(batch, name), getattr(alone, name)), "by the generator alone"
    rows = torch.stack([batch.image, batch.row, batch.column], 1).view(3, -1)
    assert len({tuple(row) for row in rows.tolist()}) == 3
    assert len(sampler.sample(0, 0)) == 0 and len(sampler.sample(0, 1)) == 1
    assert not sampler.learns and sampler.state() == {}


def test_where_nothing_changes_all_pixels_are_alike(scene, device):
    store = tables.store(device)
    store.pixels.fill_(7)
    batch = make(scene, store, config(uniform=0)).sample(0, 30_000)
    even = UniformSampler(scene.images("train"), scene.cameras, device, torch.Generator(device).manual_seed(3))
    assert torch.equal(counts(batch), counts(even.sample(0, 30_000)))


def test_cells_without_weight_are_never_drawn(device):
    """Running sums of few units, of two images with 4 and 6 cells."""
    cells = Cells(torch.tensor([[2, 2], [3, 2]]), 1, device)
    weights = torch.tensor([0, 1, 0, 2, 0, 0, 1, 0, 3, 0], device=device)
    sums = torch.cat([part.cumsum(0) for part in weights.split([4, 6])]).int()
    # its images are of another table, and no pixel is drawn evenly
    even = UniformSampler(tables.images(), tables.cameras(), device, torch.Generator(device))
    generator = torch.Generator(device).manual_seed(0)
    batch = ImportanceSampler(cells, [sums], even, config(uniform=0), generator).sample(0, 7000)
    drawn = cells.index(batch.image, batch.row, batch.column)
    tables.assert_drawn_by(weights, torch.bincount(drawn, minlength=10))


def test_whole_images_of_the_largest_weight_do_not_overflow():
    """2^30 is the most that the weights of an image add up to, beside rounding."""
    sizes = torch.tensor([[1000, 700]] * 2)
    cells = Cells(sizes, 10, torch.device("cpu"))
    scene_images = tables.images().select([1, 2])

    def weigh(rows, _edge):
        for k in rows.tolist():
            yield k, 0, torch.full((700, 1000), 2**16, dtype=torch.int32)

    sums = importance_map(scene_images, cells, weigh)
    ends = sums[cells.ends - 1]
    assert (ends > 2**29).all() and (sums > 0).all() and sums.dtype == torch.int32


@pytest.mark.parametrize("tier", ["ram", "disk"])
def test_tiers_give_the_same_map(tmp_path, tier):
    scene = load_scene("synthetic:cameras=2,test_cameras=1,frames=5,width=24,height=18")
    images, cpu = scene.images("train"), torch.device("cpu")
    data = DataConfig(cache=str(tmp_path), ram_memory=1 if tier == "ram" else 0)
    store = FrameStore.from_images(images, scene.cameras, cpu, data, progress=False)
    assert store.tier == tier
    near = FrameStore.of(torch.stack([store.raw(k) for k in range(10)]), cpu)
    batches = [make(scene, s, config(weight="isg_ist", ist_step=0)).sample(0, 500) for s in (store, near)]
    assert torch.equal(batches[0].image, batches[1].image) and torch.equal(batches[0].row, batches[1].row)
    # it looks where things move
    moving = torch.stack([torch.from_numpy(images.moving(k)) for k in range(10)])
    batch = make(scene, store, config(uniform=0, gamma=0.1)).sample(0, 2000)
    assert moving[batch.image, batch.row, batch.column].float().mean() > 3 * moving.float().mean()


def test_cameras_that_move_are_refused(tmp_path):
    scene = load_scene(data_sets.dnerf(tmp_path))
    store = FrameStore.of(torch.zeros(4, 12, 16, 4, dtype=torch.uint8), torch.device("cpu"))
    with pytest.raises(ConfigError, match=r"importance.*move; use sampler\.kind='uniform' or 'error_map'"):
        make(scene, store, config())


def test_one_frame_of_a_camera_is_refused(scene):
    scene.splits["train"] = tables.images().select([0, 1, 2])
    with pytest.raises(ConfigError, match="two images or more of each camera"):
        make(scene, tables.store(torch.device("cpu")), config())


@pytest.mark.gpu
def test_the_host_never_waits_for_the_gpu(scene):
    sampler = make(scene, tables.store(torch.device("cuda")), config(weight="isg_ist"))
    sampler.sample(0, 100)
    torch.cuda.set_sync_debug_mode("error")
    try:
        sampler.sample(20000, 1000, batches=16)
    finally:
        torch.cuda.set_sync_debug_mode("default")
