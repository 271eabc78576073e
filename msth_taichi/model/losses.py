"""The training objective.

    L = mean |C - C_gt|^2 + a_i interlevel + a_d distortion + a_m mask + a_s sparse          weights: LossConfig

Letters: N rays, S samples per ray.
"""

from dataclasses import dataclass

import torch

from msth_taichi.config import LossConfig
from msth_taichi.model.field import Field
from msth_taichi.model.rays import Rays
from msth_taichi.model.renderer import RadianceField
from msth_taichi.ops.interlevel import interlevel_loss
from msth_taichi.ops.render_loss import render_loss


@dataclass(frozen=True)
class Losses:
    """The objective of one batch.

    Args:
        total: scalar, to be minimised.
        terms: each weighted term, detached; their sum is the total, but for masks that `GridAdam` moves.
    """

    total: torch.Tensor
    terms: dict[str, torch.Tensor]


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
) -> Losses:
    """What rays should have looked like; terms of weight zero are left out.

    Args:
        model: a field.
        rays: N rays.
        target: (N, 3) colours.
        config: weights.
        jitter: see `RadianceField.sample`.
        anneal: see `RadianceField.sample`.
        train_proposals: whether the proposals take part.
        background: (N, 3) colour behind the samples; None for the colour of the last sample.
        kept: (N,) 1 where a ray's colour counts, else 0; None where all count.
    """
    samples = model.sample(rays, jitter=jitter, anneal=anneal, train_proposals=train_proposals)
    found = model.field(rays, samples.t_edges, model.compute)
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
    )
    weights = {"rgb": 1.0, "distortion": config.distortion, "sparse": config.sparse}
    terms = {name: term for (name, weight), term in zip(weights.items(), out.terms, strict=True) if weight}
    total = out.total
    if config.interlevel and train_proposals:
        outer = [
            interlevel_loss(samples.s_edges, out.weights, p.s_edges, p.t_edges, p.density_logits, p.weights)
            for p in samples.levels
        ]
        terms["interlevel"] = config.interlevel * torch.stack(outer).sum()
        total = total + terms["interlevel"]
    masks = [
        field.encoding.mask_loss()
        for field in masked_fields(model, config, train_proposals)
        if field.encoding.sums is None  # else its optimiser adds the gradient
    ]
    if masks:
        terms["mask"] = config.mask * torch.stack(masks).sum()
        total = total + terms["mask"]
    return Losses(total, {name: term.detach() for name, term in terms.items()})


def masked_fields(model: RadianceField, config: LossConfig, train_proposals: bool = True) -> list[Field]:
    """The fields whose masks the mask loss pulls on."""
    if not config.mask:
        return []
    return model.fields() if config.mask_proposal and train_proposals else model.fields()[:1]
