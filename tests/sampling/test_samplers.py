import pytest
import torch

from msth_taichi.config import DataConfig, SamplerConfig
from msth_taichi.errors import ConfigError
from msth_taichi.sampling import StaticDynamicSampler, UniformSampler, make_sampler
from msth_taichi.sampling.static_dynamic import dynamic_pixels, dynamic_rays, dynamic_repeats
from msth_taichi.scene.cameras import make_cameras
from msth_taichi.scene.frames import FrameStore
from msth_taichi.scene.scene import Images, load_scene, make_images
from tests.scene import data_sets

WIDTH, HEIGHT = 6, 5
CAMERA = [4, 1, 4, 1, 1, 4, 1, 4, 4]  # rows interleaved; 4 frames of camera 1, 5 of camera 4


def images() -> Images:
    count = len(CAMERA)
    return make_images(CAMERA, torch.rand(count), range(count), range(count), None)


def cameras():
    pose = torch.eye(4)[:3].repeat(5, 1, 1)
    return make_cameras(pose, [[5, 5, 3, 2.5]] * 5, torch.zeros(5, 8), [0] * 5, [[WIDTH, HEIGHT]] * 5, list("abcde"))


def dynamic_mask(device: torch.device) -> torch.Tensor:
    """Two dynamic pixels of camera 1, one of camera 4."""
    mask = torch.zeros(2, HEIGHT, WIDTH, dtype=torch.bool, device=device)
    mask[0, 1, 2] = mask[0, 4, 5] = mask[1, 0, 3] = True
    return mask


def static_dynamic(device, mask=None, seed=3, **settings) -> StaticDynamicSampler:
    config = SamplerConfig(kind="static_dynamic", **settings)
    mask = dynamic_mask(device) if mask is None else mask
    generator = torch.Generator(device).manual_seed(seed)
    return StaticDynamicSampler(images(), torch.tensor([1, 4]), mask, config, device, generator)


def uniform(device, seed=3) -> UniformSampler:
    return UniformSampler(images(), cameras(), device, torch.Generator(device).manual_seed(seed))


def assert_even(counts: torch.Tensor) -> None:
    """Multinomial counts of equal chance: within five standard deviations."""
    expected = counts.sum() / len(counts)
    assert ((counts - expected).abs() < 5 * expected.sqrt() + 1).all(), counts.tolist()


@pytest.mark.parametrize(("step", "expected"), [(0, 322), (5000, 357), (10000, 400), (15000, 456), (20000, 529)])
def test_ratio_schedule_of_the_released_method(step, expected):
    config = SamplerConfig(ratio=50, ratio_end=30, ratio_steps=20000)
    assert dynamic_pixels(step, 16384, config) == expected


@pytest.mark.parametrize(("step", "expected"), [(0, 1), (5000, 2), (10000, 4), (15000, 5), (20000, 6)])
def test_repeat_schedule_of_the_released_method(step, expected):
    assert dynamic_repeats(step, SamplerConfig(repeat_steps=20000)) == expected


def test_schedules_hold_after_their_end():
    config = SamplerConfig()
    assert dynamic_pixels(10**6, 16384, config) == 529
    assert dynamic_repeats(10**6, config) == 6


@pytest.mark.parametrize("step", [0, 999, 1000, 50000])
def test_repeats_can_be_turned_off(step):
    assert dynamic_repeats(step, SamplerConfig(repeat_steps=0)) == 1


@pytest.mark.parametrize("repeat_steps", [1, 500, 1000, 1001])
def test_repeats_with_a_schedule_that_ends_before_it_starts(repeat_steps):
    config = SamplerConfig(repeat_steps=repeat_steps)
    assert [dynamic_repeats(step, config) for step in (0, 1000, 1001, 2000)] == [1, 1, 6, 6]


def test_rays_share_the_batch_as_pixels_times_repeats():
    config = SamplerConfig()
    # step 20000: 15855 static pixels once, 529 dynamic pixels 6 times, cut to 16384 rays
    assert dynamic_rays(20000, 16384, config) == round(16384 * 6 * 529 / (15855 + 6 * 529))
    assert dynamic_rays(0, 16384, config) == 322
    assert dynamic_rays(0, 0, config) == 0


@pytest.mark.parametrize("count", [0, 1, 7, 512])
@pytest.mark.parametrize("make", [uniform, static_dynamic])
def test_batches_have_their_size_and_lie_inside(device, make, count):
    batch = make(device).sample(12000, count)
    for values, limit in ((batch.image, 9), (batch.row, HEIGHT), (batch.column, WIDTH)):
        assert values.shape == (count,) and values.dtype == torch.int64 and values.device.type == device.type
        assert ((values >= 0) & (values < limit)).all()
    assert batch.dynamic.shape == (count,) and batch.dynamic.dtype == torch.bool


def test_uniform_draws_every_pixel_alike(device):
    batch = uniform(device).sample(0, 27000)
    cell = (batch.image * HEIGHT + batch.row) * WIDTH + batch.column
    assert_even(torch.bincount(cell, minlength=9 * HEIGHT * WIDTH).float())
    assert not batch.dynamic.any()


@pytest.mark.parametrize("step", [0, 10000, 20000])
def test_flags_follow_their_rays(device, step):
    batch = static_dynamic(device).sample(step, 4096)
    local = torch.tensor(CAMERA, device=device)[batch.image] == 4
    assert torch.equal(dynamic_mask(device)[local.long(), batch.row, batch.column], batch.dynamic)
    assert batch.dynamic.sum() == max(dynamic_rays(step, 4096, SamplerConfig()), round(4096 * 3 / (2 * HEIGHT * WIDTH)))


@pytest.mark.parametrize("moving", [1, 20, 40])
def test_what_changes_is_looked_at_no_less_than_by_chance(device, moving):
    mask = torch.zeros(2, HEIGHT * WIDTH, dtype=torch.bool, device=device)
    mask.view(-1)[:moving] = True
    batch = static_dynamic(device, mask.view(2, HEIGHT, WIDTH), ratio=10, ratio_end=10).sample(0, 6000)
    assert batch.dynamic.float().mean().item() == pytest.approx(max(1 / 11, moving / mask.numel()), abs=1e-3)


def test_pixels_of_either_kind_and_their_frames_are_drawn_alike(device):
    batch = static_dynamic(device, ratio=1, ratio_end=1).sample(0, 20000)
    camera = torch.tensor(CAMERA, device=device)[batch.image]
    cell = ((camera == 4) * HEIGHT + batch.row) * WIDTH + batch.column
    mask = dynamic_mask(device).flatten()
    counts = torch.bincount(cell, minlength=mask.numel()).float()
    assert_even(counts[mask])
    assert_even(counts[~mask])
    for c in (1, 4):
        rows = torch.tensor([k for k, value in enumerate(CAMERA) if value == c], device=device)
        for kind in (batch.dynamic, ~batch.dynamic):
            frames = torch.bincount(batch.image[kind & (camera == c)], minlength=9).float()
            assert_even(frames[rows])


def test_a_dynamic_pixel_is_seen_at_independent_times(device):
    mask = torch.zeros(2, HEIGHT, WIDTH, dtype=torch.bool, device=device)
    mask[1] = True  # camera 4 is all dynamic
    batch = static_dynamic(device, mask, ratio=1, ratio_end=1).sample(20000, 7000)
    image, row, column = (x[batch.dynamic] for x in (batch.image, batch.row, batch.column))
    assert len(image) == 6000  # 3500 pixels of each kind; the dynamic ones count 6 times, cut from 24500 to 7000
    groups = torch.stack([row, column], 1).view(1000, 6, 2)
    assert (groups == groups[:, :1]).all(), "six times in a row the same pixel"
    frames = image.view(1000, 6)
    # of 5 frames, six independent draws name 5 (1 - 0.8^6) = 3.69 different ones
    distinct = sum(len(set(group)) for group in frames.tolist()) / 1000
    assert abs(distinct - 5 * (1 - 0.8**6)) < 0.15


@pytest.mark.parametrize("make", [uniform, static_dynamic])
def test_batches_drawn_at_once_are_whole_batches(device, make):
    """Each with its own share of dynamic pixels, in the same places, and its own draws."""
    count, batches = 700, 5
    drawn, one = make(device).sample(20000, count, batches), make(device).sample(20000, count)
    assert len(drawn) == count * batches
    flags = drawn.dynamic.view(batches, count)
    assert torch.equal(flags, one.dynamic.expand(batches, count))
    rows = torch.stack([drawn.image, drawn.row, drawn.column], 1).view(batches, -1)
    assert len({tuple(row) for row in rows.tolist()}) == batches
    if make is static_dynamic:
        start = int((~one.dynamic).sum())
        pixels = torch.stack([drawn.row, drawn.column], 1).view(batches, count, 2)[:, start : start + 12]
        groups = pixels.reshape(batches, 2, 6, 2)
        assert (groups == groups[:, :, :1]).all(), "a pixel's six times stay together"
        local = torch.tensor(CAMERA, device=device)[drawn.image] == 4
        assert torch.equal(dynamic_mask(device)[local.long(), drawn.row, drawn.column], drawn.dynamic)


@pytest.mark.parametrize("dynamic", [False, True])
def test_one_kind_alone_fills_the_batch(device, dynamic):
    mask = torch.full((2, HEIGHT, WIDTH), dynamic, device=device)
    for step in (0, 20000):
        batch = static_dynamic(device, mask).sample(step, 100)
        assert len(batch) == 100 and (batch.dynamic == dynamic).all()


@pytest.mark.parametrize("make", [uniform, static_dynamic])
def test_a_batch_depends_on_the_generator_and_the_step_alone(device, make):
    first, second = make(device), make(device, seed=11)
    first.sample(2000, 100)
    state = first._generator.get_state()
    expected = first.sample(2001, 100)
    second._generator.set_state(state)
    again = second.sample(2001, 100)
    for name in ("image", "row", "column", "dynamic"):
        assert torch.equal(getattr(again, name), getattr(expected, name))
    assert not torch.equal(first.sample(2001, 100).image, expected.image)


@pytest.mark.gpu
@pytest.mark.parametrize("make", [uniform, static_dynamic])
def test_the_host_never_waits_for_the_gpu(make):
    sampler = make(torch.device("cuda"))
    sampler.sample(0, 100)
    torch.cuda.set_sync_debug_mode("error")
    try:
        sampler.sample(20000, 1000)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_make_sampler_finds_what_moves():
    device = torch.device("cpu")
    scene = load_scene("synthetic:cameras=2,test_cameras=1,frames=6,width=32,height=24")
    images = scene.images("train")
    store = FrameStore.from_images(images, scene.cameras, device, DataConfig(), progress=False)
    generator = torch.Generator().manual_seed(0)
    config = SamplerConfig(kind="static_dynamic", ratio=1, ratio_end=1)
    batch = make_sampler(scene, store, config, device, generator).sample(0, 2000)
    moving = torch.stack([torch.from_numpy(images.moving(k)) for k in range(12)])
    share = [
        moving[batch.image, batch.row, batch.column][kind].float().mean() for kind in (batch.dynamic, ~batch.dynamic)
    ]
    assert share[0] > 0.2 and share[1] < 0.1
    assert isinstance(make_sampler(scene, store, SamplerConfig(), device, generator), UniformSampler)


def test_cameras_that_move_have_no_static_pixels(tmp_path):
    scene = load_scene(data_sets.dnerf(tmp_path))
    store = FrameStore.of(torch.zeros(4, 12, 16, 4, dtype=torch.uint8), torch.device("cpu"))
    config = SamplerConfig(kind="static_dynamic")
    with pytest.raises(ConfigError, match=r"static_dynamic.*move; use sampler\.kind='uniform'"):
        make_sampler(scene, store, config, torch.device("cpu"), torch.Generator())


def test_one_frame_says_nothing_about_change():
    scene = load_scene("synthetic:frames=1")
    store = FrameStore.of(torch.zeros(8, 72, 96, 3, dtype=torch.uint8), torch.device("cpu"))
    with pytest.raises(ConfigError, match="two images or more"):
        make_sampler(scene, store, SamplerConfig(kind="static_dynamic"), torch.device("cpu"), torch.Generator())
