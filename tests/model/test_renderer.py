"""Sampling and rendering rays and images: shapes, modes, backgrounds, bounds, and what trains what."""

from dataclasses import replace

import pytest
import torch

from msth_taichi.config import LossConfig
from msth_taichi.errors import TensorError
from msth_taichi.model.losses import losses
from msth_taichi.model.renderer import RadianceField, anneal_exponent, render_image
from msth_taichi.ops.composite import composite
from tests.comparison import assert_close, assert_gradients_close
from tests.settings import changed

TWO_PROPOSALS = (
    "proposals.1.levels=2",
    "proposals.1.base_resolution=[4,4,4,2]",
    "proposals.1.max_resolution=[8,8,8,4]",
    "proposals.1.log2_static=8",
    "proposals.1.log2_dynamic=8",
    "proposals.1.mask_resolution=4",
    "proposals.1.samples=7",
)


def fill_masks(model: RadianceField, logit: float) -> None:
    with torch.no_grad():
        for part in (model.field, *model.proposals):
            part.encoding.mask_logits.fill_(logit)


def change_dynamic_tables(model: RadianceField) -> None:
    with torch.no_grad():
        for part in (model.field, *model.proposals):
            part.encoding.dynamic_table.add_(0.7)


def make_opaque(model: RadianceField) -> None:
    """Density e^9.6 everywhere in the main field: the first sample hides all others."""
    with torch.no_grad():
        model.field.encoding.static_table.fill_(1)
        model.field.encoding.dynamic_table.fill_(1)
        first, last = model.field.density_mlp.weights
        first.fill_(0.1)  # 4 features of 1
        last.fill_(3.0)  # 8 hidden units of 0.4


def proposal_gradients(model: RadianceField) -> list[torch.Tensor | None]:
    return [parameter.grad for parameter in model.proposals.parameters()]


@pytest.mark.parametrize(("fraction", "exponent"), [(0.0, 0.0), (0.1, 0.526), (0.25, 0.769), (0.5, 0.909), (1.0, 1.0)])
def test_anneal_exponent(fraction, exponent):
    assert anneal_exponent(round(5000 * fraction), 5000) == pytest.approx(exponent, abs=5e-4)


def test_annealing_ends_and_can_be_off():
    assert anneal_exponent(123456, 5000) == 1.0
    assert anneal_exponent(0, 0) == 1.0


def assert_edges(s_edges: torch.Tensor, count: int) -> None:
    assert s_edges.shape == (20, count + 1)
    assert (s_edges >= 0).all() and (s_edges <= 1).all()
    assert (s_edges.diff(dim=1) >= 0).all()


@pytest.mark.parametrize("settings", [(), TWO_PROPOSALS], ids=["one proposal", "two proposals"])
def test_a_rendering_has_its_parts(make_model, make_rays, settings):
    model = make_model(*settings)
    rays = make_rays(model, 20)
    out = model(rays)
    assert out.color.shape == (20, 3)
    for values in (out.depth, out.depth_expected, out.accumulation, out.mask):
        assert values.shape == (20,) and torch.isfinite(values).all()
    assert (out.color >= 0).all() and (out.color <= 1).all()
    assert (out.depth >= rays.near).all() and (out.depth <= rays.far).all()
    assert (out.accumulation >= 0).all() and (out.accumulation <= 1).all()
    assert (out.mask >= 0).all() and (out.mask <= 1 + 1e-6).all()
    assert [level.weights.shape[1] for level in out.levels] == ([8, 7, 6] if settings else [8, 6])
    for level in out.levels:
        assert_edges(level.s_edges, level.weights.shape[1])
        assert (level.weights >= 0).all() and (level.weights.sum(1) <= 1 + 1e-5).all()
    assert_close(out.levels[-1].weights.sum(1), out.accumulation, 1e-5)


@pytest.mark.parametrize("settings", [(), TWO_PROPOSALS], ids=["one proposal", "two proposals"])
@pytest.mark.parametrize("jittered", [False, True])
@pytest.mark.parametrize("train_proposals", [False, True])
def test_samples_have_their_parts(make_model, make_rays, device, settings, jittered, train_proposals):
    model = make_model(*settings)
    rays = make_rays(model, 20)
    jitter = torch.rand(len(model.proposals) + 1, 20, device=device) if jittered else None
    samples = model.sample(rays, jitter=jitter, train_proposals=train_proposals)
    assert_edges(samples.s_edges, 6)
    assert samples.t_edges.shape == (20, 7)
    assert (samples.t_edges >= rays.near[:, None]).all() and (samples.t_edges <= rays.far[:, None]).all()
    assert [level.weights.shape[1] for level in samples.levels] == ([8, 7] if settings else [8])
    for level in samples.levels:
        assert_edges(level.s_edges, level.weights.shape[1])
        assert (level.weights >= 0).all() and (level.weights.sum(1) <= 1 + 1e-5).all()


@pytest.mark.parametrize("settings", [(), (*TWO_PROPOSALS, "rays.contraction=none")], ids=["open", "two, boxed"])
@pytest.mark.parametrize("mode", ["full", "static", "dynamic"])
# the two sum in different orders, and where the edges come to lie amplifies it
@pytest.mark.parametrize(("compute", "tolerance"), [(torch.float32, 1e-4), (torch.float16, 1e-2)])
def test_training_the_proposals_changes_no_sample(make_model, make_rays, device, settings, mode, compute, tolerance):
    """The fast path of a step that does not train them, and the slow path of one that does."""
    model = make_model(*settings, box=0.7)
    model.compute = compute
    rays = make_rays(model, 33)
    jitter = torch.rand(len(model.proposals) + 1, 33, generator=torch.Generator().manual_seed(2)).to(device)
    fast, slow = (
        model.sample(rays, jitter=jitter, anneal=0.6, train_proposals=train, mode=mode) for train in (False, True)
    )
    assert_close(fast.s_edges, slow.s_edges, tolerance)
    assert_close(fast.t_edges, slow.t_edges, tolerance)
    assert len(fast.levels) == len(slow.levels) == len(model.proposals)
    for a, b in zip(fast.levels, slow.levels, strict=True):
        assert_close(a.s_edges, b.s_edges, tolerance)
        assert_close(a.weights, b.weights, tolerance)
        assert_close(a.t_edges, b.t_edges, tolerance)
        assert_close(a.density_logits, b.density_logits.float(), tolerance)
        assert not a.density_logits.requires_grad and b.density_logits.requires_grad


def test_a_rendering_is_made_of_its_samples(make_model, make_rays):
    model = make_model()
    rays = make_rays(model)
    samples, out = model.sample(rays), model(rays)
    assert_close(out.levels[0].weights, samples.levels[0].weights, 1e-6)
    assert_close(out.levels[-1].s_edges, samples.s_edges, 1e-6)
    found = model.field(rays, samples.t_edges, model.compute)
    expected = composite(found.density.view(20, 6), found.color.view(3, 20, 6), samples.t_edges, "last_sample")
    assert_close(out.color, expected.color, 1e-6)
    assert_close(out.levels[-1].weights, expected.weights, 1e-6)


def test_jitter_moves_samples_and_regular_samples_repeat(make_model, make_rays, device):
    model = make_model()
    rays = make_rays(model)
    one, other = model.sample(rays), model.sample(rays)
    assert torch.equal(one.levels[0].s_edges, other.levels[0].s_edges)
    assert_close(one.s_edges, other.s_edges, 1e-6)
    first, final = (torch.full((2, 20), 0.5, device=device) for _ in range(2))
    first[0], final[1] = 0.9, 0.9
    moved = model.sample(rays, jitter=first)
    assert (moved.levels[0].s_edges - one.levels[0].s_edges).abs().max() > 0.01
    late = model.sample(rays, jitter=final)
    assert (late.levels[0].s_edges - model.sample(rays, jitter=final * 0 + 0.5).levels[0].s_edges).abs().max() == 0
    assert (late.s_edges - one.s_edges).abs().max() > 0.01


def test_annealed_to_nothing_the_proposal_is_ignored(make_model, make_rays):
    model = make_model()
    rays = make_rays(model)
    flat, sharp = model.sample(rays, anneal=0.0), model.sample(rays, anneal=1.0)
    inner = flat.s_edges.diff(dim=1)
    assert_close(inner, torch.full_like(inner, 1 / 7), 1e-4)
    assert sharp.s_edges.diff(dim=1).std() > 0.02


def test_static_mode_does_not_see_what_moves(make_model, tiny_scene):
    model = make_model()
    fill_masks(model, 0.2)
    static = render_image(model, tiny_scene.cameras, 0, 0.2, mode="static")
    full = render_image(model, tiny_scene.cameras, 0, 0.2)
    later = render_image(model, tiny_scene.cameras, 0, 0.8, mode="static")
    full_later = render_image(model, tiny_scene.cameras, 0, 0.8)
    assert_close(later["rgb"], static["rgb"], 1e-6)
    assert (full_later["rgb"] - full["rgb"]).abs().max() > 0.01, "the whole scene does move"
    change_dynamic_tables(model)
    assert_close(render_image(model, tiny_scene.cameras, 0, 0.2, mode="static")["rgb"], static["rgb"], 1e-6)
    assert (render_image(model, tiny_scene.cameras, 0, 0.2)["rgb"] - full["rgb"]).abs().max() > 0.01


def test_dynamic_mode_of_a_static_scene_is_empty(make_model, make_rays, device):
    model = make_model()
    rays = make_rays(model)
    assert model(rays, mode="dynamic").accumulation.max() > 0.1
    fill_masks(model, 30.0)
    background = torch.full((20, 3), 0.3, device=device)
    out = model(rays, mode="dynamic", background=background)
    assert out.accumulation.max() < 1e-5
    assert_close(out.color, background, 1e-5)
    assert model(rays).accumulation.max() > 0.1, "the whole scene is still there"
    fill_masks(model, -30.0)
    assert_close(model(rays, mode="dynamic").color, model(rays).color, 1e-5)


def test_static_mode_leaves_out_places_where_things_move(make_model, make_rays, device):
    """What the static table has learnt there are traces of what passed."""
    model = make_model()
    rays = make_rays(model)
    background = torch.full((20, 3), 0.3, device=device)
    fill_masks(model, 30.0)
    assert_close(model(rays, mode="static").color, model(rays).color, 1e-5)
    assert model(rays, mode="static", background=background).accumulation.max() > 0.1
    fill_masks(model, -0.1)
    assert_close(model(rays, mode="static", background=background).color, background, 1e-5)


@pytest.mark.parametrize(("logit", "expected"), [(30.0, 1.0), (-30.0, 0.0)])
def test_rendered_mask_is_the_mask_of_what_is_seen(make_model, make_rays, logit, expected):
    model = make_model()
    make_opaque(model)
    fill_masks(model, logit)
    out = model(make_rays(model))
    assert out.accumulation.min() > 0.999
    assert_close(out.mask, torch.full_like(out.mask, expected), 1e-3)


def test_empty_space_counts_as_static(make_model, make_rays):
    model = make_model("rays.contraction=none", box=1e-3)
    fill_masks(model, -30.0)
    out = model(make_rays(model))
    assert out.accumulation.max() < 0.05
    assert out.mask.min() > 0.95


def test_mask_of_points_is_that_of_the_grid(make_model, device):
    model = make_model()
    positions = torch.rand(9, 3, device=device) * 4 - 2
    expected = model.field.encoding.mask(model.space.to_grid(positions))
    assert_close(model.mask(positions), expected.detach(), 1e-6)
    assert not model.mask(positions).requires_grad


def still_then_moving(model: RadianceField) -> None:
    """Masks of two times: all is static at the first, all moves at the second."""
    for part in model.fields():
        logits = part.encoding.mask_logits.detach()
        logits.fill_(-30)
        logits[: 5**3] = 30


def test_mask_of_points_at_times(make_model, device):
    model = make_model("field.mask_times=2")
    still_then_moving(model)
    positions, times = torch.rand(6, 3, device=device) * 4 - 2, torch.tensor([0.0, 0.5, 1.0], device=device)
    expected = torch.tensor([1, 1, 0.5, 0.5, 0, 0], device=device)
    assert_close(model.mask(positions, times), expected, 1e-5)
    with pytest.raises(TensorError, match="this mask changes with time"):
        model.mask(positions)


def test_modes_follow_a_mask_of_times(make_model, make_rays):
    """Where all is static a render is the static one, and where all moves the dynamic one: of the same places."""
    model = make_model("field.mask_times=2", "proposals.0.mask_times=2")
    still_then_moving(model)
    rays = make_rays(model)
    rays.times.zero_()
    assert_close(model(rays).color, model(rays, mode="static").color, 1e-5)
    assert model(rays, mode="dynamic").accumulation.max() == 0
    rays.times.fill_(1)
    assert_close(model(rays, mode="dynamic").color, model(rays).color, 1e-5)
    assert model(rays).accumulation.max() > 0.1
    assert (model(rays).color - model(rays, mode="static").color).abs().max() > 1e-3


@pytest.mark.parametrize("settings", [(), TWO_PROPOSALS], ids=["one proposal", "two proposals"])
def test_train_proposals_switches_their_gradients(make_model, make_rays, settings):
    model = make_model(*settings)
    for train in (False, True):
        model.zero_grad()
        levels = model.sample(make_rays(model), train_proposals=train).levels
        assert all(level.density_logits.requires_grad == train for level in levels)
        if train:
            sum(level.density_logits.square().sum() for level in levels).backward()
            assert all(g is not None and g.norm() > 0 for g in proposal_gradients(model))
        assert all(parameter.grad is None for parameter in model.field.parameters())


@pytest.mark.parametrize("settings", [(), TWO_PROPOSALS], ids=["one proposal", "two proposals"])
def test_interlevel_loss_trains_proposals_only(make_model, make_rays, settings):
    """And nothing else does: no gradient of the colours passes through where the samples lie."""
    model = make_model(*settings)
    rays = make_rays(model)
    of_field = []
    for weight in (0.0, 1.0):
        model.zero_grad()
        only = LossConfig(interlevel=weight, distortion=0.1, mask=0, sparse=0.1)
        losses(model, rays, torch.zeros_like(rays.origins), only, train_proposals=True).total.backward()
        of_field.append([parameter.grad.clone() for parameter in model.field.parameters()])
        if weight:
            assert all(g is not None and g.norm() > 0 for g in proposal_gradients(model))
        else:
            assert all(g is None for g in proposal_gradients(model))
    for without, beside in zip(*of_field, strict=True):
        assert without.norm() > 0
        assert_gradients_close(beside, without, 1e-5)


def test_rendering_does_not_train_proposals(make_model, make_rays):
    model = make_model()
    model(make_rays(model)).color.sum().backward()
    assert all(g is None for g in proposal_gradients(model))
    assert all(parameter.grad is not None for parameter in model.field.parameters())


@pytest.mark.parametrize(("kind", "value"), [("black", 0.0), ("white", 1.0), ("random", 0.5)])
def test_background_lies_behind_what_is_empty(make_model, tiny_scene, device, kind, value):
    """No ray of the room's cameras meets a box of a millimetre: they see the background alone."""
    model = make_model("rays.contraction=none", f"rays.background={kind}", box=1e-4)
    assert_close(model.background(5), torch.full((5, 3), value, device=device))
    image = render_image(model, tiny_scene.cameras, 0, 0.5)
    empty = image["accumulation"] == 0
    assert empty.float().mean() > 0.99
    assert (image["rgb"][empty] == value).all()


def test_random_background_is_what_was_drawn(make_model, device):
    drawn = torch.rand(5, 3, device=device)
    assert torch.equal(make_model("rays.background=random").background(5, drawn), drawn)
    assert make_model("rays.background=last_sample").background(5) is None


def test_last_sample_lies_behind_what_is_transparent(make_model, make_rays, device):
    model = make_model("rays.far=0.5")
    rays = make_rays(model)
    black, last = model(rays, background=torch.zeros(20, 3, device=device)), model(rays)
    behind = (last.color - black.color) / (1 - black.accumulation)[:, None]
    clear = black.accumulation < 0.9
    assert clear.any()
    assert (behind[clear] > 0).all() and (behind[clear] < 1).all()
    white = model(rays, background=torch.ones(20, 3, device=device))
    assert_close(white.color - black.color, (1 - black.accumulation)[:, None].expand(-1, 3), 1e-4)


def test_an_image_does_not_depend_on_the_chunk(make_model, tiny_scene):
    model = make_model()
    whole = render_image(model, tiny_scene.cameras, 1, 0.4)
    parts = render_image(model, tiny_scene.cameras, 1, 0.4, chunk=101)
    assert whole.keys() == parts.keys() == {"rgb", "depth", "accumulation", "mask"}
    assert whole["rgb"].shape == (18, 24, 3)
    for name, values in whole.items():
        assert values.shape[:2] == (18, 24)
        assert_close(parts[name], values, 1e-5)
    assert not whole["rgb"].requires_grad


def test_an_image_is_made_of_the_rays_of_its_camera(make_model, tiny_scene, device):
    model = make_model()
    image = model.render_image(tiny_scene.cameras, 2, 0.4)
    row, column = torch.tensor([3, 17], device=device), torch.tensor([23, 0], device=device)
    camera, times = torch.full_like(row, 2), torch.full((2,), 0.4, device=device)
    out = model(model.rays(tiny_scene.cameras.to(device), camera, row, column, times))
    assert_close(image["rgb"][row, column], out.color.detach(), 1e-5)
    assert_close(image["depth"][row, column], out.depth, 1e-5)


def test_near_render_cuts_what_is_close(make_model, tiny_scene):
    near, cut = make_model(), make_model("rays.near_render=0.5")
    for model in (near, cut):
        make_opaque(model)
    assert render_image(near, tiny_scene.cameras, 0, 0.5)["depth"].max() < 0.5
    assert render_image(cut, tiny_scene.cameras, 0, 0.5)["depth"].min() >= 0.5
    zero = torch.zeros(1, dtype=torch.int64, device=cut.field.encoding.mask_logits.device)
    assert cut.rays(tiny_scene.cameras.to(zero.device), zero, zero, zero, zero.float()).near.item() == pytest.approx(
        0.05
    )


def test_rays_are_clipped_only_without_contraction(make_model, make_rays):
    boxed, open_ = make_model("rays.contraction=none", box=0.5), make_model(box=0.5)
    assert make_rays(boxed).far.max() < 3
    assert (make_rays(open_).far == 8).all()


def test_dynamic_renders_have_nothing_behind_them(make_model, tiny_scene):
    model = make_model("rays.background=last_sample")
    fill_masks(model, 30.0)
    image = render_image(model, tiny_scene.cameras, 0, 0.2, mode="dynamic")
    assert image["rgb"].max() < 1e-5 and image["accumulation"].max() < 1e-5
    assert render_image(model, tiny_scene.cameras, 0, 0.2)["rgb"].max() > 0.1


def test_dynamic_renders_follow_the_main_fields_mask(make_model, make_rays):
    """A proposal whose own mask says static must not hide what moves."""
    model = make_model()
    rays = make_rays(model)
    fill_masks(model, -30.0)
    with torch.no_grad():
        model.proposals[0].encoding.mask_logits.fill_(30.0)
    assert_close(model(rays, mode="dynamic").color, model(rays).color, 1e-5)
    assert model(rays, mode="dynamic").accumulation.max() > 0.1


def test_random_backgrounds_are_rendered_as_is_asked(make_model, tiny_scene, device):
    drawn = torch.rand(5, 3, device=device)
    for kind, value in (("white", 1.0), ("black", 0.0)):
        model = make_model(
            "rays.contraction=none", "rays.background=random", f"rays.background_render={kind}", box=1e-4
        )
        assert torch.equal(model.background(5, drawn), drawn), "training draws it"
        assert torch.equal(model.background(5), torch.full((5, 3), value, device=device))
        image = render_image(model, tiny_scene.cameras, 0, 0.5)
        assert (image["rgb"][image["accumulation"] == 0] == value).all()


def with_appearances(make_model) -> tuple[RadianceField, RadianceField]:
    """A rough model, and one that equals it as long as its three cameras' appearances of 2 numbers are 0."""
    plain = make_model()
    device = plain.field.encoding.mask_logits.device
    model = RadianceField(changed(plain.config, "cameras.appearance=2"), 1.0, torch.tensor([0, 1, 3])).to(device)
    own = dict(plain.named_parameters())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name == "field.color_mlp.weights.0":
                parameter[:, :16], parameter[:, 18:] = own[name][:, :16], own[name][:, 16:]
            elif name in own:
                parameter.copy_(own[name])
    return plain, model


def test_appearances_of_zero_change_nothing(make_model, make_rays, device):
    plain, model = with_appearances(make_model)
    rays = make_rays(plain)
    camera = torch.arange(20, device=device) % 4
    for each in (rays, replace(rays, camera=camera)):
        assert_close(model(each).color, plain(rays).color, 1e-5)


def test_renders_have_the_mean_appearance_of_the_training_cameras(make_model, make_rays, tiny_scene, device):
    plain, model = with_appearances(make_model)
    rays = make_rays(plain)
    looks = model.field.appearances.values
    looks.data.copy_(torch.tensor([[3.0, 0.0], [0.0, -3.0], [0.6, 0.9]]))
    seen = {
        camera: model(replace(rays, camera=torch.full((20,), camera, device=device))).color for camera in (0, 1, 2, 3)
    }
    assert (seen[0] - seen[1]).abs().max() > 0.01, "the test needs cameras that differ"
    assert_close(seen[2], plain(rays).color, 1e-5)  # one that is held out has none of its own
    image = render_image(model, tiny_scene.cameras, 0, 0.3)["rgb"]
    mean = model(rays).color
    looks.data.copy_(looks.data.mean(0).expand(3, 2))
    for camera in (0, 3):
        assert_close(model(replace(rays, camera=torch.full((20,), camera, device=device))).color, mean, 1e-5)
    assert_close(render_image(model, tiny_scene.cameras, 0, 0.3)["rgb"], image, 1e-6)


def test_renders_are_seen_through_no_cameras_colours(make_model, tiny_scene):
    """What a gain does to pixels of training has no part in a picture, even of that very camera."""
    plain = make_model()
    device = plain.field.encoding.mask_logits.device
    model = RadianceField(changed(plain.config, "cameras.colors=affine"), 1.0, torch.tensor([0, 1, 3])).to(device)
    own = dict(plain.named_parameters())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(own[name] if name in own else torch.randn(parameter.shape))
    expected = render_image(plain, tiny_scene.cameras, 0, 0.3)["rgb"]
    assert torch.equal(render_image(model, tiny_scene.cameras, 0, 0.3)["rgb"], expected)


def test_cameras_are_refined_where_that_is_asked(make_model, tiny_scene, device):
    cameras = tiny_scene.cameras.to(device)
    plain = make_model()
    assert plain.refined(cameras) is cameras
    model = RadianceField(changed(plain.config, "cameras.poses=refine"), 1.0, torch.tensor([0, 1, 2])).to(device)
    assert torch.equal(model.refined(cameras).camera_to_world, cameras.camera_to_world)
    model.poses.values.data[0, 3] = 0.3
    refined = model.refined(cameras)
    moved = refined.camera_to_world[:, :, 3] - cameras.camera_to_world[:, :, 3]
    expected = torch.zeros(4, 3, device=device)
    expected[:3, 0] = torch.tensor([0.2, -0.1, -0.1], device=device)
    assert_close(moved.detach(), expected, 1e-5)
    assert refined.names == cameras.names and refined.intrinsics is cameras.intrinsics
    assert refined.camera_to_world.requires_grad
