"""Time of what follows a field's samples: MLPs, compositing, losses, their gradients, and the tables' optimiser.

    python benchmarks/bench_composite.py            # the plenoptic preset: 16,384 rays of 128 and of 48 samples
    python benchmarks/bench_composite.py --small    # the demo preset

Letters: N rays, P samples of the proposal, S final samples, M = N*S.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import common
import torch
from bench_encoding import SAMPLES, make_batch
from bench_sampling import peaks
from common import Bench, Result, Row, bytes_of
from options import arguments

from msth_taichi.config import Config, load_preset
from msth_taichi.model.mlp import radiance, truncated_exp
from msth_taichi.model.renderer import RadianceField
from msth_taichi.ops.composite import composite
from msth_taichi.ops.interlevel import interlevel_loss
from msth_taichi.ops.render_loss import render_loss
from msth_taichi.ops.stratified import stratified_samples
from msth_taichi.reference.composite import weights
from msth_taichi.training.grid_adam import EPSILON, GridAdam
from msth_taichi.training.run import compute_dtype

NAME = "composite"

HARMONICS = 16
"""Rows that the colour MLP is given of each ray."""


@dataclass(frozen=True)
class Sizes:
    """What is measured.

    Args:
        preset: gives rays, samples, MLPs and tables.
        repeats: of each operation.
        settings: overrides of the preset.
    """

    preset: str
    repeats: int = 15
    settings: tuple[str, ...] = ()


FULL = Sizes("plenoptic")
SMALL = Sizes("demo", repeats=7)


@dataclass(frozen=True)
class Bins:
    """Bins along N rays that each meet one surface."""

    s_edges: torch.Tensor
    t_edges: torch.Tensor
    logits: torch.Tensor

    @property
    def density(self) -> torch.Tensor:
        return self.logits.exp()


def measure_all(device: torch.device, sizes: Sizes) -> Result:
    """Every row, and what they were measured with."""
    config = load_preset(sizes.preset, list(sizes.settings))
    torch.manual_seed(0)
    bench = Bench(device, sizes.repeats)
    compute = compute_dtype(config, device)
    model = RadianceField(config, box=1.0).to(device)
    if device.type == "cuda":
        for field in model.fields():
            field.keep_gradients(compute)
    rays = config.training.rays_per_step
    first, final = (make_bins(config, count, device) for count in (config.proposals[0].samples, config.rays.samples))
    rows = [
        *mlp_rows(bench, model, rays, compute),
        *composite_rows(bench, final),
        *loss_rows(bench, config, final, compute),
        *interlevel_rows(bench, final, first, compute),
    ]
    if device.type == "cuda":
        rows += optimizer_rows(bench, model, rays, compute)
    return {
        "preset": sizes.preset,
        "settings": list(sizes.settings),
        "rays": rays,
        "samples": [config.proposals[0].samples, config.rays.samples],
        "dtype": str(compute).removeprefix("torch."),
        "copy_bytes_per_second": bench.copy_bytes,
        "rows": rows,
    }


def make_bins(config: Config, count: int, device: torch.device) -> Bins:
    """`count` bins along each ray of a batch."""
    bounds = config.rays
    near = torch.full((config.training.rays_per_step,), bounds.near, device=device)
    far = torch.full_like(near, bounds.far)
    edges = stratified_samples(near, far, count, bounds.spacing, bounds.middle)
    return Bins(*edges, peaks(len(near), count, device))


def leaf(tensor: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """A copy that wants a gradient."""
    return tensor.detach().to(dtype, copy=True).requires_grad_()


def plain_mlp(layers: Sequence[torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """Linear layers with ReLU between them, under autograd."""
    for layer in layers[:-1]:
        x = torch.relu(layer.to(x.dtype) @ x)
    return layers[-1].to(x.dtype) @ x


def plain_radiance(features: torch.Tensor, per_ray: torch.Tensor, model: RadianceField) -> list[torch.Tensor]:
    """What `radiance` computes, under autograd."""
    out = plain_mlp(list(model.field.density_mlp.weights), features)
    spread = per_ray[:, :, None].expand(-1, -1, features.shape[1] // per_ray.shape[1]).flatten(1)
    inputs = torch.cat([spread, torch.ones_like(out[:1]), out[1:]])
    return [out[0], plain_mlp(list(model.field.color_mlp.weights), inputs)]


def mlp_rows(bench: Bench, model: RadianceField, rays: int, compute: torch.dtype) -> Iterator[Row]:
    """Both MLPs of the field: by hand, and under autograd."""
    field = model.field
    count = rays * model.config.rays.samples
    features = leaf(torch.randn(field.encoding.num_outputs, count, device=bench.device), compute)
    per_ray = torch.randn(HARMONICS, rays, device=bench.device).to(compute)
    incoming = [torch.randn(*shape, device=bench.device).to(compute) for shape in ((count,), (3, count))]
    parameters = [features, *field.density_mlp.weights, *field.color_mlp.weights]

    def by_hand() -> Sequence[torch.Tensor]:
        return radiance(features, per_ray, field.density_mlp, field.color_mlp)

    def plain() -> Sequence[torch.Tensor]:
        return plain_radiance(features, per_ray, model)

    def both_ways(forward: Callable[[], Sequence[torch.Tensor]]) -> Callable[[], Any]:
        # a gradient that is kept for the optimiser is None to autograd
        return lambda: torch.autograd.grad(forward(), parameters, incoming, allow_unused=True)

    moved = (features, per_ray, *incoming)
    fast = bench.row("MLPs, forward", torch.no_grad()(by_hand), bytes_of(*moved))
    yield fast
    yield bench.row("MLPs under autograd, forward", torch.no_grad()(plain), compared=fast)
    fast = bench.row("MLPs, forward and gradient", both_ways(by_hand), bytes_of(*moved, features, features, *incoming))
    yield fast
    yield bench.row("MLPs under autograd, forward and gradient", both_ways(plain), compared=fast)


def composite_rows(bench: Bench, bins: Bins) -> Iterator[Row]:
    """Colour, depth and opacity of rays."""
    density = leaf(bins.density)
    colors = leaf(torch.rand(3, *density.shape, device=bench.device))
    out = composite(density, colors, bins.t_edges, "last_sample")
    incoming = torch.randn_like(out.color)
    count = density.shape[1]
    moved = (density, colors, bins.t_edges, out.weights)
    yield bench.row(
        f"composite, {count}, forward",
        lambda: composite(density.detach(), colors.detach(), bins.t_edges, "last_sample"),
        bytes_of(*moved),
    )
    yield bench.row(
        f"composite, {count}, gradient",
        lambda: torch.autograd.grad(out.color, (density, colors), incoming, retain_graph=True),
        bytes_of(*moved, density, colors),
    )


def distortion(s_edges: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """Distortion loss in linear time, by sums along each ray."""
    middles = (s_edges[:, 1:] + s_edges[:, :-1]) / 2
    before, moment = share.cumsum(1) - share, (share * middles).cumsum(1) - share * middles
    between = 2 * (share * (middles * before - moment)).sum(1)
    return (between + (share.square() * s_edges.diff(dim=1)).sum(1) / 3).mean()


def loss_rows(bench: Bench, config: Config, bins: Bins, compute: torch.dtype) -> Iterator[Row]:
    """From logits to the loss of a batch and back: in one launch, and by compositing under autograd."""
    rays, samples = bins.logits.shape
    density = leaf(bins.logits.flatten(), compute)
    colors = leaf(torch.randn(3, rays * samples, device=bench.device), compute)
    target = torch.rand(rays, 3, device=bench.device)
    weight = config.loss.distortion

    def fused() -> None:
        loss = render_loss(density, colors, bins.s_edges, bins.t_edges, target, None, weight)
        torch.autograd.grad(loss.total, (density, colors))

    def plain() -> None:
        shown = truncated_exp(density.float()).view(rays, samples)
        out = composite(shown, torch.sigmoid(colors.float()).view(3, rays, samples), bins.t_edges, "last_sample")
        loss = (out.color - target).square().mean() + weight * distortion(bins.s_edges, out.weights)
        torch.autograd.grad(loss, (density, colors))

    moved = (density, colors, bins.s_edges, bins.t_edges, target)
    fast = bench.row("render_loss, forward and gradient", fused, bytes_of(*moved, bins.logits, density, colors))
    yield fast
    yield bench.row("composite and losses under autograd, forward and gradient", plain, compared=fast)


def interlevel_rows(bench: Bench, final: Bins, first: Bins, compute: torch.dtype) -> Iterator[Row]:
    """The loss that teaches the proposal."""
    logits = leaf(first.logits, compute)
    share, outer = weights(final.density, final.t_edges), weights(first.density, first.t_edges)
    fixed = (final.s_edges, share, first.s_edges, first.t_edges)
    moved = (*fixed, logits, outer)

    def both_ways() -> None:
        torch.autograd.grad(interlevel_loss(*fixed, logits, outer), logits)

    yield bench.row(
        "interlevel_loss, forward", lambda: interlevel_loss(*fixed, logits.detach(), outer), bytes_of(*moved)
    )
    yield bench.row("interlevel_loss, forward and gradient", both_ways, bytes_of(*moved, logits))


def optimizer_rows(bench: Bench, model: RadianceField, rays: int, compute: torch.dtype) -> Iterator[Row]:
    """One step of Adam over the main field: `GridAdam`, and torch's fused one with what it leaves to do."""
    field = model.field
    sums = field.encoding.sums
    assert sums is not None, "only a GPU sums in fixed point"
    batch = make_batch("surface", rays * SAMPLES, field.encoding.num_outputs, bench.device)
    incoming = batch.gradient_of("a fifth", compute)
    features = field.encoding(batch.positions, batch.times, compute)[0]
    optimizer = GridAdam(model, 1e-2, None if compute == torch.float32 else 1.0)

    def fill() -> None:
        features.backward(incoming, retain_graph=True)

    fill()
    touched = sum(int((table != 0).sum()) for table in (sums.static, sums.dynamic))
    entries = len(sums.static) + len(sums.dynamic)
    optimizer.step()
    # an entry never reached is asked for its sum and moments; any other is read and written whole, with its copy
    size = 24 * entries + 44 * touched
    fast = bench.row("GridAdam, main field, with clearing and float16 copies", optimizer.step, size, before=fill)
    yield fast

    parameters = [leaf(p) for p in field.parameters()]
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    adam = torch.optim.Adam(parameters, lr=1e-2, eps=EPSILON, fused=True)
    copies = [torch.empty_like(p, dtype=torch.float16) for p in parameters]

    def all_of_it() -> None:
        adam.step()
        for parameter, copy in zip(parameters, copies, strict=True):
            copy.copy_(parameter.detach())
        adam.zero_grad(set_to_none=False)

    yield bench.row("torch.optim.Adam, fused, same parameters", adam.step, compared=fast)
    yield bench.row("torch.optim.Adam, fused, then clearing and float16 copies", all_of_it, compared=fast)


def page(result: Result) -> str:
    """The result as Markdown."""
    first, final = result["samples"]
    about = f"{result['rays']} rays of {first} and of {final} samples, MLPs and logits in {result['dtype']}"
    return common.operations_page("Compositing", "bench_composite.py", about, result)


def measured(device: torch.device, options: argparse.Namespace) -> Result:
    """See `common.main`."""
    return measure_all(device, SMALL if options.small else FULL)


if __name__ == "__main__":
    common.main(NAME, measured, page, arguments(__doc__))
