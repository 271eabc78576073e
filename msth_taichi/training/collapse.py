"""Whether a training has learned more than one colour. Letters: N rays of a batch."""

import torch

APART = 50
"""Steps between two looks that count, at least."""

PATIENCE = 5
"""Looks in a row that must have seen one colour."""

LEAST = 0.01
"""Share of the pixels' variance below which a field explains nothing: noise of a batch is less."""

_PLAIN = 1e-5  # mean squared error below which the pixels themselves show nothing


@torch.no_grad()
def explained(
    errors: torch.Tensor, target: torch.Tensor, background: torch.Tensor | None, kept: torch.Tensor | None
) -> float:
    """1 - error / that of the best picture without content: of one colour, or of the background where it is known.

    A field that lost its content is empty or a wall before the cameras. Each ray then has one colour and this is 0 or
    less; accumulation is 0 or 1, as that of many a sound scene.

    Args:
        errors: (N,) squared error of each ray, mean over channels.
        target: (N, 3) colours.
        background: (N, 3) colours behind the rays; None for the last sample's.
        kept: (N,) 0 where a pixel is ignored; None where all count.
    Returns:
        At most 1; 1 where the pixels have no content.

    Example:
        >>> explained(torch.zeros(2), torch.tensor([[0.0] * 3, [1.0] * 3]), None, None)
        1.0
    """
    if kept is not None:
        errors, target = errors[kept > 0], target[kept > 0]
        background = None if background is None else background[kept > 0]
    if len(errors) == 0:
        return 1.0
    plain = target.var(0, unbiased=False).mean()
    if background is not None:
        plain = torch.minimum(plain, (target - background).square().mean())
    error, plain = torch.stack([errors.mean(), plain]).tolist()
    return 1 - error / plain if plain > _PLAIN else 1.0


class CollapseWatch:
    """Says once that nothing has been learned for long.

    Example:
        >>> watch = CollapseWatch()
        >>> [watch.says(step, -0.1) for step in range(50, 350, 50)]
        [False, False, False, False, True, False]
    """

    def __init__(self) -> None:
        self._last = self._looks = 0

    def says(self, step: int, share: float) -> bool:
        """Whether what `explained` has found at `step`, and before, is a collapse."""
        if share >= LEAST:
            self._looks = 0
        elif step - self._last >= APART:
            self._looks += 1
            self._last = step
            return self._looks == PATIENCE
        return False
