"""Volume rendering along rays under torch autograd. Letters: N rays, S samples per ray."""

import torch
from torch.autograd.function import once_differentiable

from msth_taichi.errors import TensorError
from msth_taichi.kernels.composite import composite_kernels
from msth_taichi.ops.checks import check
from msth_taichi.reference.composite import Background, Composite

__all__ = ["Background", "Composite", "composite"]


def composite(
    densities: torch.Tensor, colors: torch.Tensor, t_edges: torch.Tensor, background: Background
) -> Composite:
    """Colour, depth and opacity of each ray, from the densities and colours of its samples.

        tau_i        = density_i (t_{i+1} - t_i)        w_i = exp(-sum_{j<i} tau_j) (1 - exp(-tau_i))
        color        = sum_i w_i color_i + (1 - sum_i w_i) background
        depth        = sum_i w_i m_i / max(sum_i w_i, 1e-10)                  m bin centres
        depth_median = m of the sample at which the sum of weights reaches 0.5, of the last one if none does
        accumulation = sum_i w_i

    A bin of optical depth 1000 or more lets nothing through.

    Args:
        densities: (N, S) float32 or float64, at least 0, per scene unit; S at least 1.
        colors: (3, N, S) in [0, 1], same dtype.
        t_edges: (N, S+1) bin edges, scene units, not decreasing along a ray; same dtype. Not differentiated.
        background: (N, 3) colours; "last_sample" for the colour of each ray's last sample; None for black.
    Returns:
        A `Composite`. All but depth_median is differentiable once, in densities, colors, a background tensor.
    Raises:
        TensorError: wrong shape, dtype, device or layout, or an unknown background.
    Source: Max 1995, Optical Models for Direct Volume Rendering.

    Example:
        >>> red = torch.tensor([1.0, 0.0, 0.0]).reshape(3, 1, 1)
        >>> edges = torch.tensor([[1.0, 3.0]])
        >>> out = composite(torch.tensor([[0.5]]), red, edges, torch.ones(1, 3))
        >>> out.color, out.depth
        (tensor([[1.0000, 0.3679, 0.3679]]), tensor([2.]))
    """
    _check_rays(densities, t_edges)
    check("colors", colors, (3, *densities.shape), densities.dtype)
    last_sample = False
    if isinstance(background, torch.Tensor):
        check("background", background, (len(densities), 3), densities.dtype)
    elif background is None:
        background = densities.new_zeros(len(densities), 3)
    elif background == "last_sample":
        last_sample = True
        background = densities.new_empty(0, 3)
    else:
        raise TensorError(f"background: expected 'last_sample', an (N, 3) tensor or None, got {background!r}")
    return Composite(*_Composite.apply(densities, colors, t_edges, background, last_sample))


def _check_rays(densities: torch.Tensor, t_edges: torch.Tensor) -> None:
    check("densities", densities, (None, None))
    rays, samples = densities.shape
    if samples == 0:
        raise TensorError(f"densities: expected at least one sample per ray, got shape ({rays}, 0)")
    check("t_edges", t_edges, (rays, samples + 1), densities.dtype)


class _Composite(torch.autograd.Function):
    @staticmethod
    def forward(ctx, densities, colors, t_edges, background, last_sample: bool):
        inputs = [x.detach() for x in (densities, colors, t_edges, background)]
        rays = len(densities)
        color = densities.new_empty(rays, 3)
        depth, depth_median, accumulation = (densities.new_empty(rays) for _ in range(3))
        result = torch.empty_like(densities)
        if rays:
            composite_kernels(densities.dtype, last_sample).forward(
                *inputs, color, depth, depth_median, accumulation, result
            )
        ctx.save_for_backward(*inputs, depth, accumulation, result)
        ctx.last_sample = last_sample
        ctx.mark_non_differentiable(depth_median)
        return color, depth, depth_median, accumulation, result

    @staticmethod
    @once_differentiable
    def backward(ctx, color_gradient, depth_gradient, _, accumulation_gradient, weight_gradient):
        saved = [x.detach() for x in ctx.saved_tensors]
        densities, colors, _, _, _, accumulation, _ = saved
        density_gradient = torch.empty_like(densities)
        colors_gradient = torch.empty_like(colors)
        incoming = (color_gradient, depth_gradient, accumulation_gradient, weight_gradient)
        if len(densities):
            composite_kernels(densities.dtype, ctx.last_sample).backward(
                *saved, *(g.detach().contiguous() for g in incoming), density_gradient, colors_gradient
            )
        background_gradient = None
        if ctx.needs_input_grad[3]:
            background_gradient = (1 - accumulation)[:, None] * color_gradient
        return density_gradient, colors_gradient, None, background_gradient, None
