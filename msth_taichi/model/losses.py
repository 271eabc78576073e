"""The training objective.

    L = mean |C - C_gt|^2 + a_i interlevel + a_d distortion + a_m mask + a_s sparse          weights: LossConfig

Letters: N rays, S samples per ray.
"""

import torch

from msth_taichi.config import LossConfig
from msth_taichi.model.renderer import RadianceField, Rendering
from msth_taichi.ops.distortion import distortion_loss
from msth_taichi.ops.interlevel import interlevel_loss


def sparse_loss(density: torch.Tensor) -> torch.Tensor:
    """mean log(1 + 2 density^2) over samples (N, S): a Cauchy prior for empty space.

    Source: Hedman et al. 2021, Baking Neural Radiance Fields (SNeRG).

    Example:
        >>> sparse_loss(torch.zeros(2, 3)).item()
        0.0
    """
    return torch.log1p(2 * density.clamp(max=1e15).square()).mean()


def losses(
    model: RadianceField,
    rendering: Rendering,
    target: torch.Tensor,
    config: LossConfig,
    train_proposals: bool,
) -> dict[str, torch.Tensor]:
    """The terms of the objective, weighted: their sum is what is minimised.

    Args:
        model: for the masks.
        rendering: of the batch.
        target: (N, 3) colours.
        config: weights; terms of weight zero are left out.
        train_proposals: whether the proposals take part in this step.
    """
    terms = {"rgb": (rendering.color - target).square().mean()}
    final = rendering.levels[-1]
    if config.interlevel and train_proposals:
        outer = [
            interlevel_loss(final.s_edges, final.weights.detach(), level.s_edges, level.weights)
            for level in rendering.levels[:-1]
        ]
        terms["interlevel"] = config.interlevel * torch.stack(outer).sum()
    if config.distortion:
        terms["distortion"] = config.distortion * distortion_loss(final.s_edges, final.weights)
    if config.mask:
        mask = model.field.encoding.mask_loss()
        if config.mask_proposal and train_proposals:
            mask = mask + sum(p.encoding.mask_loss() for p in model.proposals)  # type: ignore[union-attr]
        terms["mask"] = config.mask * mask
    if config.sparse:
        terms["sparse"] = config.sparse * sparse_loss(rendering.density)
    return terms
