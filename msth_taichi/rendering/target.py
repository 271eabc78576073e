"""A stored frame as the image that a render is compared with."""

import numpy as np
import torch

_BACKGROUND = {"white": 1.0, "random": 0.5}  # as RadianceField.background; black for the others


def target_image(frame: np.ndarray, background: str) -> torch.Tensor:
    """(H, W, 3) float32 in [0, 1]; straight alpha is composited on what `rays.background` puts behind a render.

    Args:
        frame: (H, W, 3 or 4) uint8.
        background: `rays.background`.
    """
    image = torch.tensor(frame).float() / 255
    if image.shape[-1] == 3:
        return image
    color, alpha = image[..., :3], image[..., 3:]
    return color * alpha + _BACKGROUND.get(background, 0.0) * (1 - alpha)
