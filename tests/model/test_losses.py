"""The terms of the objective, and the gradients of a whole training step against plain PyTorch."""

import pytest
import torch

from msth_taichi.config import LossConfig
from msth_taichi.model.losses import Losses, losses, masked_fields
from msth_taichi.model.rays import Rays
from msth_taichi.model.renderer import RadianceField
from msth_taichi.reference.composite import composite, weights
from msth_taichi.reference.contract import contract
from msth_taichi.reference.distortion import distortion_loss
from msth_taichi.reference.interlevel import interlevel_loss
from msth_taichi.reference.masked_encoding import masked_encoding
from msth_taichi.reference.resample import resample
from msth_taichi.reference.spherical_harmonics import spherical_harmonics
from msth_taichi.reference.stratified import stratified_samples
from tests.comparison import assert_close, assert_gradients_close
from tests.model.test_renderer import TWO_PROPOSALS

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
