"""The terms of the objective, and the gradients of a whole training step against plain PyTorch."""

import math
from dataclasses import replace

import pytest
import torch

from msth_taichi.config import LossConfig
from msth_taichi.model.losses import Losses, losses, masked_fields
from msth_taichi.model.rays import Rays
from msth_taichi.model.renderer import RadianceField
from msth_taichi.model.uncertainty import U_MIN, rendered_uncertainty
from msth_taichi.reference.composite import composite, weights
from msth_taichi.reference.contract import contract
from msth_taichi.reference.correlation_information import correlation_information
from msth_taichi.reference.distortion import distortion_loss
from msth_taichi.reference.interlevel import interlevel_loss
from msth_taichi.reference.masked_encoding import masked_encoding
from msth_taichi.reference.resample import resample
from msth_taichi.reference.spherical_harmonics import spherical_harmonics
from msth_taichi.reference.stratified import stratified_samples
from tests.comparison import assert_close, assert_gradients_close
from tests.model.test_renderer import TWO_PROPOSALS
from tests.settings import changed

ALL = LossConfig(interlevel=1.0, distortion=0.02, mask=0.1, mask_proposal=True, sparse=0.01)


def product(mlp, x: torch.Tensor) -> torch.Tensor:
    *hidden, last = mlp.weights
    for weight in hidden:
        x = (weight @ x).relu()
    return last @ x


def reference_step(
    model: RadianceField,
    rays: Rays,
    target: torch.Tensor,
    background: torch.Tensor | None = None,
    config: LossConfig = ALL,
    train_proposals: bool = True,
    jitter: torch.Tensor | None = None,
    anneal: float = 1.0,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Colour and loss terms, those of weight zero too, of the same parameters in plain PyTorch."""
    settings, count = model.config.rays, len(rays)
    spacing, middle = settings.spacing, settings.middle
    jitters = [None] * (len(model.proposals) + 1) if jitter is None else list(jitter.unbind())

    def look(part, t_edges):
        centres = (t_edges[:, 1:] + t_edges[:, :-1]) / 2
        positions = (rays.origins[:, None] + rays.directions[:, None] * centres[..., None]).reshape(-1, 3)
        grid = contract(positions, settings.contraction, model.space.box)
        e = part.encoding
        features, _ = masked_encoding(
            grid, rays.times, e.mask_logits, e.static_table, e.dynamic_table,
            e.mask_spec, e.static_spec, e.dynamic_spec, e.blend,
        )  # fmt: skip
        out = product(part.density_mlp, features)
        return out, out[0].exp().view(count, -1)

    s, t = stratified_samples(rays.near, rays.far, model.config.proposals[0].samples, spacing, middle, jitters[0])
    counts = [p.samples for p in model.config.proposals[1:]] + [settings.samples]
    found = []
    for proposal, samples, offset in zip(model.proposals, counts, jitters[1:], strict=True):
        w = weights(look(proposal, t)[1], t)
        found.append((s, w))
        s, t = resample(s, w, rays.near, rays.far, samples, spacing, middle, anneal, jitter=offset)
    out, density = look(model.field, t)
    harmonics = spherical_harmonics(rays.directions).repeat_interleave(settings.samples, dim=1)
    color = torch.sigmoid(product(model.field.color_mlp, torch.cat([harmonics, torch.ones_like(out[:1]), out[1:]])))
    image = composite(density, color.view(3, count, -1), t, "last_sample" if background is None else background)

    def moving(part):
        return (1 - torch.sigmoid(part.encoding.mask_logits)).mean()

    interlevel = sum(interlevel_loss(s, image.weights, *level) for level in found) if train_proposals else 0
    pulled = [model.field, *(model.proposals if config.mask_proposal and train_proposals else ())]
    terms = {
        "rgb": ((image.color - target) ** 2).mean(),
        "interlevel": config.interlevel * interlevel,
        "distortion": config.distortion * distortion_loss(s, image.weights),
        "mask": config.mask * sum(moving(part) for part in pulled),
        "sparse": config.sparse * torch.log(1 + 2 * density**2).mean(),
    }
    return image.color, terms


def assert_same_step(
    model: RadianceField, rays: Rays, target: torch.Tensor, config: LossConfig, **options
) -> tuple[Losses, dict[str, torch.Tensor | None]]:
    """Total, terms, and the gradient of every parameter are those of plain PyTorch; returned for further checks."""
    named = dict(model.named_parameters())
    out = losses(model, rays, target, config, **options)
    gradients = torch.autograd.grad(out.total, list(named.values()), allow_unused=True)
    _, terms = reference_step(model, rays, target, config=config, **options)
    total = sum(terms.values())
    expected = torch.autograd.grad(total, list(named.values()), allow_unused=True)

    assert out.total.item() == pytest.approx(total.item(), rel=1e-3)
    wanted = {name for name in terms if name == "rgb" or getattr(config, name)}
    if not options.get("train_proposals"):
        wanted -= {"interlevel"}
    assert out.terms.keys() == wanted
    for name, term in out.terms.items():
        assert term.item() == pytest.approx(terms[name].item(), rel=1e-3, abs=1e-8), name
    for name, value, target_gradient in zip(named, gradients, expected, strict=True):
        try:
            if target_gradient is None or not target_gradient.any():
                assert value is None or not value.any(), "has a gradient"
            else:
                assert value is not None, "is not trained"
                assert_gradients_close(value, target_gradient, 1e-3)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error
    return out, dict(zip(named, gradients, strict=True))


def random_target(rays: Rays) -> torch.Tensor:
    return torch.rand(len(rays), 3, generator=torch.Generator().manual_seed(4)).to(rays.origins.device)


@pytest.mark.parametrize(
    ("settings", "background"),
    [
        ((), None),
        (("field.blend=mt", "rays.contraction=none", "rays.spacing=uniform"), 1.0),
        ((*TWO_PROPOSALS, "rays.contraction=l2", "proposals.0.blend=add", "rays.spacing=lindisp"), 0.0),
    ],
    ids=["last sample", "boxed on white", "two proposals on black"],
)
@pytest.mark.parametrize("train_proposals", [True, False])
def test_gradients_of_a_step_are_those_of_plain_pytorch(
    make_model, make_rays, device, settings, background, train_proposals
):
    model = make_model(*settings, box=1.2)
    rays = make_rays(model, 60)
    behind = None if background is None else torch.full((60, 3), background, device=device)
    target = random_target(rays)
    _, gradients = assert_same_step(model, rays, target, ALL, background=behind, train_proposals=train_proposals)
    for name, gradient in gradients.items():
        if train_proposals or name.startswith("field."):
            assert gradient is not None and gradient.norm() > 0, f"{name} is not trained"
        else:
            assert gradient is None, f"{name} is trained though it is not due"
    color, _ = reference_step(model, rays, target, behind)
    assert_close(model(rays, background=behind).color, color, 1e-4)


@pytest.mark.parametrize("name", ["interlevel", "distortion", "mask", "sparse"])
def test_gradients_of_each_term_are_those_of_plain_pytorch(make_model, make_rays, name):
    """Beside the colours alone, so that no term hides behind a larger one."""
    model = make_model()
    rays = make_rays(model, 31)
    only = LossConfig(interlevel=0, distortion=0, mask=0, sparse=0).model_copy(update={name: 0.7})
    for train_proposals in (True, False):
        assert_same_step(model, rays, random_target(rays), only, train_proposals=train_proposals)


def test_gradients_of_a_jittered_and_annealed_step(make_model, make_rays, device):
    model = make_model(*TWO_PROPOSALS)
    rays = make_rays(model, 33)
    jitter = torch.rand(3, 33, generator=torch.Generator().manual_seed(9)).to(device)
    options = {"jitter": jitter, "anneal": 0.4, "train_proposals": True}
    moved, _ = assert_same_step(model, rays, random_target(rays), ALL, **options)
    regular = losses(model, rays, random_target(rays), ALL, train_proposals=True)
    assert abs(moved.total.item() - regular.total.item()) > 1e-4, "neither changes anything"


@pytest.mark.parametrize("compute", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("settings", [(), ("field.blend=add", "rays.contraction=none")], ids=["mst", "add in a box"])
def test_kept_gradients_are_those_that_autograd_would_get(make_model, make_rays, device, compute, settings):
    """In fixed point those of tables, and of masks without the mask loss, which the optimiser adds."""
    # a GPU's matrix kernels depend on how weights are aligned, and round differently
    tolerance = 1e-5 if device.type == "cpu" else 1e-4 if compute == torch.float32 else 5e-3
    model, keeping = make_model(*settings), make_model(*settings)
    rays = make_rays(model, 45)
    for each in (model, keeping):
        each.compute = compute
    for field in keeping.fields():
        field.keep_gradients(compute)
    none = ALL.model_copy(update={"mask": 0.0})
    expected = losses(model, rays, random_target(rays), none, train_proposals=True)
    out = losses(keeping, rays, random_target(rays), ALL, train_proposals=True)
    assert "mask" not in out.terms
    assert_close(out.total, expected.total, 1e-6)
    # the loss of whole rays, as in training, so that float16 gradients do not vanish
    for total in (expected.total, out.total):
        total.backward(torch.full_like(total, 45.0))
    assert all(parameter.grad is None for parameter in keeping.parameters())
    for a, b in zip(model.fields(), keeping.fields(), strict=True):
        sums, flat = b.encoding.sums, b.flat
        assert sums is not None and sums.pending and flat is not None
        tables = (a.encoding.mask_logits, a.encoding.static_table, a.encoding.dynamic_table)
        for value, table in zip(sums.gradients(), tables, strict=True):
            assert_gradients_close(value, torch.zeros_like(value) if table.grad is None else table.grad, tolerance)
        for mlp, kept in zip(a.mlps(), b.mlps(), strict=True):
            for weight, value in zip(mlp.weights, flat.gradients_of(kept.weights), strict=True):
                assert value.dtype == compute
                assert_gradients_close(value, weight.grad, max(tolerance, 1e-5 if compute == torch.float32 else 1e-3))


def test_the_mask_loss_pulls_on_the_masks_it_is_asked_for(make_model):
    model = make_model(*TWO_PROPOSALS)
    field, *proposals = model.fields()
    assert masked_fields(model, LossConfig(mask=0, mask_proposal=True)) == []
    assert masked_fields(model, LossConfig()) == [field]
    assert masked_fields(model, LossConfig(mask_proposal=True)) == [field, *proposals]
    assert masked_fields(model, LossConfig(mask_proposal=True), train_proposals=False) == [field]


@pytest.fixture
def batch(make_model, make_rays):
    model = make_model()
    rays = make_rays(model)
    return model, rays, torch.full((len(rays), 3), 0.5, device=rays.origins.device)


def terms_of(batch, config: LossConfig, due: bool = True) -> dict[str, torch.Tensor]:
    return losses(*batch, config, train_proposals=due).terms


def test_the_total_is_the_sum_of_its_terms(batch):
    for due in (True, False):
        out = losses(*batch, ALL, train_proposals=due)
        assert out.total.requires_grad and not any(term.requires_grad for term in out.terms.values())
        assert out.total.item() == pytest.approx(sum(term.item() for term in out.terms.values()), rel=1e-6)


def test_terms_of_weight_zero_are_absent(batch):
    none = LossConfig(interlevel=0, distortion=0, mask=0, sparse=0)
    assert terms_of(batch, none).keys() == {"rgb"}
    for name in ("interlevel", "distortion", "mask", "sparse"):
        assert terms_of(batch, none.model_copy(update={name: 0.5})).keys() == {"rgb", name}


def test_terms_scale_with_their_weights(batch):
    once = terms_of(batch, ALL)
    twice = terms_of(batch, LossConfig(interlevel=2.0, distortion=0.04, mask=0.2, mask_proposal=True, sparse=0.02))
    assert once.keys() == {"rgb", "interlevel", "distortion", "mask", "sparse"}
    assert torch.equal(once["rgb"], twice["rgb"])
    for name in once.keys() - {"rgb"}:
        assert once[name] > 0
        assert twice[name].item() == pytest.approx(2 * once[name].item(), rel=1e-5), name


def test_proposals_have_no_terms_where_they_are_not_due(batch):
    assert "interlevel" not in terms_of(batch, ALL, due=False)
    field_only = terms_of(batch, ALL.model_copy(update={"mask_proposal": False}))["mask"]
    assert torch.equal(terms_of(batch, ALL, due=False)["mask"], field_only)
    assert terms_of(batch, ALL)["mask"] > field_only


def test_rgb_is_the_mean_squared_error(batch):
    model, rays, _ = batch
    target = model(rays).color.detach() + torch.tensor([0.3, 0.0, 0.0], device=rays.origins.device)
    assert losses(model, rays, target, ALL).terms["rgb"].item() == pytest.approx(0.03, rel=1e-4)


def test_mask_term_at_the_start(tiny_config, device):
    model = RadianceField(tiny_config, 1.0).to(device)
    zero = torch.zeros(1, dtype=torch.float32, device=device)
    rays = Rays(
        zero.expand(1, 3).contiguous(), torch.tensor([[0.0, 0.0, 1.0]], device=device), zero, zero + 0.1, zero + 9
    )
    term = losses(model, rays, torch.zeros(1, 3, device=device), LossConfig(mask=0.1)).terms["mask"]
    assert term.item() == pytest.approx(0.1 * (1 - 0.26894), abs=1e-6)


NONE = LossConfig(interlevel=0, distortion=0, mask=0, sparse=0)
GUIDED = "mask.objective=uncertainty"
STRONG = ("mask.uncertainty_weight=0.01", "mask.information_weight=0.02")


def with_cameras(make_model, *settings: str) -> RadianceField:
    """A rough model to which cameras 0, 1 and 3 of the tiny scene mean something."""
    like = make_model(*settings, "cameras.appearance=0")
    device = like.field.encoding.mask_logits.device
    model = RadianceField(changed(like.config, *settings), like.space.box, torch.tensor([0, 1, 3])).to(device)
    own = dict(like.named_parameters())
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in own and own[name].shape == parameter.shape:
                parameter.copy_(own[name])
            else:
                parameter.copy_(0.5 * torch.rand(parameter.shape, generator=generator) - 0.25)
    return model


def of_cameras(rays: Rays) -> Rays:
    """Each ray is said to be of camera 0, 1, 2 or 3 in turn."""
    return replace(rays, camera=torch.arange(len(rays), device=rays.origins.device) % 4)


def gradients_of(model: RadianceField, total: torch.Tensor) -> dict[str, torch.Tensor | None]:
    names, parameters = zip(*model.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(total, parameters, allow_unused=True), strict=True))


def test_pixels_are_compared_through_the_colours_of_their_camera(make_model, make_rays):
    model = with_cameras(make_model, "cameras.colors=affine", "cameras.color_prior=0.3")
    rays = of_cameras(make_rays(model, 24))
    target = random_target(rays)
    out = losses(model, rays, target, NONE)
    tint = model.colors(rays.camera)
    assert (tint - tint[2])[:2].abs().max() > 0.05, "the test needs cameras that differ"
    expected = (tint[:, :3] * model(rays).color + tint[:, 3:] - target).square()
    assert out.terms.keys() == {"rgb", "colors"}
    assert out.terms["rgb"].item() == pytest.approx(expected.mean().item(), rel=1e-5)
    assert_close(out.errors, expected.detach().mean(1), 1e-4)
    assert out.terms["colors"].item() == pytest.approx(0.3 * model.colors.values.square().mean().item(), rel=1e-5)
    total = expected.mean() + 0.3 * model.colors.prior()
    for (name, value), wanted in zip(
        gradients_of(model, out.total).items(), gradients_of(model, total).values(), strict=True
    ):
        if wanted is None or not wanted.any():
            assert value is None or not value.any(), name
        else:
            assert_gradients_close(value, wanted, 1e-3)
    nobodys = losses(model, replace(rays, camera=None), target, NONE)
    assert nobodys.terms.keys() == {"rgb"}
    assert nobodys.terms["rgb"].item() == pytest.approx((model(rays).color - target).square().mean().item(), rel=1e-5)


def test_opacity_is_the_entropy_of_what_rays_let_through(make_model, make_rays, device):
    model = make_model()
    rays = make_rays(model, 40)
    black = torch.zeros(40, 3, device=device)
    out = losses(model, rays, black, NONE.model_copy(update={"opacity": 0.3}), background=black)
    p = model(rays, background=black).accumulation.detach().double()
    assert ((p > 0.05) & (p < 0.95)).sum() > 5
    entropy = torch.special.entr(p) + torch.special.entr(1 - p)
    assert out.terms["opacity"].item() == pytest.approx(0.3 * entropy.mean().item(), rel=1e-3)


@pytest.mark.parametrize(
    "settings",
    [
        (GUIDED, "mask.uncertainty_weight=0", "mask.information_weight=0"),
        (GUIDED, "mask.uncertainty_weight=0", "mask.information_weight=0", "mask.information=neural"),
        ("cameras.colors=affine", "cameras.color_prior=0"),
        ("cameras.poses=refine",),
    ],
    ids=["uncertainty", "neural", "colours", "poses"],
)
def test_what_has_no_weight_changes_no_bit(make_model, make_rays, device, settings):
    plain = make_model()
    model = with_cameras(make_model, *settings)
    for part in (model.colors, model.poses):
        if part is not None:
            part.values.data.zero_()
    rays = of_cameras(make_rays(plain, 40))
    target = random_target(rays)
    expected = losses(plain, rays, target, ALL, train_proposals=True)
    out = losses(model, rays, target, ALL, train_proposals=True)
    assert torch.equal(out.total, expected.total)
    found = gradients_of(model, out.total)
    for name, gradient in gradients_of(plain, expected.total).items():
        assert gradient is not None and found[name] is not None
        if device.type == "cpu":
            assert torch.equal(found[name], gradient), name
        else:  # float atomics add in any order
            assert_gradients_close(found[name], gradient, 1e-5)


@pytest.fixture
def guided(make_model, make_rays):
    """Model, rays and targets of an objective with uncertainty and nothing else but colours."""
    model = with_cameras(make_model, GUIDED, "mask.interval=4", *STRONG)
    rays = of_cameras(make_rays(model, 41))
    return model, rays, random_target(rays)


def reweighted(model: RadianceField, *settings: str) -> RadianceField:
    model.config = changed(model.config, *settings)
    return model


def expected_guidance(
    model: RadianceField, rays: Rays, target: torch.Tensor, kept: torch.Tensor | None = None
) -> dict[str, torch.Tensor]:
    """Weighted terms of every fourth ray by two passes of the field and PyTorch; differentiable as they are to be."""
    config, samples = model.config.mask, model.sample(rays)
    full, static = (
        model.field(x, samples.t_edges, model.compute, static_only=only)
        for x, only in ((rays, False), (rays.detach(), True))
    )
    shape, some = (len(rays), -1), slice(None, None, 4)
    seen = weights(full.density.view(shape), samples.t_edges).detach()
    color = composite(static.density.view(shape), static.color.view(3, *shape), samples.t_edges, "last_sample").color
    if model.colors is not None:
        tint = model.colors(rays.camera).detach()
        color = tint[:, :3] * color + tint[:, 3:]
    u = model.uncertainty.field(model.space.on_rays(rays.detach(), samples.t_edges))
    rendered = rendered_uncertainty(seen, u)
    likelihood = (color - target).square().sum(1) / (2 * rendered.square()) + rendered.log()
    level = ((u.detach() / U_MIN).log() / -math.log(U_MIN)).clamp(0, 1).view(shape)[some].flatten()
    return {
        "uncertainty": config.uncertainty_weight * (likelihood if kept is None else likelihood * kept)[some].mean(),
        "information": -config.information_weight * correlation_information(full.mask, level, seen, kept, 4),
    }


def assert_guided(model: RadianceField, rays: Rays, target: torch.Tensor, kept: torch.Tensor | None = None) -> None:
    """Terms, total and gradients are those of an unguided step and two terms beside it."""
    out = losses(model, rays, target, NONE, kept=kept)
    wanted = expected_guidance(model, rays, target, kept)
    wanted = {name: term for name, term in wanted.items() if term != 0}
    gradients = gradients_of(model, out.total)
    objective, model.uncertainty = model.uncertainty, None
    plain = losses(model, rays, target, NONE, kept=kept)
    model.uncertainty = objective
    assert out.terms.keys() == plain.terms.keys() | wanted.keys()
    for name, term in wanted.items():
        assert out.terms[name].item() == pytest.approx(term.item(), rel=1e-4, abs=1e-7), name
    assert_close(out.errors, plain.errors, 1e-6 if target.device.type == "cuda" else 0.0)
    assert out.total.item() == pytest.approx(sum(term.item() for term in out.terms.values()), rel=1e-5)
    expected = gradients_of(model, sum(wanted.values(), plain.total))
    for name, truth in expected.items():
        value = gradients[name]
        if truth is None or not truth.any():
            assert value is None or not value.any(), name
        else:
            assert value is not None, name
            assert_gradients_close(value, truth, 1e-4)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("blend", ["mst", "mt"])
def test_guidance_looks_at_every_fourth_ray(make_model, make_rays, device, blend, masked):
    """And at pixels that count: in one pass of the field what two give, and a reference."""
    model = with_cameras(make_model, GUIDED, "mask.interval=4", *STRONG, f"field.blend={blend}")
    rays = of_cameras(make_rays(model, 41))
    kept = (torch.arange(41, device=device) % 3 > 0).float() if masked else None
    assert_guided(model, rays, random_target(rays), kept)


@pytest.mark.parametrize("weights_of", [STRONG, ("mask.uncertainty_weight=0.01", "mask.information_weight=0")])
def test_guidance_of_what_is_learnt_of_each_camera(make_model, make_rays, weights_of):
    """Compared through its colours, with its appearance; and its pose takes nothing of the likelihood."""
    model = with_cameras(
        make_model, GUIDED, "mask.interval=4", *weights_of, "cameras.colors=affine", "cameras.color_prior=0",
        "cameras.appearance=3", "rays.contraction=none",
    )  # fmt: skip
    rays = of_cameras(make_rays(model, 40))
    rays = replace(rays, camera=(rays.camera + torch.arange(40, device=rays.camera.device) // 4) % 4)
    target = random_target(rays)
    assert_guided(model, rays, target)
    origins, directions = (x.clone().requires_grad_() for x in (rays.origins, rays.directions))
    rays = replace(rays, origins=origins, directions=directions, harmonics=None)
    found = torch.autograd.grad(losses(model, rays, target, NONE).total, (origins, directions))
    terms, model.uncertainty = expected_guidance(model, rays, target), None
    total = losses(model, rays, target, NONE).total + sum(term for term in terms.values() if term != 0)
    for value, truth in zip(found, torch.autograd.grad(total, (origins, directions)), strict=True):
        assert_gradients_close(value, truth, 1e-4)


def test_a_sum_of_tables_has_no_mask_to_guide(make_model, make_rays):
    model = make_model(GUIDED, "field.blend=add")
    rays = make_rays(model, 20)
    assert model.uncertainty is None
    assert losses(model, rays, random_target(rays), NONE).terms.keys() == {"rgb"}


def test_pixels_that_do_not_count_have_no_say_in_uncertainty(guided, device):
    model, rays, target = guided
    kept = (torch.arange(41, device=device) % 8 > 0).float()
    out = losses(model, rays, target, NONE, kept=kept)
    other = torch.where(kept[:, None] > 0, target, 1 - target)
    changed_there = losses(model, rays, other, NONE, kept=kept)
    assert torch.equal(out.total, changed_there.total)
    assert not torch.equal(losses(model, rays, other, NONE).total, losses(model, rays, target, NONE).total)


def test_weights_of_uncertainty_multiply(guided):
    model, rays, target = guided
    once = losses(model, rays, target, NONE).terms
    twice = losses(reweighted(model, "mask.uncertainty_weight=0.02"), rays, target, NONE).terms
    assert twice["uncertainty"].item() == pytest.approx(2 * once["uncertainty"].item(), rel=1e-5)
    assert twice["information"].item() == pytest.approx(once["information"].item(), rel=1e-5)
    thrice = losses(reweighted(model, "mask.information_weight=0.06"), rays, target, NONE).terms
    assert thrice["information"].item() == pytest.approx(3 * once["information"].item(), rel=1e-5)


@pytest.mark.parametrize("information", ["correlation", "histogram", "neural"])
def test_uncertainty_guides_the_mask_and_teaches_the_static_table(make_model, make_rays, information):
    """The likelihood reaches the static table and the uncertainty's own; the information the mask, and neither."""
    settings = (GUIDED, f"mask.information={information}")
    reached = {}
    for name, weights_of in {
        "likelihood": ("mask.uncertainty_weight=0.1", "mask.information_weight=0"),
        "information": ("mask.uncertainty_weight=0", "mask.information_weight=0.1"),
    }.items():
        model = with_cameras(make_model, *settings, *weights_of)
        rays = make_rays(model, 40)
        out = losses(model, rays, random_target(rays), NONE)
        unguided = reweighted(model, "mask.uncertainty_weight=0", "mask.information_weight=0")
        plain = losses(unguided, rays, random_target(rays), NONE)
        gradients = gradients_of(model, out.total)
        before = gradients_of(model, plain.total)
        assert all(g is not None and g.norm() > 0 for n, g in before.items() if n.startswith("field.")), "moving or not"
        reached[name] = set()
        for key, gradient in gradients.items():
            if gradient is not None:
                unmoved = torch.zeros_like(gradient) if before[key] is None else before[key]
                if not torch.allclose(gradient, unmoved, 1e-4, 1e-7):
                    reached[name].add(key)
    mlps = {n for n, _ in model.named_parameters() if n.startswith(("field.density_mlp", "field.color_mlp"))}
    own = {n for n, _ in model.named_parameters() if n.startswith("uncertainty.field")}
    assert reached["likelihood"] == {"field.encoding.static_table"} | mlps | own
    critic = {n for n, _ in model.named_parameters() if n.startswith("uncertainty.neural")}
    assert reached["information"] == {"field.encoding.mask_logits"} | critic
