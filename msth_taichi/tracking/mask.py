"""The mask of a field as a bag of numbers."""

import math

import numpy as np
import torch

from msth_taichi.model.renderer import RadianceField

_VERTICES = 2**18  # enough for a histogram


@torch.no_grad()
def mask_values(model: RadianceField) -> np.ndarray:
    """(n,) float32 in [0, 1], 1 is static: the main field's mask at its vertices, evenly thinned where they are many.

    Example:
        >>> (mask_values(run.model) < 0.5).mean()
        0.07
    """
    encoding = model.field.encoding
    vertices = math.prod(count + 1 for count in encoding.mask_spec.resolutions[0])  # the table ends in padding
    logits = encoding.mask_logits[:vertices].flatten()
    return torch.sigmoid(logits[:: -(-len(logits) // _VERTICES)].float()).cpu().numpy()
