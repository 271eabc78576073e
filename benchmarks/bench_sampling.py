"""Time of what leads to a field's samples: pixels, their colours and rays, proposal samples, weights, new samples.

    python benchmarks/bench_sampling.py             # the plenoptic preset: 16,384 rays, 128 samples to 48
    python benchmarks/bench_sampling.py --small     # the demo preset

Letters: N rays, P samples of the proposal, S final samples.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import common
import torch
from common import Bench, Result, Row, bytes_of
from options import arguments

from msth_taichi.config import Config, load_preset
from msth_taichi.model.field import ProposalField
from msth_taichi.model.rays import Rays
from msth_taichi.model.renderer import RadianceField
from msth_taichi.ops.resample import resample, resample_logits
from msth_taichi.ops.stratified import stratified_samples
from msth_taichi.reference.composite import weights
from msth_taichi.sampling import PixelBatch, StaticDynamicSampler
from msth_taichi.scene.frames import FrameStore
from msth_taichi.scene.scene import Scene, load_scene
from msth_taichi.training.batches import AHEAD
from msth_taichi.training.run import compute_dtype

NAME = "sampling"

DYNAMIC_SHARE = 0.05
"""Of the pixels of a camera, drawn at random."""


@dataclass(frozen=True)
class Sizes:
    """What is measured.

    Args:
        preset: gives rays, samples and the proposal.
        scene: gives cameras and the sizes of the frames; their content plays no part.
        repeats: of each operation.
        settings: overrides of the preset.
    """

    preset: str
    scene: str
    repeats: int = 15
    settings: tuple[str, ...] = ()


# a tenth of the plenoptic capture's frames: pixels are as far apart in memory as any cache could tell
FULL = Sizes("plenoptic", "synthetic:cameras=19,test_cameras=1,frames=30,width=1352,height=1014")
SMALL = Sizes("demo", "demo", repeats=7)


@dataclass(frozen=True)
class Setting:
    """A scene without content, and a field that has not learned anything."""

    config: Config
    scene: Scene
    model: RadianceField
    store: FrameStore
    sampler: StaticDynamicSampler


def prepare(device: torch.device, sizes: Sizes) -> Setting:
    """Frames of unset memory, and pixels that are dynamic by chance."""
    config = load_preset(sizes.preset, list(sizes.settings))
    scene = load_scene(sizes.scene, config.data)
    images = scene.images("train")
    cameras, shape = images.camera.unique(), scene.cameras.size(0)[::-1]
    torch.manual_seed(0)
    model = RadianceField(config, scene.box).to(device).requires_grad_(False)
    model.compute = compute_dtype(config, device)
    store = FrameStore.of(torch.empty(len(images), *shape, 3, dtype=torch.uint8, device=device), device)
    generator = torch.Generator(device).manual_seed(0)
    dynamic = torch.rand(len(cameras), *shape, generator=generator, device=device) < DYNAMIC_SHARE
    sampler = StaticDynamicSampler(images, cameras, list(dynamic), config.sampler, device, generator)
    return Setting(config, scene, model, store, sampler)


def measure_all(device: torch.device, sizes: Sizes) -> Result:
    """Every row, and what they were measured with."""
    setting = prepare(device, sizes)
    bench = Bench(device, sizes.repeats)
    count = setting.config.training.rays_per_step
    pixels = setting.sampler.sample(0, count, AHEAD)
    cameras = setting.scene.cameras.to(device)
    images = setting.scene.images("train")
    camera, time = (values.to(device)[pixels.image] for values in (images.camera, images.time))
    arguments = cameras, camera, pixels.row, pixels.column, time
    rows = [*pixel_rows(bench, setting, pixels, arguments)]
    with torch.no_grad():
        rows += sample_rows(bench, setting, setting.model.rays(*arguments).split(count)[0])
    return {
        "preset": sizes.preset,
        "settings": list(sizes.settings),
        "scene": sizes.scene,
        "rays": count,
        "samples": [setting.config.proposals[0].samples, setting.config.rays.samples],
        "copy_bytes_per_second": bench.copy_bytes,
        "rows": rows,
    }


def pixel_rows(bench: Bench, setting: Setting, pixels: PixelBatch, arguments: tuple) -> Iterator[Row]:
    """From nothing to rays with the colours they should have, of all batches that a training draws at once."""
    step, count = 0, len(pixels) // AHEAD
    name = f"of {AHEAD} batches"
    yield bench.row(f"static/dynamic pixels {name}", lambda: setting.sampler.sample(step, count, AHEAD))
    yield bench.row(f"colours {name}", lambda: setting.store.gather(pixels.image, pixels.row, pixels.column))
    yield bench.row(f"rays {name}", lambda: setting.model.rays(*arguments))


def sample_rows(bench: Bench, setting: Setting, rays: Rays) -> Iterator[Row]:
    """From rays to the samples that the field is given."""
    bounds, proposals = setting.config.rays, setting.config.proposals
    count, final = proposals[0].samples, bounds.samples
    spacing, middle = bounds.spacing, bounds.middle
    jitter = torch.rand_like(rays.near)
    s_edges, t_edges = stratified_samples(rays.near, rays.far, count, spacing, middle, jitter)
    yield bench.row(
        f"stratified_samples, {count}",
        lambda: stratified_samples(rays.near, rays.far, count, spacing, middle, jitter),
        bytes_of(s_edges, t_edges),
    )
    yield from proposal_rows(bench, setting, rays, t_edges)
    logits = peaks(len(rays), count, rays.near.device)
    found, *drawn = resample_logits(s_edges, t_edges, logits, rays.near, rays.far, final, spacing, middle)
    both = bench.row(
        f"weights and resample, {count} to {final}, one launch",
        lambda: resample_logits(s_edges, t_edges, logits, rays.near, rays.far, final, spacing, middle, jitter=jitter),
        bytes_of(s_edges, t_edges, logits, found, *drawn),
    )

    def by_parts() -> None:
        share = weights(logits.exp(), t_edges)
        resample(s_edges, share, rays.near, rays.far, final, spacing, middle, jitter=jitter)

    yield both
    yield bench.row("weights by PyTorch, then resample", by_parts, compared=both)
    yield bench.row(
        f"of these, resample, {count} to {final}",
        lambda: resample(s_edges, found, rays.near, rays.far, final, spacing, middle, jitter=jitter),
        bytes_of(s_edges, found, *drawn),
    )


def proposal_rows(bench: Bench, setting: Setting, rays: Rays, t_edges: torch.Tensor) -> Iterator[Row]:
    """The proposal's density in one launch, and by its parts."""
    model = setting.model
    proposal, compute = model.proposals[0], model.compute
    assert isinstance(proposal, ProposalField)
    positions = model.space.on_rays(rays, t_edges)
    features, mask = proposal.encoding(positions, rays.times, compute)

    def by_parts() -> None:
        places = model.space.on_rays(rays, t_edges)
        proposal.density_mlp(proposal.encoding(places, rays.times, compute)[0])

    whole = bench.row(
        "proposal density, one launch",
        lambda: proposal.density_logits(rays, t_edges, compute),
        bytes_of(t_edges, proposal.density_logits(rays, t_edges, compute), *rays_read(rays)),
    )
    yield whole
    yield bench.row("proposal density, by its parts", by_parts, compared=whole)
    yield bench.row(
        "of these, sample_positions",
        lambda: model.space.on_rays(rays, t_edges),
        bytes_of(t_edges, positions, *rays_read(rays)),
    )
    yield bench.row(
        "of these, masked_encoding",
        lambda: proposal.encoding(positions, rays.times, compute),
        bytes_of(positions, rays.times, features, mask),
    )
    yield bench.row("of these, MLP", lambda: proposal.density_mlp(features), bytes_of(features, features[0]))


def rays_read(rays: Rays) -> tuple[torch.Tensor, ...]:
    """What a kernel reads of rays to place samples."""
    return rays.origins, rays.directions, rays.times


def peaks(rays: int, samples: int, device: torch.device) -> torch.Tensor:
    """(N, P) density logits of rays that each meet one surface, in fog too thin to stop them."""
    generator = torch.Generator(device).manual_seed(0)
    surface = torch.rand(rays, 1, generator=generator, device=device) * samples
    distance = (torch.arange(samples, device=device) + 0.5 - surface).abs()
    return (100 * torch.exp(-distance.square()) + 1e-3).log()


def page(result: Result) -> str:
    """The result as Markdown."""
    first, final = result["samples"]
    about = f"{result['rays']} rays of {first} samples to {final}"
    return common.operations_page("Sampling", "bench_sampling.py", about, result)


def measured(device: torch.device, options: argparse.Namespace) -> Result:
    """See `common.main`."""
    return measure_all(device, SMALL if options.small else FULL)


if __name__ == "__main__":
    common.main(NAME, measured, page, arguments(__doc__))
