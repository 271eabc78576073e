"""What the masks of a later segment of a long video begin with."""

import torch
from torch.nn.functional import pad

from msth_taichi.model.field import ProposalField
from msth_taichi.model.renderer import RadianceField
from msth_taichi.rendering.occupancy import Occupancy

_SUREST = 0.0
"""Logit, half static: a mask that is surer hardly learns that a place does not stand still any more."""

_LEAST = 0.1
"""Optical depth across a cell of a mask from which it holds something."""


@torch.no_grad()
def begin_masks(model: RadianceField) -> None:
    """Masks keep what they know of places where the stage has something, and begin anew elsewhere.

    A field whose static table is not trained any more should read it at once where it is right, on the walls and the
    floor. What moves later comes through space that was empty, of which a mask has learnt that it stands still. Where a
    mask changes with time, which is another time now, it begins anew everywhere.

    Example:
        >>> begin_masks(model)
    """
    stage: ProposalField = model.proposals[-1]  # type: ignore[assignment]
    for field, config in zip(model.fields(), (model.config.field, *model.config.proposals), strict=True):
        logits, spec, first = field.encoding.mask_logits, field.encoding.mask_spec, config.mask_init
        if spec.axes == 4:
            logits.fill_(first)
            continue
        # cells around the inner vertices; the outermost ones lie half a cell beyond what the grids cover
        cells = spec.resolutions[0][0] - 1
        holds = Occupancy(stage, model.compute, cells, static_only=True, least=_LEAST).occupied(0)
        at = pad(holds, (1, 1) * 3).permute(2, 1, 0).reshape(-1, 1)  # x runs first
        rows = logits[: len(at)]
        rows.copy_(torch.where(at, rows.clamp(first, max(_SUREST, first)), first))
