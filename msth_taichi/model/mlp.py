"""Small bias-free MLPs on feature-major batches, and the density activation.

Letters: N rays, M samples.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from msth_taichi.thresholds import MAX_GRADIENT_LOGIT, MAX_LOGIT

_product_with_relu: Callable[..., torch.Tensor] | None = getattr(torch, "_addmm_activation", None)
"""relu(bias + a @ b), which torch keeps for its compiler; None where a later torch names it otherwise."""


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
        self.flat: FlatWeights | None = None
        """Where `GridAdam` keeps these weights and their gradients; None lets those reach autograd."""
        self._cast: list[torch.Tensor] = []
        self._cast_from: tuple[Any, ...] = ()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(in, M) of any float dtype to (out, M) of the same."""
        return _Layers.apply(x, *self.weights, self._layers(x.dtype), self._gradients())  # type: ignore[no-any-return]

    @torch.no_grad()
    def values(self, x: torch.Tensor, out: torch.Tensor) -> None:
        """What `forward` gives, written into `out` (out, M), which may be a part of wider rows; without gradients."""
        *hidden, last = self._layers(x.dtype)
        for layer in hidden:
            x = _rectified(layer, x)
        torch.mm(last, x, out=out)

    def _layers(self, dtype: torch.dtype) -> list[torch.Tensor]:
        if self.flat is not None and self.flat.copies.dtype == dtype:
            return self.flat.copies_of(self.weights)
        key = dtype, *((weight.data_ptr(), weight._version) for weight in self.weights)
        # flat weights move without a new version
        if key != self._cast_from or self.flat is not None:
            self._cast_from, self._cast = key, [weight.detach().to(dtype) for weight in self.weights]
        return self._cast

    def _gradients(self) -> list[torch.Tensor] | None:
        return None if self.flat is None else self.flat.gradients_of(self.weights)


class FlatWeights:
    """The weights of a field's MLPs in one piece of memory, with copies in the compute dtype and gradients beside
    them, so that one loop of a kernel moves all of them.

    Args:
        mlps: whose parameters become views of this memory.
        compute: dtype of copies and gradients.
    """

    def __init__(self, mlps: Iterable[MLP], compute: torch.dtype):
        mlps = list(mlps)
        self._parameters = [weight for mlp in mlps for weight in mlp.weights]
        self.values = torch.cat([p.detach().flatten() for p in self._parameters])
        """(W,) float32."""
        self.copies = self.values.to(compute, copy=True)
        """(W,) of the compute dtype; `GridAdam` writes them as it moves the weights."""
        self.gradients = torch.zeros_like(self.copies)
        """(W,) that every backward pass adds to; `GridAdam` forgets them."""
        self._copies, self._gradients = {}, {}
        start = 0
        for parameter in self._parameters:
            part = slice(start, start + parameter.numel())
            parameter.data = self.values[part].view_as(parameter)
            self._copies[parameter] = self.copies[part].view_as(parameter)
            self._gradients[parameter] = self.gradients[part].view_as(parameter)
            start = part.stop
        self._copied = self._versions()
        for mlp in mlps:
            mlp.flat = self

    def copies_of(self, weights: Iterable[torch.Tensor]) -> list[torch.Tensor]:
        """Views of the copies, made again where torch changed a weight."""
        if self._versions() != self._copied:
            self.copies.copy_(self.values)
            self._copied = self._versions()
        return [self._copies[weight] for weight in weights]

    def gradients_of(self, weights: Iterable[torch.Tensor]) -> list[torch.Tensor]:
        """Views of the gradients."""
        return [self._gradients[weight] for weight in weights]

    def _versions(self) -> int:
        return sum(parameter._version for parameter in self._parameters)


def _rectified(layer: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """relu(layer @ x) without gradients; on a GPU in one launch, which saves a pass over the result."""
    if _product_with_relu is not None and x.is_cuda and x.shape[1]:
        return _product_with_relu(x.new_zeros(x.shape[1]), layer, x)
    return torch.relu_(layer @ x)


def _run(layers: Sequence[torch.Tensor], x: torch.Tensor) -> list[torch.Tensor]:
    """Activations of a chain of layers: what enters each, then what leaves the last."""
    activations = [x]
    for layer in layers[:-1]:
        activations.append(_rectified(layer, activations[-1]))
    return [*activations, layers[-1] @ activations[-1]]


def _run_back(
    layers: Sequence[torch.Tensor],
    entered: list[torch.Tensor],
    gradient: torch.Tensor,
    out: Sequence[torch.Tensor | None],
    skip: int = 0,
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Gradients of a chain to what entered it, but for its first `skip` rows, and to its layers, the first one first.

    `entered` is emptied on the way, so that its memory is free for what comes next; gradients are added to `out`.
    """
    of_layers = []
    for i in reversed(range(len(layers))):
        kept = out[i]
        of_layers.append(gradient @ entered[i].T if kept is None else kept.addmm_(gradient, entered[i].T))
        if i:
            gradient = layers[i].T @ gradient
            gradient = torch.ops.aten.threshold_backward.grad_input(gradient, entered[i], 0, grad_input=gradient)
        else:
            gradient = layers[0][:, skip:].T @ gradient
        entered.pop()
    return gradient, of_layers[::-1]


class _Layers(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x, *rest):
        *weights, layers, gradients = rest
        *entered, out = _run(layers, x)
        ctx.activations, ctx.layers = entered, layers
        ctx.gradients, ctx.dtypes = gradients, [weight.dtype for weight in weights]
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient):
        of_x, of_layers = _run_back(ctx.layers, _taken(ctx), gradient, ctx.gradients or [None] * len(ctx.layers))
        return of_x, *_for_autograd(of_layers, ctx.gradients, ctx.dtypes), None, None


def _taken(ctx: Any) -> list[torch.Tensor]:
    """The activations of a forward pass, which autograd no longer holds, so that they can be freed one by one."""
    if ctx.activations is None:
        raise RuntimeError("the activations were freed by an earlier backward pass; run forward again")
    activations, ctx.activations = ctx.activations, None
    return activations


def _for_autograd(
    of_layers: Sequence[torch.Tensor], kept: Sequence[torch.Tensor] | None, dtypes: Sequence[torch.dtype]
) -> list[torch.Tensor | None]:
    """Gradients of the weights in their own dtype, or none where they are kept elsewhere."""
    if kept is not None:
        return [None] * len(dtypes)
    return [g.to(dtype) for g, dtype in zip(of_layers, dtypes, strict=True)]


class _TruncatedExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return torch.exp(x.clamp(max=MAX_LOGIT))

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        (x,) = ctx.saved_tensors
        return gradient * torch.exp(x.clamp(-MAX_GRADIENT_LOGIT, MAX_GRADIENT_LOGIT))


def truncated_exp(x: torch.Tensor) -> torch.Tensor:
    """exp(x), with the gradient of exp(clamp(x, -15, 15)) so that a single sample cannot blow up a step.

    Example:
        >>> truncated_exp(torch.zeros(2))
        tensor([1., 1.])
    """
    return _TruncatedExp.apply(x)  # type: ignore[no-any-return]


def radiance(
    features: torch.Tensor, per_ray: torch.Tensor, density_mlp: MLP, color_mlp: MLP
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both MLPs of a field, with as few passes over the samples as their layers allow.

        (s, g) = density_mlp(features)        color = color_mlp(per_ray, 1, g)

    The constant stands for the bias that tiny-cuda-nn's padding gives. It is written over the row of s, so that what
    enters the colour MLP is one matrix without copies; the adjoints reuse the activations' memory.

    Args:
        features: (A, M) of any float dtype.
        per_ray: (B, N) of any dtype, of rays with M/N samples each.
        density_mlp: widths A, hidden, 1 + G.
        color_mlp: widths B + 1 + G, two hidden ones, 3.
    Returns:
        density logits s (M,) and colour logits (3, M); differentiable once in features, per_ray and weights.

    Example:
        >>> mlps = MLP(32, 64, 16), MLP(32, 64, 64, 3)
        >>> density, color = radiance(torch.zeros(32, 6), torch.zeros(16, 2), *mlps)
        >>> density.shape, color.shape
        (torch.Size([6]), torch.Size([3, 6]))
    """
    weights = [*density_mlp.weights, *color_mlp.weights]
    layers = [*density_mlp._layers(features.dtype), *color_mlp._layers(features.dtype)]
    kept = density_mlp._gradients()
    if kept is not None:
        kept = [*kept, *(color_mlp._gradients() or [])]
    return _Radiance.apply(features, per_ray, *weights, len(density_mlp.weights), layers, kept)  # type: ignore[no-any-return]


class _Radiance(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features, per_ray, *rest):
        *weights, split, layers, kept = rest
        rows, rays = per_ray.shape
        through_density = [features]
        for layer in layers[: split - 1]:
            through_density.append(_rectified(layer, through_density[-1]))
        inputs = features.new_empty(rows + len(layers[split - 1]), features.shape[1])
        torch.mm(layers[split - 1], through_density[-1], out=inputs[rows:])
        density = inputs[rows].clone()
        inputs[rows] = 1
        inputs[:rows].view(rows, rays, -1 if rays else 0).copy_(per_ray[:, :, None])
        *through_color, color = _run(layers[split:], inputs)
        ctx.activations, ctx.layers = [*through_density, *through_color], layers
        ctx.per_ray, ctx.ray_dtype, ctx.split, ctx.kept = per_ray.shape, per_ray.dtype, split, kept
        ctx.dtypes = [weight.dtype for weight in weights]
        return density, color

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, density_gradient, color_gradient):
        (rows, rays), split, layers = ctx.per_ray, ctx.split, ctx.layers
        activations = _taken(ctx)
        through_density, through_color = activations[:split], activations[split:]
        del activations  # each chain frees its own on the way back
        kept = ctx.kept or [None] * len(layers)
        wants_rays = ctx.needs_input_grad[1]
        gradient, of_color = _run_back(
            layers[split:], through_color, color_gradient, kept[split:], 0 if wants_rays else rows
        )
        of_rays = None
        if wants_rays:
            of_rays = gradient[:rows].view(rows, rays, -1 if rays else 0).sum(2).to(ctx.ray_dtype)
            gradient = gradient[rows:]
        gradient[0] = density_gradient
        of_features, of_density = _run_back(layers[:split], through_density, gradient, kept[:split])
        of_weights = _for_autograd([*of_density, *of_color], ctx.kept, ctx.dtypes)
        return of_features, of_rays, *of_weights, None, None, None
