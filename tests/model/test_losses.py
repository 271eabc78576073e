"""The terms of the objective, and the gradients of a whole training step against plain PyTorch."""

import math

import pytest
import torch

from msth_taichi.config import LossConfig
from msth_taichi.model.losses import losses, sparse_loss
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
    model: RadianceField, rays: Rays, target: torch.Tensor, background: torch.Tensor | None
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Colour and loss terms of the same parameters in plain PyTorch: regular samples, proposals trained."""
    settings, count = model.config.rays, len(rays)
    spacing, middle = settings.spacing, settings.middle

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

    s, t = stratified_samples(rays.near, rays.far, model.config.proposals[0].samples, spacing, middle)
    counts = [p.samples for p in model.config.proposals[1:]] + [settings.samples]
    found = []
    for proposal, samples in zip(model.proposals, counts, strict=True):
        w = weights(look(proposal, t)[1], t)
        found.append((s, w))
        s, t = resample(s, w, rays.near, rays.far, samples, spacing, middle)
    out, density = look(model.field, t)
    harmonics = spherical_harmonics(rays.directions).repeat_interleave(settings.samples, dim=1)
    color = torch.sigmoid(product(model.field.color_mlp, torch.cat([harmonics, torch.ones_like(out[:1]), out[1:]])))
    image = composite(density, color.view(3, count, -1), t, "last_sample" if background is None else background)

    def moving(part):
        return (1 - torch.sigmoid(part.encoding.mask_logits)).mean()

    terms = {
        "rgb": ((image.color - target) ** 2).mean(),
        "interlevel": sum(interlevel_loss(s, image.weights, *level) for level in found),
        "distortion": 0.02 * distortion_loss(s, image.weights),
        "mask": 0.1 * (moving(model.field) + sum(moving(p) for p in model.proposals)),
        "sparse": 0.01 * torch.log(1 + 2 * density**2).mean(),
    }
    return image.color, terms


@pytest.mark.parametrize(
    ("settings", "background"),
    [
        ((), None),
        (("field.blend=mt", "rays.contraction=none", "rays.spacing=uniform"), 1.0),
        ((*TWO_PROPOSALS, "rays.contraction=l2", "proposals.0.blend=add", "rays.spacing=lindisp"), 0.0),
    ],
    ids=["last sample", "boxed on white", "two proposals on black"],
)
def test_gradients_of_a_step_are_those_of_plain_pytorch(make_model, make_rays, device, settings, background):
    model = make_model(*settings, box=1.2)
    rays = make_rays(model, 60)
    target = torch.rand(60, 3, generator=torch.Generator().manual_seed(4)).to(device)
    behind = None if background is None else torch.full((60, 3), background, device=device)
    named = dict(model.named_parameters())

    rendering = model(rays, train_proposals=True, background=behind)
    terms = losses(model, rendering, target, ALL, True)
    gradients = torch.autograd.grad(sum(terms.values()), list(named.values()))
    color, expected_terms = reference_step(model, rays, target, behind)
    expected = torch.autograd.grad(sum(expected_terms.values()), list(named.values()))

    assert_close(rendering.color, color.detach(), 1e-4)
    assert terms.keys() == expected_terms.keys()
    for name, term in terms.items():
        assert term.item() == pytest.approx(expected_terms[name].item(), rel=1e-3, abs=1e-8), name
    for name, value, target_gradient in zip(named, gradients, expected, strict=True):
        assert target_gradient.norm() > 0, f"{name} is not trained"
        try:
            assert_gradients_close(value, target_gradient, 1e-3)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error


@pytest.fixture
def rendering(make_model, make_rays):
    model = make_model()
    return model, model(make_rays(model), train_proposals=True)


def terms_of(rendering, config: LossConfig, due: bool = True) -> dict[str, torch.Tensor]:
    model, out = rendering
    return losses(model, out, torch.full_like(out.color, 0.5), config, due)


def test_terms_of_weight_zero_are_absent(rendering):
    none = LossConfig(interlevel=0, distortion=0, mask=0, sparse=0)
    assert terms_of(rendering, none).keys() == {"rgb"}
    for name in ("interlevel", "distortion", "mask", "sparse"):
        assert terms_of(rendering, none.model_copy(update={name: 0.5})).keys() == {"rgb", name}


def test_terms_scale_with_their_weights(rendering):
    once = terms_of(rendering, ALL)
    twice = terms_of(rendering, LossConfig(interlevel=2.0, distortion=0.04, mask=0.2, mask_proposal=True, sparse=0.02))
    assert once.keys() == {"rgb", "interlevel", "distortion", "mask", "sparse"}
    assert torch.equal(once["rgb"], twice["rgb"])
    for name in once.keys() - {"rgb"}:
        assert once[name] > 0
        assert twice[name].item() == pytest.approx(2 * once[name].item(), rel=1e-5), name


def test_proposals_have_no_terms_where_they_are_not_due(rendering):
    assert "interlevel" not in terms_of(rendering, ALL, due=False)
    field_only = terms_of(rendering, ALL.model_copy(update={"mask_proposal": False}))["mask"]
    assert torch.equal(terms_of(rendering, ALL, due=False)["mask"], field_only)
    assert terms_of(rendering, ALL)["mask"] > field_only


def test_rgb_is_the_mean_squared_error(rendering):
    model, out = rendering
    target = out.color.detach() + torch.tensor([0.3, 0.0, 0.0], device=out.color.device)
    assert losses(model, out, target, ALL, True)["rgb"].item() == pytest.approx(0.03, rel=1e-4)


def test_mask_term_at_the_start(tiny_config, device):
    model = RadianceField(tiny_config, 1.0).to(device)
    zero = torch.zeros(1, dtype=torch.float32, device=device)
    rays = Rays(
        zero.expand(1, 3).contiguous(), torch.tensor([[0.0, 0.0, 1.0]], device=device), zero, zero + 0.1, zero + 9
    )
    term = losses(model, model(rays), zero.expand(1, 3), LossConfig(mask=0.1), False)["mask"]
    assert term.item() == pytest.approx(0.1 * (1 - 0.26894), abs=1e-6)


def test_sparse_loss_is_a_mean_of_logarithms(device):
    density = torch.tensor([[0.0, 1.0], [3.0, 0.5]], device=device)
    expected = (math.log(3) + math.log(19) + math.log(1.5)) / 4
    assert sparse_loss(density).item() == pytest.approx(expected, rel=1e-6)
    assert sparse_loss(density * 1e25).isfinite()
