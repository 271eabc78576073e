"""The error map: what it learns, what it draws, and that a resumed training goes on with it exactly."""

import pytest
import torch

from msth_taichi.config import DataConfig, SamplerConfig
from msth_taichi.errors import ConfigError
from msth_taichi.sampling import ErrorMapSampler, PixelBatch, make_sampler
from msth_taichi.sampling.error_map import CELL_BYTES
from msth_taichi.scene.frames import FrameStore
from msth_taichi.scene.scene import load_scene
from tests.sampling import tables
from tests.scene import data_sets

AHEAD, COUNT = 4, 300


def make(device: torch.device, seed: int = 3, **settings) -> ErrorMapSampler:
    config = SamplerConfig(**{"kind": "error_map", "map_resolution": 4, "time_bins": 2, **settings})
    generator = torch.Generator(device).manual_seed(seed)
    return ErrorMapSampler(tables.images(), tables.cameras(), config, device, generator)


def errors(batch: PixelBatch) -> torch.Tensor:
    """Large at the left of camera 0 in the first half of the time, and small elsewhere."""
    device = batch.image.device
    camera, frame = (torch.tensor(values, device=device)[batch.image] for values in (tables.CAMERA, tables.FRAME))
    large = (camera == 0) & (frame < tables.TIMES // 2) & (batch.column < 2)
    return torch.where(large, 0.5, 0.01)


def tell(sampler: ErrorMapSampler, batch: PixelBatch, step: int) -> None:
    """The errors of one step of a block."""
    part = slice(step % AHEAD * COUNT, (step % AHEAD + 1) * COUNT)
    sampler.update(batch.image[part], batch.row[part], batch.column[part], errors(batch)[part])


def train(sampler: ErrorMapSampler, first: int, last: int, early: bool) -> list[PixelBatch]:
    """Steps `first` to `last`; `early`: each block is asked for when the one before it begins, as for frames that take
    a while to come. Returns the blocks that were trained on."""
    seen, ahead = [], None
    for step in range(first, last):
        if step == first or step % AHEAD == 0:
            begin = step - step % AHEAD
            block = ahead or sampler.sample(begin, COUNT, AHEAD)
            ahead = sampler.sample(begin + AHEAD, COUNT, AHEAD) if early else None
            seen.append(block)
        tell(sampler, seen[-1], step)
    return seen


def same(first: PixelBatch, second: PixelBatch) -> bool:
    return all(torch.equal(getattr(first, n), getattr(second, n)) for n in ("image", "row", "column", "dynamic"))


def test_all_pixels_are_alike_before_anything_is_known(device):
    batch = make(device, uniform=0).sample(0, 40_000)
    cell = (batch.image * 6 + batch.row) * 7 + batch.column
    sizes = torch.tensor(tables.SIZES)[tables.CAMERA]
    inside = torch.stack([(torch.arange(42) // 7 < h) & (torch.arange(42) % 7 < w) for w, h in sizes.tolist()])
    tables.assert_drawn_by(inside.double(), torch.bincount(cell, minlength=inside.numel()))
    assert not batch.dynamic.any()


def test_it_looks_where_errors_are(device):
    sampler = make(device, uniform=0)
    train(sampler, 0, 10 * AHEAD, early=False)
    drawn = torch.cat([errors(sampler.sample(10 * AHEAD, COUNT, AHEAD)) for _ in range(10)])
    # 4 images, 2 of 7 columns, 5 rows there; 50 times the error of the other pixels
    images = sum(c == 0 and f < tables.TIMES // 2 for c, f in zip(tables.CAMERA, tables.FRAME, strict=True))
    large = images * 2 * 5
    total = sum(tables.SIZES[c][0] * tables.SIZES[c][1] for c in tables.CAMERA)
    share = large * 0.5 / (large * 0.5 + (total - large) * 0.01)
    found = float((drawn == 0.5).double().mean())
    assert abs(found - share) < 5 * (share * (1 - share) / len(drawn)) ** 0.5


def test_errors_that_vanish_are_forgotten(device):
    sampler = make(device, uniform=0.2)
    train(sampler, 0, 5 * AHEAD, early=False)
    for step in range(5 * AHEAD, 30 * AHEAD):
        if step % AHEAD == 0:
            block = sampler.sample(step, COUNT, AHEAD)
        part = slice(step % AHEAD * COUNT, (step % AHEAD + 1) * COUNT)
        sampler.update(block.image[part], block.row[part], block.column[part], torch.full((COUNT,), 0.01).to(device))
    share = float((errors(sampler.sample(30 * AHEAD, COUNT, AHEAD)) == 0.5).double().mean())
    assert share < 0.2, "as any other pixels: 40 of 343 or so"


def test_the_map_is_the_moving_mean_of_the_errors(device):
    sampler = make(device, map_resolution=1, time_bins=1, map_decay=0.75)  # one cell for each camera
    cameras = torch.tensor(tables.CAMERA, device=device)
    rows = torch.zeros(4, dtype=torch.int64, device=device)
    zero, one = int((cameras == 0).nonzero()[0]), int((cameras == 1).nonzero()[0])
    image = torch.tensor([zero, zero, zero, one], device=device)
    sampler.sample(0, 4, batches=2)
    for values in ([0.1, 0.2, 0.3, 1.5], [0.4, 0.5, 0.6, -1.0]):
        sampler.update(image, rows, rows, torch.tensor(values, device=device))
    assert torch.allclose(sampler._current.cpu(), torch.tensor([0.35, 0.5])), "clamped to [0, 1]; the first replaces"
    only = image[:3]
    for values in ([0.0, 0.0, float("nan")], [0.6, 0.6, 0.6]):
        sampler.update(only, rows[:3], rows[:3], torch.tensor(values, device=device))
    assert torch.allclose(sampler._current.cpu(), torch.tensor([0.75 * 0.35 + 0.25 * 0.3, 0.5]))
    assert torch.allclose(sampler._previous.cpu(), torch.tensor([0.35, 0.5]))


def test_a_share_is_drawn_evenly_in_each_batch(device):
    sampler = make(device, uniform=0.5)
    train(sampler, 0, 10 * AHEAD, early=False)
    batch = sampler.sample(10 * AHEAD, 1000, batches=AHEAD)
    found = (errors(batch) == 0.5).view(AHEAD, 1000).double()
    assert (found[:, :500].mean(1) < 0.25).all() and (found[:, 500:].mean(1) > 0.7).all()


@pytest.mark.parametrize("blocks", [1, 2, 5])
def test_blocks_are_the_same_however_early_they_are_asked_for(device, blocks):
    late, early = make(device), make(device)
    first, second = (train(s, 0, blocks * AHEAD, early=e) for s, e in ((late, False), (early, True)))
    assert all(same(a, b) for a, b in zip(first, second, strict=True))
    expected, found = late.state(), early.state()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("resumed_early", [False, True])
@pytest.mark.parametrize("stop", [0, 1, AHEAD - 1, AHEAD, 3 * AHEAD + 2, 4 * AHEAD])
def test_a_resumed_training_draws_the_same(device, stop, early, resumed_early):
    """The generator's state is that from before the block of `stop` was drawn."""
    last = 7 * AHEAD
    whole = make(device)
    expected = train(whole, 0, last, early)
    half = make(device)
    blocks = train(half, 0, stop, early=False)
    state = half.state()
    # what Batches keeps: the generator as it was before the block that has begun
    again = make(device)
    train(again, 0, stop - stop % AHEAD, early=False)
    other = make(device, seed=99)
    other.load_state(state)
    other._generator.set_state(again._generator.get_state())
    found = train(other, stop, last, resumed_early)
    assert all(same(a, b) for a, b in zip(expected[-len(found) :], found, strict=True))
    assert len(blocks) + len(found) - (stop % AHEAD > 0) == len(expected)
    ends = whole.state(), other.state()
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_a_state_is_a_copy_and_has_to_fit(device):
    sampler = make(device)
    state = sampler.state()
    kept = {name: value.clone() for name, value in state.items()}
    train(sampler, 0, 2 * AHEAD, early=False)
    assert all(torch.equal(state[name], kept[name]) for name in state)
    assert not torch.equal(sampler.state()["current"], state["current"]) and sampler.learns
    with pytest.raises(RuntimeError, match=r"error map 'previous' of \(\d+,\) cells, expected \d+"):
        make(device, time_bins=1).load_state(state)
    with pytest.raises(KeyError):
        sampler.load_state({})


def test_the_order_of_rays_changes_nothing(device):
    """Whole numbers may be added in any order: what threads do on a GPU."""
    first, second = make(device), make(device)
    batch = first.sample(0, 5000)
    error = torch.rand(5000, generator=torch.Generator().manual_seed(0)).to(device)
    order = torch.randperm(5000, generator=torch.Generator().manual_seed(1)).to(device)
    second.sample(0, 5000)
    first.update(batch.image, batch.row, batch.column, error)
    second.update(*(x[order] for x in (batch.image, batch.row, batch.column, error)))
    assert torch.equal(first.state()["current"], second.state()["current"])


def test_errors_of_zero_leave_all_pixels_alike(device):
    sampler = make(device, uniform=0)
    for step in range(3 * AHEAD):
        if step % AHEAD == 0:
            block = sampler.sample(step, COUNT, AHEAD)
        part = slice(step % AHEAD * COUNT, (step % AHEAD + 1) * COUNT)
        sampler.update(block.image[part], block.row[part], block.column[part], torch.zeros(COUNT, device=device))
    batch = sampler.sample(3 * AHEAD, 30_000)
    pixels = torch.tensor([tables.SIZES[c][0] * tables.SIZES[c][1] for c in tables.CAMERA])
    tables.assert_drawn_by(pixels, torch.bincount(batch.image, minlength=len(pixels)))


def test_cells_keep_to_their_memory():
    device = torch.device("cpu")
    fine = make(device, map_resolution=100, time_bins=8)
    assert len(fine.state()["sum"]) == sum(
        len(set(f)) * w * h for (w, h), f in zip(tables.SIZES, frames(), strict=True)
    )
    bound = 70 * CELL_BYTES
    coarse = make(device, map_resolution=100, time_bins=8, map_memory=bound / 1e6)
    assert len(coarse.state()["sum"]) <= 70
    with pytest.raises(ConfigError, match=r"sampler\.map_memory"):
        make(device, map_memory=1e-5)


def frames() -> list[list[int]]:
    return [[f for c, f in zip(tables.CAMERA, tables.FRAME, strict=True) if c == camera] for camera in (0, 1)]


def test_cameras_may_move(tmp_path):
    scene = load_scene(data_sets.dnerf(tmp_path))
    cpu = torch.device("cpu")
    store = FrameStore.from_images(scene.images("train"), scene.cameras, cpu, DataConfig(), progress=False)
    config = SamplerConfig(kind="error_map", uniform=0.1)
    sampler = make_sampler(scene, store, config, cpu, torch.Generator().manual_seed(0))
    for step in range(40):
        batch = sampler.sample(step, 200)
        sampler.update(batch.image, batch.row, batch.column, (batch.image == 2) * 0.3 + 0.001)
    assert (sampler.sample(40, 1000).image == 2).double().mean() > 0.8


@pytest.mark.gpu
def test_the_host_never_waits_for_the_gpu():
    sampler = make(torch.device("cuda"))
    train(sampler, 0, AHEAD, early=True)
    error = torch.rand(COUNT, device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step in range(AHEAD, 3 * AHEAD):
            if step % AHEAD == 0:
                block = sampler.sample(step + AHEAD, COUNT, AHEAD)
            sampler.update(block.image[:COUNT], block.row[:COUNT], block.column[:COUNT], error)
    finally:
        torch.cuda.set_sync_debug_mode("default")
