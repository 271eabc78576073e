"""Rendering without what cannot be seen: the same pictures, for a fraction of the lookups.

    1  Proposals are looked up in occupied cells only.
    2  Samples around which the last proposal has next to no weight are dropped before the field, empty ones and
       those behind surfaces alike.
    3  The field is looked up from the front of rays to their back, some samples at a time; a ray ends where no light
       is left.
    4  Colours are looked up of samples that show.
    5  Masks that are sure within a hair count as sure, and the table without a share is not read.

Letters: N rays, P samples of a proposal, S samples of the field, M samples that are looked up, H, W image size.
"""

import copy
import math
from dataclasses import dataclass

import torch

from msth_taichi.model.field import ProposalField
from msth_taichi.model.ndc import ndc_distance
from msth_taichi.model.parts import in_parts
from msth_taichi.model.rays import Rays
from msth_taichi.model.renderer import Mode, RadianceField
from msth_taichi.ops.lookups import (
    ALIGNED,
    Counted,
    Lookups,
    Seen,
    Turn,
    aligned,
    choose,
    color_inputs,
    place,
    shade,
    want,
    weigh,
)
from msth_taichi.ops.marching import Packed, Redrawn, Regular, pack, redraw
from msth_taichi.rendering.occupancy import Occupancy
from msth_taichi.scene.cameras import Cameras
from msth_taichi.thresholds import EMPTY_LOGIT

_TURNS = (4, 4, 4, 6, 10)
"""Samples of a ray that are looked up at once; after them all that are left. A turn costs the host as much for a few
rays as for all, and few go on for long: so later turns are longer."""

_CHUNK_CPU = 2**14
_INDICES = 2**31 - 2**16  # of a tensor in a kernel, and some room
_MEMORY_SHARE = 0.25  # of the device


@dataclass(frozen=True)
class Shortcuts:
    """What a render may leave out; the defaults cost less than 0.1 dB, see docs/performance.md.

    Args:
        cells: per axis of the occupancy grid; 0 for none, None for the proposal's resolution on a GPU and for none on a
            CPU, where building it takes longer than it saves in a small render.
        least_mass: share of a ray's light below which the proposal's weight around a sample is not worth a lookup.
        least_light: share of a ray's light with which it ends.
        least_weight: share of a ray's light below which the colour of a sample is that of the others.
        sure: masks above it count as 1, and below one minus it as 0; 1 for none.

    Example:
        >>> # all samples, as in training
        >>> whole = Shortcuts(cells=0, least_mass=-1, least_light=0, least_weight=-1, sure=1)
    """

    cells: int | None = None
    least_mass: float = 4e-3
    least_light: float = 4e-3
    least_weight: float = 5e-3
    sure: float = 0.99


class FastRenderer:
    """Frames of a field that is not trained any more.

    Args:
        model: on its device; it is not changed. Train it on, and make another renderer.
        shortcuts: what may be left out.

    Example:
        >>> renderer = FastRenderer(run.model)
        >>> renderer.image(run.scene.cameras, 0, time=0.5)["rgb"].shape
        torch.Size([96, 128, 3])
    """

    def __init__(self, model: RadianceField, shortcuts: Shortcuts = Shortcuts()):
        self.model = with_sure_masks(model, shortcuts.sure)
        self.shortcuts = shortcuts
        self.device = model.field.encoding.mask_logits.device
        self.looked_up = 0
        """Samples of the field that were looked up so far."""
        self._occupancies: dict[bool, Occupancy] = {}

    @torch.no_grad()
    def image(self, cameras: Cameras, index: int, time: float, *, mode: Mode = "full") -> dict[str, torch.Tensor]:
        """One frame, as `render_image` gives it.

        Args:
            cameras: in scene units.
            index: which of them.
            time: in [0, 1].
            mode: see `RadianceField.forward`.
        """
        width, height = cameras.size(index)
        camera = cameras.select([index]).to(self.device)
        pixels = torch.arange(height * width, device=self.device)
        parts = in_parts(
            pixels, self.chunk(), lambda part: self.rays(self.camera_rays(camera, part, time), time, mode=mode)
        )
        return {name: torch.cat([part[name] for part in parts]).unflatten(0, (height, width)) for name in parts[0]}

    def camera_rays(self, camera: Cameras, pixels: torch.Tensor, time: float) -> Rays:
        """Rays of pixels (N,), numbered along rows, of one camera."""
        width, _ = camera.size(0)
        bounds = self.model.config.rays
        times = torch.full((len(pixels),), float(time), device=self.device)
        row, column = pixels // width, pixels % width
        near = bounds.near_render or bounds.near
        return self.model.rays(camera, torch.zeros_like(pixels), row, column, times, near)

    @torch.no_grad()
    def rays(
        self, rays: Rays, time: float, *, mode: Mode = "full", behind: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """What N rays see at one time: rgb (N, 3), depth, accumulation and mask (N,).

        Args:
            rays: N.
            time: in [0, 1].
            mode: see `RadianceField.forward`.
            behind: (N, 3) colour where they end; None for the model's own.
        """
        background = self.model.background(len(rays), mode=mode) if behind is None else behind
        samples, end = self._samples(rays, time, mode, keep_last=background is None)
        seen, color, last_color = self._look_up(rays, time, samples, end, mode, keep_last=background is None)
        light = torch.exp(-seen.depth)
        # where half of the light never goes, the depth is the last sample's, kept or not
        median = torch.where(seen.depth < math.log(2), end, seen.median)
        color_behind = last_color if background is None else background.T
        if rays.ndc is not None:
            median = ndc_distance(median, rays.ndc, self.model.config.rays.near)
        return {
            "rgb": (color + light * color_behind).clamp(0, 1).T,
            "depth": median,
            "accumulation": 1 - light,
            "mask": seen.mask + light,
        }

    def chunk(self) -> int:
        """Rays at once: always the same on one device, so that a frame is the same whenever it is rendered."""
        if self.device.type != "cuda":
            return _CHUNK_CPU
        config = self.model.config
        field, samples = self.model.field, config.rays.samples
        proposed = max(proposal.samples for proposal in config.proposals)
        inputs = field.color_mlp.weights[0].shape[1]
        colors = 2 * (inputs + 2 * config.field.hidden_color)
        turn = max(len(rows) for rows in turns_of(samples)) * 2 * (field.encoding.num_outputs + config.field.hidden + 8)
        per_ray = 16 * max(samples, proposed) + samples * (64 + colors) + turn
        memory = torch.cuda.get_device_properties(self.device).total_memory
        most = _INDICES // (samples * inputs)
        return max(2**12, min(most, int(_MEMORY_SHARE * memory / per_ray)))

    def occupancy(self, mode: Mode) -> Occupancy | None:
        """The cells of a mode that hold something; None where all are looked up."""
        cells, last = self.shortcuts.cells, self._last_proposal
        if cells is None:
            finest = max(last.encoding.static_spec.resolutions[-1])
            cells = 0 if self.device.type == "cpu" else min(256, 4 * -(-finest // 4))
        static_only = mode == "static"
        if cells and static_only not in self._occupancies:
            self._occupancies[static_only] = Occupancy(last, self.model.compute, cells, static_only)
        return self._occupancies.get(static_only)

    @property
    def _darkness(self) -> float:
        """Optical depth at which a ray ends."""
        least = self.shortcuts.least_light
        return -math.log(least) if least > 0 else math.inf

    @property
    def _last_proposal(self) -> ProposalField:
        return self.model.proposals[-1]  # type: ignore[return-value]

    def _samples(self, rays: Rays, time: float, mode: Mode, keep_last: bool) -> tuple[Packed, torch.Tensor]:
        """The samples of the field that the proposals leave, and the middle of each ray's last bin (N,)."""
        model, bounds = self.model, self.model.config.rays
        counts = [proposal.samples for proposal in model.config.proposals[1:]] + [bounds.samples]
        near, far, spacing, middle = rays.near, rays.far, bounds.spacing, bounds.middle
        regular = Regular(near, far, model.config.proposals[0].samples, spacing, middle)
        drawn: Redrawn | None = None
        for proposal, count in zip(model.proposals, counts, strict=True):
            edges = regular if drawn is None else drawn.t_edges
            logits = self.proposal_logits(proposal, rays, edges, time, mode)  # type: ignore[arg-type]
            if mode != "full":
                logits = model.shown(logits.T.contiguous(), rays, _distances(edges).T.contiguous(), mode).T.contiguous()
            drawn = redraw(None if drawn is None else drawn[:2], logits, near, far, count, spacing, middle)
        assert drawn is not None
        end = 0.5 * (drawn.t_edges[-2] + drawn.t_edges[-1])
        return pack(drawn.t_edges, drawn.mass, self.shortcuts.least_mass, keep_last), end

    def proposal_logits(
        self, proposal: ProposalField, rays: Rays, edges: torch.Tensor | Regular, time: float, mode: Mode
    ) -> torch.Tensor:
        """(P, N) float32 density logits of bins with edges (P+1, N)."""
        static_only, occupancy = mode == "static", self.occupancy(mode)
        if occupancy is None and self.device.type == "cpu":
            # a CPU multiplies matrices faster than one sample at a time
            found = proposal(rays, _distances(edges).T.contiguous(), self.model.compute, static_only)
            return found.density_logits.view(len(rays), -1).T.contiguous()
        occupied = None if occupancy is None else occupancy.at(time)
        # what a mode leaves out does not hide what lies behind
        darkness = self._darkness if mode == "full" else math.inf
        return proposal.marched_logits(rays, edges, self.model.compute, static_only, occupied, darkness)

    def _look_up(
        self, rays: Rays, time: float, samples: Packed, end: torch.Tensor, mode: Mode, keep_last: bool
    ) -> tuple[Seen, torch.Tensor, torch.Tensor]:
        """What rays pass, the colour (3, N) of what they see, and that of their last sample that shows."""
        field, given, space = self.model.field, self.shortcuts, self.model.space
        lookups = Lookups(samples)
        turns = turns_of(len(samples.middles))
        times = rays.origins.new_full((1,), float(time))
        per_ray = field.per_ray(rays).to(self.model.compute).contiguous()
        geometry, masks = per_ray.new_empty(0, 0), times.new_empty(0)
        known: Turn | None = None
        for rows in turns:
            base = lookups.total
            wanted = want(lookups, rows, self._darkness, known)
            most = wanted.room(lookups.room(rows))
            positions = place(lookups, rows, wanted, most, rays.origins, rays.directions, space.contraction, space.box)  # type: ignore[arg-type]
            if known is None:
                # with room for what fills up each turn
                room = max(aligned(lookups.all.total) + ALIGNED * len(turns), len(positions))
                geometry = per_ray.new_empty(len(field.density_mlp.weights[-1]), room)
                masks = times.new_empty(room)
            if not most:
                break
            static_only, mask = mode == "static", masks[base : base + len(positions)]
            features = field.encoding.values(wanted.last, ALIGNED, positions, times, mask, per_ray.dtype, static_only)
            # the GPU has all of this to do while the host waits to hear how many they are
            number = lookups.take(rows, wanted)
            if not number:
                break
            found = geometry[:, base : lookups.total]
            field.geometry(features[:, :number], positions[:number], found)
            if mode != "full":
                found[0] = torch.where((mask[:number] < 0.5) == (mode == "dynamic"), found[0], EMPTY_LOGIT)
            known = Turn(rows, base, found[0])
        self.looked_up += lookups.total

        logits, mask = geometry[0, : lookups.total], masks[: lookups.total]
        seen = weigh(lookups, logits, mask, end, given.least_weight, self._darkness, keep_last)
        chosen = choose(lookups, seen, Counted(seen.shown))
        colors = field.color_mlp(color_inputs(chosen, per_ray, geometry))
        return seen, *shade(chosen, seen, colors)


def _distances(edges: torch.Tensor | Regular) -> torch.Tensor:
    """(P+1, N) scene units."""
    return edges.tensors()[1] if isinstance(edges, Regular) else edges


def turns_of(samples: int) -> list[range]:
    """Samples of a ray, turn by turn.

    Example:
        >>> turns_of(10)
        [range(0, 4), range(4, 8), range(8, 10)]
    """
    found, first = [], 0
    for count in (*_TURNS, samples):
        if first < samples:
            found.append(range(first, min(first + count, samples)))
            first += count
    return found


def with_sure_masks(model: RadianceField, sure: float) -> RadianceField:
    """A copy of a field whose masks above `sure` are 1, and below one minus it 0, at the vertices of their grid.

    Where all corners of a cell are sure, the table without a share is not read. The field itself where `sure` is 1.
    """
    if sure >= 1:
        return model
    # what is not trained any more is the same in the copy
    kept = {id(p): p for name, p in model.named_parameters() if not p.requires_grad and "mask_logits" not in name}
    model = copy.deepcopy(model, kept)
    limit = torch.logit(torch.tensor(sure, dtype=torch.float64)).item()
    for part in model.fields():
        logits = part.encoding.mask_logits.data
        part.encoding.mask_logits.data = torch.where(logits.abs() > limit, 20.0 * logits.sign(), logits)
    return model
