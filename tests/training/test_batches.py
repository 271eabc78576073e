"""Batches of a training: rays that belong to their colours, and the same ones after a pause."""

import pytest
import torch

from msth_taichi.config import LossConfig
from msth_taichi.model.losses import losses
from msth_taichi.model.rays import camera_rays
from msth_taichi.model.renderer import RadianceField
from msth_taichi.sampling import make_sampler
from msth_taichi.scene.frames import FrameStore
from msth_taichi.training.batches import AHEAD, Batch, Batches
from tests.comparison import assert_close
from tests.settings import changed

COUNT = 24


@pytest.fixture
def make_batches(tiny_scene, tiny_config, device):
    """make_batches("rays.background=random") -> Batches, and their generator, of frames whose colours say where they
    come from: image, row and column, and opacity if there are four channels."""

    def make(
        *settings: str, channels: int = 3, seed: int = 5, tier: str | None = None
    ) -> tuple[Batches, torch.Generator]:
        config = changed(tiny_config, f"training.rays_per_step={COUNT}", *settings)
        images, cameras = tiny_scene.images("train"), tiny_scene.cameras.to(device)
        shape = (len(images), *cameras.size(0)[::-1])
        colors = torch.stack(torch.meshgrid(*(torch.arange(n) for n in shape), indexing="ij"), dim=-1)
        opacity = (colors.sum(-1, keepdim=True) % 2) * 255
        frames = torch.cat([colors, opacity], dim=-1)[..., :channels].to(torch.uint8).contiguous().to(device)
        store = FrameStore.of(frames.cpu() if tier else frames, device)
        store.tier = tier or store.tier
        generator = torch.Generator(device).manual_seed(seed)
        sampler = make_sampler(tiny_scene, store, config.sampler, device, generator)
        model = RadianceField(config, 1.0, images.camera.unique()).to(device)
        return Batches(model, config, cameras, images, store, sampler, generator), generator

    return make


def tensors(batch: Batch) -> list[torch.Tensor]:
    rays = batch.rays
    values = [
        rays.origins,
        rays.directions,
        rays.times,
        rays.near,
        rays.far,
        rays.harmonics,
        batch.target,
        batch.jitter,
    ]
    return [*values, *([] if batch.background is None else [batch.background])]


@pytest.mark.parametrize("sampler", ["uniform", "static_dynamic"])
def test_rays_look_at_their_colours(make_batches, tiny_scene, device, sampler):
    batches, _ = make_batches(f"sampler.kind={sampler}")
    images, cameras = tiny_scene.images("train"), tiny_scene.cameras.to(device)
    seen = set()
    for step in range(AHEAD + 2):
        batch = batches.at(step)
        assert len(batch.rays) == COUNT and batch.target.shape == (COUNT, 3)
        image, row, column = (batch.target * 255).round().long().T
        seen |= set(image.tolist())
        camera, times = images.camera.to(device)[image], images.time.to(device)[image]
        expected = camera_rays(cameras, camera, row, column, times, batch.rays.near[0].item(), 1.0)
        assert torch.equal(batch.rays.times, times)
        assert_close(batch.rays.origins, expected.origins, 1e-6)
        assert_close(batch.rays.directions, expected.directions, 1e-6)
        assert_close(batch.rays.harmonics, expected.harmonics, 1e-6)
        assert batch.jitter.shape == (2, COUNT)
        assert (batch.jitter >= 0).all() and (batch.jitter < 1).all()
        assert all(x.is_contiguous() for x in tensors(batch) if x is not batch.rays.harmonics)
    assert seen == set(range(len(images)))


@pytest.mark.parametrize("sampler", ["uniform", "static_dynamic"])
def test_pixels_fetched_ahead_are_the_same(make_batches, sampler):
    """Also after a training that stops within a block, at its end, or before its first step is resumed."""
    near, _ = make_batches(f"sampler.kind={sampler}", "rays.background=random")
    far, _ = make_batches(f"sampler.kind={sampler}", "rays.background=random", tier="disk")
    assert torch.equal(near.random_state(0), far.random_state(0))
    for step in range(2 * AHEAD + 1):
        for a, b in zip(tensors(near.at(step)), tensors(far.at(step)), strict=True):
            assert torch.equal(a, b)
        assert torch.equal(near.random_state(step + 1), far.random_state(step + 1))


def test_every_step_has_its_own(make_batches):
    batches, _ = make_batches("rays.background=random")
    drawn = [tensors(batches.at(step)) for step in range(2 * AHEAD + 1)]
    for index in (1, 6, 7, 8):  # directions, colours, jitter, background
        assert len({tuple(values[index].flatten().tolist()) for values in drawn}) == len(drawn)


def test_a_step_asked_for_again_is_the_same(make_batches):
    batches, _ = make_batches()
    assert batches.at(3) is batches.at(3)


@pytest.mark.parametrize("stop", [0, 1, AHEAD - 1, AHEAD, AHEAD + 5, 2 * AHEAD])
def test_a_resumed_training_gets_the_same_batches(make_batches, stop):
    """`stop` steps done, the generator's state saved, and restored in another process."""
    first, _ = make_batches("sampler.kind=static_dynamic", "rays.background=random")
    for step in range(stop):
        first.at(step)
    state = first.random_state(stop).clone()
    second, generator = make_batches("sampler.kind=static_dynamic", "rays.background=random", seed=99)
    generator.set_state(state)
    assert torch.equal(second.random_state(stop), state)
    for step in range(stop, stop + AHEAD + 2):
        for a, b in zip(tensors(first.at(step)), tensors(second.at(step)), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize(("kind", "value"), [("last_sample", None), ("black", 0.0), ("white", 1.0), ("random", None)])
def test_background(make_batches, kind, value):
    batch = make_batches(f"rays.background={kind}")[0].at(0)
    if kind == "last_sample":
        assert batch.background is None
    elif value is None:
        assert batch.background.std() > 0.1 and (batch.background >= 0).all() and (batch.background < 1).all()
    else:
        assert (batch.background == value).all()


@pytest.mark.parametrize("kind", ["white", "random"])
def test_transparent_pixels_show_their_rays_background(make_batches, kind):
    batch = make_batches(f"rays.background={kind}", channels=4)[0].at(0)
    assert batch.target.shape == (COUNT, 3)
    clear = (batch.target == batch.background).all(1)
    assert 0 < clear.sum() < COUNT
    image, row, column = (batch.target[~clear] * 255).round().long().T
    assert ((image + row + column) % 2 == 1).all(), "the others are opaque"


REFINE = "cameras.poses=refine"


def test_rays_say_whose_they_are(make_batches, tiny_scene, device):
    batches, _ = make_batches()
    camera = tiny_scene.images("train").camera.to(device)
    for step in range(3):
        batch = batches.at(step)
        assert torch.equal(batch.rays.camera, camera[batch.image])
        image, row, column = (batch.target * 255).round().long().T
        assert torch.equal(torch.stack([batch.image, batch.row, batch.column]), torch.stack([image, row, column]))


def test_rays_of_cameras_that_stand_where_they_are_said_to_are_as_they_were_drawn(make_batches):
    batches, _ = make_batches()
    batch = batches.at(0)
    assert batches.aimed(batch) is batch.rays


@pytest.mark.parametrize("settings", [(), ("rays.contraction=none",)], ids=["open", "boxed"])
def test_rays_start_where_their_refined_cameras_stand(make_batches, tiny_scene, device, settings):
    batches, _ = make_batches(REFINE, *settings)
    model, batch = batches._model, batches.at(0)
    before = batches.aimed(batch)
    for name in ("origins", "directions", "times", "near", "far", "harmonics", "camera"):
        assert torch.equal(getattr(before, name), getattr(batch.rays, name)), name
    # the third of the training cameras moves by nothing: what all have in common is left out
    moved = torch.tensor([0.1, -0.2, 0.3, 0.04, 0.05, -0.06], device=device)
    model.poses.values.data[0], model.poses.values.data[1] = moved, -moved
    rays = batches.aimed(batch)
    third = batch.rays.camera == 2
    assert third.any() and not third.all()
    for name in ("origins", "directions", "near", "far"):
        old, new = getattr(batch.rays, name), getattr(rays, name).detach()
        assert torch.equal(new[third], old[third]), name
    assert ((rays.origins - batch.rays.origins).norm(dim=1)[~third] > 0.05).all()
    cameras = model.refined(tiny_scene.cameras.to(device))
    cameras = cameras.with_poses(cameras.camera_to_world.detach())
    expected = model.rays(cameras, batch.rays.camera, batch.row, batch.column, batch.rays.times)
    for name in ("origins", "directions", "near", "far", "harmonics"):
        assert_close(getattr(rays, name).detach(), getattr(expected, name), 1e-6)
    assert not rays.near.requires_grad and not rays.far.requires_grad


def test_gradients_of_poses_are_those_of_finite_differences(make_batches, device):
    """With samples that stay where they are: no gradient passes through where those lie."""
    batches, _ = make_batches(
        REFINE, "training.rays_per_step=400", "field.levels=1", "field.base_resolution=[4,4,4,2]",
        "field.max_resolution=[4,4,4,2]", "rays.samples=24", "rays.far=8",
    )  # fmt: skip
    model, batch = batches._model, batches.at(0)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            size = 0.02 if "poses" in name else 1.0 if "weights" not in name else 2.5 / parameter.shape[1] ** 0.5
            parameter.copy_((torch.rand(parameter.shape, generator=generator) * 2 - 1) * size)
    target = torch.zeros_like(batch.target)
    only_colors = LossConfig(interlevel=0, distortion=0, mask=0)

    def loss() -> torch.Tensor:
        return losses(model, batches.aimed(batch), target, only_colors, anneal=0.0).total

    values = model.poses.values
    (gradient,) = torch.autograd.grad(loss(), [values])
    expected, step = torch.zeros_like(values), 4e-3
    with torch.no_grad():
        for index in range(values.numel()):
            kept = values.view(-1)[index].item()
            ends = []
            for sign in (1, -1):
                values.view(-1)[index] = kept + sign * step
                ends.append(loss().double())
            values.view(-1)[index] = kept
            expected.view(-1)[index] = (ends[0] - ends[1]) / (2 * step)
    assert gradient.shape == (3, 6) and (gradient.abs() > 1e-5).all()
    assert_close(gradient, expected, 0.02)
    assert_close(gradient.sum(0), torch.zeros(6, device=device), 1e-5)  # nothing moves all cameras together
