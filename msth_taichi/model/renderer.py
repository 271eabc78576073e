"""From rays to pixels: proposals say where to look, the field says what is there, compositing adds it up.

Letters: N rays, S samples per ray, P samples of a proposal, H, W image size.
"""

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import nn

from msth_taichi.config import Config
from msth_taichi.model.corrections import Appearances, CameraColors, CameraPoses
from msth_taichi.model.field import Field, MaskedField, ProposalField
from msth_taichi.model.mlp import truncated_exp
from msth_taichi.model.ndc import ndc_distance, ndc_position
from msth_taichi.model.parts import in_parts
from msth_taichi.model.rays import Rays, camera_rays
from msth_taichi.model.space import Space
from msth_taichi.model.uncertainty import UncertaintyObjective
from msth_taichi.ops.composite import composite
from msth_taichi.ops.resample import resample_logits
from msth_taichi.ops.stratified import spaced_positions, stratified_samples
from msth_taichi.scene.cameras import Cameras
from msth_taichi.thresholds import EMPTY_LOGIT

Mode = Literal["full", "static", "dynamic"]
MODES: tuple[Mode, ...] = ("full", "static", "dynamic")

_ANNEAL_SLOPE = 10.0  # mip-NeRF 360, section 3.1


@dataclass
class Level:
    """Where one sampler looked and what it found.

    Args:
        s_edges: (N, P+1) in [0, 1].
        t_edges: (N, P+1) the same edges in scene units.
        weights: (N, P) detached for a proposal.
        density_logits: (N, P).
    """

    s_edges: torch.Tensor
    t_edges: torch.Tensor
    weights: torch.Tensor
    density_logits: torch.Tensor


class Samples(NamedTuple):
    """Bins for the field: s_edges (N, S+1) in [0, 1], t_edges (N, S+1) in scene units; and what led to them."""

    s_edges: torch.Tensor
    t_edges: torch.Tensor
    levels: list[Level]


@dataclass
class Rendering:
    """What N rays see.

    Args:
        color: (N, 3).
        depth: (N,) median depth, scene units.
        depth_expected: (N,) mean depth, scene units.
        accumulation: (N,) opacity in [0, 1].
        mask: (N,) how static what the ray sees is; empty space counts as static.
        levels: one per proposal, then the final samples.
    """

    color: torch.Tensor
    depth: torch.Tensor
    depth_expected: torch.Tensor
    accumulation: torch.Tensor
    mask: torch.Tensor
    levels: list[Level]


def anneal_exponent(step: int, steps: int) -> float:
    """Exponent a of the proposal weights: a = 10 f / (9 f + 1), f = min(step / steps, 1).

    Source: mip-NeRF 360, section 3.1.

    Example:
        >>> round(anneal_exponent(1250, 5000), 3)
        0.769
    """
    fraction = min(step / steps, 1.0) if steps else 1.0
    return _ANNEAL_SLOPE * fraction / ((_ANNEAL_SLOPE - 1) * fraction + 1)


class RadianceField(nn.Module):
    """A main field and its proposals.

    Args:
        config: all settings; those of data and training are not used.
        box: half edge of the scene box, scene units, where rays.contraction is "none".
        cameras: (K,) rows of the scene's cameras that are trained on, where settings ask for something about each.

    Example:
        >>> model = RadianceField(load_preset("demo"), box=1.0)
        >>> model.render_image(scene.cameras, 0, time=0.5)["rgb"].shape
        torch.Size([96, 128, 3])
    """

    def __init__(self, config: Config, box: float, cameras: torch.Tensor | None = None):
        super().__init__()
        self.config = config
        self.space = Space(config.rays.contraction, box)
        learnt = config.cameras
        cameras = torch.zeros(0, dtype=torch.int64) if cameras is None else cameras
        self.colors = CameraColors(cameras) if learnt.colors == "affine" else None
        self.poses = CameraPoses(cameras) if learnt.poses == "refine" else None
        appearances = Appearances(cameras, learnt.appearance) if learnt.appearance else None
        self.field = MaskedField(config.field, self.space, appearances)
        self.proposals = nn.ModuleList(ProposalField(p, self.space) for p in config.proposals)
        # the sum of both tables has no mask to guide
        guided = config.mask.objective == "uncertainty" and config.field.blend != "add"
        self.uncertainty = UncertaintyObjective(config.mask.information) if guided else None
        self.compute = torch.float32
        """dtype of features and MLPs; tables and sums stay float32."""

    def fields(self) -> list[Field]:
        """The main field, then the proposals."""
        return [self.field, *self.proposals]  # type: ignore[list-item]

    def rays(
        self,
        cameras: Cameras,
        camera: torch.Tensor,
        row: torch.Tensor,
        column: torch.Tensor,
        times: torch.Tensor,
        near: float | None = None,
    ) -> Rays:
        """Rays through pixel centres (N,), with this model's bounds; see `camera_rays`."""
        bounds = self.config.rays
        box = self.space.box if bounds.contraction == "none" else None
        ndc = bounds.near if bounds.ndc else None
        return camera_rays(cameras, camera, row, column, times, near or bounds.near, bounds.far, box, ndc)

    def sample(
        self,
        rays: Rays,
        *,
        jitter: torch.Tensor | None = None,
        anneal: float = 1.0,
        train_proposals: bool = False,
        mode: Mode = "full",
    ) -> Samples:
        """Where on the rays the field is to be evaluated, according to the proposals.

        Args:
            rays: N rays.
            jitter: (samplers, N) in [0, 1) for stratified sampling: one row per proposal and one for the final
                samples; None for regular samples.
            anneal: exponent of the proposal weights.
            train_proposals: let gradients reach the proposals.
            mode: see `forward`.
        """
        bounds, rays = self.config.rays, rays.detach()
        jitters = [None] * (len(self.proposals) + 1) if jitter is None else list(jitter.unbind())
        levels: list[Level] = []
        s_edges, t_edges = stratified_samples(
            rays.near, rays.far, self.config.proposals[0].samples, bounds.spacing, bounds.middle, jitters[0]
        )
        counts = [p.samples for p in self.config.proposals[1:]] + [bounds.samples]
        proposals: list[ProposalField] = list(self.proposals)  # type: ignore[arg-type]
        for proposal, count, offset in zip(proposals, counts, jitters[1:], strict=True):
            if train_proposals or rays.origins.device.type == "cpu":
                # a CPU multiplies matrices faster than one sample at a time
                with torch.set_grad_enabled(train_proposals and torch.is_grad_enabled()):
                    found = proposal(rays, t_edges, self.compute, mode == "static")
                logits = found.density_logits.view(len(rays), -1)
            else:
                logits = proposal.density_logits(rays, t_edges, self.compute, mode == "static")
            shown = self.shown(logits.detach().float(), rays, t_edges, mode)
            found_weights, new_s_edges, new_t_edges = resample_logits(
                s_edges,
                t_edges,
                shown,
                rays.near,
                rays.far,
                count,
                bounds.spacing,
                bounds.middle,
                anneal=anneal,
                jitter=offset,
            )
            levels.append(Level(s_edges, t_edges, found_weights, logits))
            s_edges, t_edges = new_s_edges, new_t_edges
        return Samples(s_edges, t_edges, levels)

    def forward(self, rays: Rays, *, background: torch.Tensor | None = None, mode: Mode = "full") -> Rendering:
        """Render rays.

        Args:
            rays: N rays.
            background: (N, 3) colour behind the samples; None for the colour of the last sample.
            mode: "full"; "dynamic" keeps the samples that move more than they stay, m < 1/2 in the main field; "static"
                keeps the others, and reads the static table alone: where things moved, it has learnt their traces.
        """
        s_edges, t_edges, levels = self.sample(rays, mode=mode)
        found = self.field(rays, t_edges, self.compute, mode == "static")
        logits = found.density_logits.float().view(len(rays), -1)
        density = truncated_exp(self.shown(logits, rays, t_edges, mode))
        behind = "last_sample" if background is None else background
        out = composite(density, found.color.view(3, len(rays), -1), t_edges, behind)
        mask = (out.weights * found.mask.view_as(density)).sum(1) + 1 - out.accumulation
        levels = [*levels, Level(s_edges, t_edges, out.weights, logits)]
        median, mean = out.depth_median, out.depth
        if rays.ndc is not None:
            median, mean = (ndc_distance(t, rays.ndc, self.config.rays.near) for t in (median, mean))
        return Rendering(out.color, median, mean, out.accumulation, mask, levels)

    @torch.no_grad()
    def mask(self, positions: torch.Tensor, times: torch.Tensor | None = None) -> torch.Tensor:
        """(M,) how static positions (M, 3), scene units, are at times (N,): 1 static, 0 moving.

        N divides M: each time is that of as many positions. They may be left out where `field.mask_times` is 1.

        Raises:
            TensorError: no times for a mask that changes with them.
        """
        return self.field.encoding.mask(self.space.to_grid(positions), times)

    def refined(self, cameras: Cameras) -> Cameras:
        """Training cameras where they were found to stand; others as they are."""
        if self.poses is None:
            return cameras
        cameras = cameras.to(self.poses.values.device)
        return replace(cameras, camera_to_world=self.poses(cameras.camera_to_world))

    @torch.no_grad()
    def positions(self, rays: Rays, distances: torch.Tensor) -> torch.Tensor:
        """Where on rays, in the s in which their samples are evenly spaced, a distance is met.

        Args:
            rays: N rays.
            distances: (N,) along the unit ray, scene units; 0 where unknown.
        Returns:
            (N,) in [0, 1], and 1 beyond the end of the ray; -1 where unknown or before its start.
        """
        bounds, t = self.config.rays, distances
        if rays.ndc is not None:
            t = ndc_position(distances, rays.ndc, bounds.near)
        s = spaced_positions(t, rays.near, rays.far, bounds.spacing, bounds.middle)
        return torch.where(distances > 0, s, -1.0)

    def background(self, count: int, random: torch.Tensor | None = None, mode: Mode = "full") -> torch.Tensor | None:
        """Colour behind `count` rays: (N, 3), or None for each ray's last sample.

        "random" is `random`, or what rays.background_render says, or grey. A dynamic render
        has nothing behind it: black for the last sample.
        """
        kind = self.config.rays.background
        if kind == "last_sample" and mode != "dynamic":
            return None
        if kind == "random" and random is not None:
            return random
        kind = self.config.rays.behind
        value = {"white": 1.0, "random": 0.5}.get(kind, 0.0)
        return torch.full((count, 3), value, device=self.field.encoding.mask_logits.device)

    def shown(self, logits: torch.Tensor, rays: Rays, t_edges: torch.Tensor, mode: Mode) -> torch.Tensor:
        """Density logits (N, S) of what a mode shows: the main field's mask decides for the coarser proposals too."""
        if mode == "full":
            return logits
        moves = self.field.encoding.mask(self.space.on_rays(rays, t_edges), rays.times) < 0.5
        return torch.where(moves.view_as(logits) == (mode == "dynamic"), logits, EMPTY_LOGIT)

    def render_image(self, cameras: Cameras, index: int, time: float, **options) -> dict[str, torch.Tensor]:
        """See `render_image`."""
        return render_image(self, cameras, index, time, **options)


@torch.no_grad()
def render_image(
    model: RadianceField,
    cameras: Cameras,
    index: int,
    time: float,
    *,
    mode: Mode = "full",
    chunk: int | None = None,
) -> dict[str, torch.Tensor]:
    """One frame.

    Args:
        model: a field.
        cameras: in scene units.
        index: which of them.
        time: in [0, 1].
        mode: see `RadianceField.forward`.
        chunk: rays at once; default: `evaluation.chunk`.
    Returns:
        rgb (H, W, 3) in [0, 1]; depth (H, W) median distance along the ray, scene units; accumulation (H, W);
        mask (H, W), 1 where static.
    """
    device = model.field.encoding.mask_logits.device
    cameras = cameras.select([index]).to(device)
    width, height = cameras.size(0)
    pixels = torch.arange(height * width, device=device)
    bounds = model.config.rays

    def render(part: torch.Tensor) -> dict[str, torch.Tensor]:
        times = torch.full((len(part),), float(time), device=device)
        rays = model.rays(
            cameras,
            torch.zeros_like(part),
            part // width,
            part % width,
            times,
            bounds.near_render or bounds.near,
        )
        out = model(rays, background=model.background(len(part), mode=mode), mode=mode)
        color = out.color.clamp(0, 1)
        return {"rgb": color, "depth": out.depth, "accumulation": out.accumulation, "mask": out.mask}

    parts = in_parts(pixels, chunk or model.config.evaluation.chunk, render)
    return {name: torch.cat([part[name] for part in parts]).unflatten(0, (height, width)) for name in parts[0]}
