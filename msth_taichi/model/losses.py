"""The training objective.

    L = mean |C - C_gt|^2 + a_i interlevel + a_d distortion + a_m mask + a_s sparse + a_o opacity + a_p depth
        + a_t time smoothness + a_v total variation + a_c prior of cameras' colours           weights: LossConfig,
        + a_u uncertainty + a_j mutual information                                     CamerasConfig, MaskConfig
Letters: N rays, S samples per ray.
"""

from dataclasses import dataclass

import torch

from msth_taichi.config import LossConfig
from msth_taichi.model.field import Field, FieldSamples
from msth_taichi.model.rays import Rays
from msth_taichi.model.renderer import RadianceField
from msth_taichi.model.smoothness import chosen_positions, time_smoothness, total_variation
from msth_taichi.ops.interlevel import interlevel_loss
from msth_taichi.ops.render_loss import render_loss

_VARIATION_CELL = 1 / 512  # of the edge of contracted space: about a pixel's width


@dataclass(frozen=True)
class Losses:
    """The objective of one batch.

    Args:
        total: scalar, to be minimised.
        terms: each weighted term, detached; their sum is the total, but for masks that `GridAdam` moves.
    """

    total: torch.Tensor
    terms: dict[str, torch.Tensor]
    errors: torch.Tensor
    """(N,) squared error of each ray, mean over channels; detached."""


def losses(
    model: RadianceField,
    rays: Rays,
    target: torch.Tensor,
    config: LossConfig,
    *,
    jitter: torch.Tensor | None = None,
    anneal: float = 1.0,
    train_proposals: bool = False,
    background: torch.Tensor | None = None,
    kept: torch.Tensor | None = None,
    depth: torch.Tensor | None = None,
) -> Losses:
    """What rays should have looked like; terms of weight zero are left out.

    Args:
        model: a field.
        rays: N rays; those of a known camera are seen through its colours.
        target: (N, 3) colours.
        config: weights.
        jitter: see `RadianceField.sample`.
        anneal: see `RadianceField.sample`.
        train_proposals: whether the proposals take part.
        background: (N, 3) colour behind the samples; None for the colour of the last sample.
        kept: (N,) 1 where a ray's colour counts, else 0; None where all count.
        depth: (N,) from `RadianceField.positions`, of measured surfaces; None where there are none.
    """
    samples = model.sample(rays, jitter=jitter, anneal=anneal, train_proposals=train_proposals)
    guided = _is_guided(model)
    found = _found_twice(model, rays, samples.t_edges) if guided else model.field(rays, samples.t_edges, model.compute)
    colors = model.colors if rays.camera is not None else None
    tint = None if colors is None else colors(rays.camera)
    assert found.color_logits is not None
    out = render_loss(
        found.density_logits,
        found.color_logits,
        samples.s_edges,
        samples.t_edges,
        target,
        background,
        config.distortion,
        config.sparse,
        kept,
        tint,
        config.opacity,
        depth,
        config.depth,
        config.full_distance,
        len(found.mask) - _count(samples.t_edges),
    )
    weights = {
        "rgb": 1.0,
        "distortion": config.distortion,
        "sparse": config.sparse,
        "opacity": config.opacity,
        "depth": 0.0 if depth is None else config.depth,
    }
    terms = {name: term for (name, weight), term in zip(weights.items(), out.terms, strict=True) if weight}
    total = out.total
    more: dict[str, torch.Tensor] = {}
    if config.interlevel and train_proposals:
        outer = [
            interlevel_loss(samples.s_edges, out.weights, p.s_edges, p.t_edges, p.density_logits, p.weights)
            for p in samples.levels
        ]
        more["interlevel"] = config.interlevel * torch.stack(outer).sum()
    masks = [
        field.encoding.mask_loss()
        for field in masked_fields(model, config, train_proposals)
        if field.encoding.sums is None  # else its optimiser adds the gradient
    ]
    if masks:
        more["mask"] = config.mask * torch.stack(masks).sum()
    prior = model.config.cameras.color_prior
    if colors is not None and prior:
        more["colors"] = prior * colors.prior()
    if guided:
        more |= _guidance(model, found, out.weights, samples.t_edges, target, background, kept, tint)
    if config.time_smoothness or config.total_variation:
        positions = found.positions[: _count(samples.t_edges)]
        more |= _smoothness(model, rays.times, positions, config, jitter)
    for name, term in more.items():
        total, terms[name] = total + term, term
    return Losses(total, {name: term.detach() for name, term in terms.items()}, out.errors)


def _is_guided(model: RadianceField) -> bool:
    """Whether an uncertainty has a say in the mask."""
    weights = model.config.mask
    return model.uncertainty is not None and bool(weights.uncertainty_weight or weights.information_weight)


def _count(t_edges: torch.Tensor) -> int:
    """Samples between edges (N, S+1): N*S."""
    return t_edges.numel() - len(t_edges)


def _found_twice(model: RadianceField, rays: Rays, t_edges: torch.Tensor) -> FieldSamples:
    """What the field says of rays and, behind them, of some once more from the static table alone.

    Of a few rays in each step: with many of them every few steps, and the weight of all, few cameras learnt late.
    """
    interval, static_from = model.config.mask.interval, _count(t_edges)
    t_edges = torch.cat([t_edges, t_edges[::interval]])
    return model.field(rays.followed_by_some(interval), t_edges, model.compute, static_from=static_from)


def _guidance(
    model: RadianceField,
    found: FieldSamples,
    weights: torch.Tensor,
    t_edges: torch.Tensor,
    target: torch.Tensor,
    background: torch.Tensor | None,
    kept: torch.Tensor | None,
    tint: torch.Tensor | None,
) -> dict[str, torch.Tensor]:
    """Weighted terms that guide the mask, from what `_found_twice` found."""
    config = model.config.mask
    assert model.uncertainty is not None
    likelihood, information = model.uncertainty(
        found, weights, t_edges, target, background, kept, tint, config.interval
    )
    terms: dict[str, torch.Tensor] = {}
    if config.uncertainty_weight:
        terms["uncertainty"] = config.uncertainty_weight * likelihood
    if config.information_weight:
        terms["information"] = -config.information_weight * information
    return terms


def _smoothness(
    model: RadianceField, times: torch.Tensor, positions: torch.Tensor, config: LossConfig, jitter: torch.Tensor | None
) -> dict[str, torch.Tensor]:
    """Weighted terms of features that change little, at one sample of each ray."""
    encoding = model.field.encoding
    choice = torch.full_like(times, 0.5) if jitter is None else jitter[-1]
    positions = chosen_positions(positions, choice)
    terms: dict[str, torch.Tensor] = {}
    if config.time_smoothness:
        term = time_smoothness(encoding, positions, times, model.compute)
        terms["time_smoothness"] = config.time_smoothness * term
    if config.total_variation:
        term = total_variation(encoding, positions, times, model.compute, _VARIATION_CELL)
        terms["total_variation"] = config.total_variation * term
    return terms


def masked_fields(model: RadianceField, config: LossConfig, train_proposals: bool = True) -> list[Field]:
    """The fields whose masks the mask loss pulls on."""
    if not config.mask:
        return []
    return model.fields() if config.mask_proposal and train_proposals else model.fields()[:1]
