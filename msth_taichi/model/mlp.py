"""Small bias-free MLPs on feature-major batches, and the density activation.

Letters: M samples.
"""

from itertools import pairwise
from typing import Any

import torch
from torch import nn

# beyond this logit a sample is opaque at any distance that float32 can tell apart
_MAX_LOGIT = 30.0
_MAX_GRADIENT_LOGIT = 15.0  # released MSTH code, after Instant-NGP


class MLP(nn.Module):
    """Linear layers with ReLU between them and without bias, on columns.

    Args:
        widths: features in, of each hidden layer, and out.

    Example:
        >>> MLP(32, 64, 16)(torch.zeros(32, 5)).shape
        torch.Size([16, 5])
    """

    def __init__(self, *widths: int):
        super().__init__()
        self.weights = nn.ParameterList([torch.empty(b, a) for a, b in pairwise(widths)])
        for weight in self.weights:
            nn.init.xavier_uniform_(weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(in, M) of any float dtype to (out, M) of the same."""
        last = len(self.weights) - 1
        for i, weight in enumerate(self.weights):
            x = weight.to(x.dtype) @ x
            if i < last:
                x = torch.relu_(x)
        return x


class _TruncatedExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return torch.exp(x.clamp(max=_MAX_LOGIT))

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        (x,) = ctx.saved_tensors
        return gradient * torch.exp(x.clamp(-_MAX_GRADIENT_LOGIT, _MAX_GRADIENT_LOGIT))


def truncated_exp(x: torch.Tensor) -> torch.Tensor:
    """exp(x), with the gradient of exp(clamp(x, -15, 15)) so that a single sample cannot blow up a step.

    Example:
        >>> truncated_exp(torch.zeros(2))
        tensor([1., 1.])
    """
    return _TruncatedExp.apply(x)  # type: ignore[no-any-return]
