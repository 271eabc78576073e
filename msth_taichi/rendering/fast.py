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
from dataclasses import dataclass, replace

import torch

from msth_taichi.model.field import ProposalField
from msth_taichi.model.ndc import ndc_distance
from msth_taichi.model.rays import Rays
from msth_taichi.model.renderer import Mode, RadianceField
from msth_taichi.ops.marching import Packed, Passed, marched_edges, pack, pack_cells, redraw, weigh
from msth_taichi.rendering.occupancy import Occupancy
from msth_taichi.scene.cameras import Cameras
from msth_taichi.thresholds import EMPTY_LOGIT

_ROUND = 4
"""Samples of a ray that are looked up before its light is measured again."""

_OPAQUE = 7.0  # optical depth that lets a thousandth through
_CHUNK_CPU = 2**14
_CELLS_CPU = 64
_CHUNK_MOST = 2**21
_MEMORY_SHARE = 0.25  # of the device


@dataclass(frozen=True)
class Shortcuts:
    """What a render may leave out; the defaults cost less than 0.1 dB, see docs/performance.md.

    Args:
        cells: per axis of the occupancy grid; 0 for none, None for twice the proposal's resolution on a GPU and for
            none on a CPU, where building it takes longer than it saves in a small render.
        least_mass: share of a ray's light below which the proposal's weight around a sample is not worth a lookup.
        least_light: share of a ray's light with which it ends.
        least_weight: share of a ray's light below which the colour of a sample is that of the others.
        sure: masks above it count as 1, and below one minus it as 0; 1 for none.

    Example:
        >>> Shortcuts(cells=0, least_mass=-1, least_light=0, least_weight=-1, sure=1)  # all samples, as in training
    """

    cells: int | None = None
    least_mass: float = 2e-3
    least_light: float = 2e-3
    least_weight: float = 2e-3
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
        parts = [
            self.rays(self.camera_rays(camera, part, time), time, mode=mode) for part in pixels.split(self.chunk())
        ]
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
        passed, color, last_color = self._look_up(rays, time, samples, end, mode)
        light = torch.exp(-passed.depth)
        color_behind = last_color if background is None else background.T
        median = passed.median
        if rays.ndc is not None:
            median = ndc_distance(median, rays.ndc, self.model.config.rays.near)
        return {
            "rgb": (color + light * color_behind).clamp(0, 1).T,
            "depth": median,
            "accumulation": 1 - light,
            "mask": passed.mask + light,
        }

    def chunk(self) -> int:
        """Rays at once: always the same on one device, so that a frame is the same whenever it is rendered."""
        if self.device.type != "cuda":
            return _CHUNK_CPU
        config = self.model.config
        samples = max(config.rays.samples, *(proposal.samples for proposal in config.proposals))
        widest = config.field.hidden + 2 * config.field.hidden_color + 2 * config.field.levels * 2
        per_ray = 16 * samples + 20 * config.rays.samples + _ROUND * (4 * widest + 160)
        memory = torch.cuda.get_device_properties(self.device).total_memory
        return max(2**12, min(_CHUNK_MOST, int(_MEMORY_SHARE * memory / per_ray)))

    def occupancy(self, mode: Mode) -> Occupancy | None:
        """The cells of a mode that hold something; None where all are looked up."""
        cells, last = self.shortcuts.cells, self._last_proposal
        if cells is None:
            finest = max(last.encoding.static_spec.resolutions[-1])
            cells = 0 if self.device.type == "cpu" else min(256, 4 * -(-2 * finest // 4))
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
        s_edges, t_edges = marched_edges(near, far, model.config.proposals[0].samples, spacing, middle)
        mass = s_edges
        for proposal, count in zip(model.proposals, counts, strict=True):
            logits = self.proposal_logits(proposal, rays, t_edges, time, mode)  # type: ignore[arg-type]
            if mode != "full":
                logits = model.shown(logits.T.contiguous(), rays, t_edges.T.contiguous(), mode).T.contiguous()
            s_edges, t_edges, mass = redraw(s_edges, t_edges, logits, near, far, count, spacing, middle)
        end = 0.5 * (t_edges[-2] + t_edges[-1])
        return pack(t_edges, mass, self.shortcuts.least_mass, keep_last), end

    def proposal_logits(
        self, proposal: ProposalField, rays: Rays, t_edges: torch.Tensor, time: float, mode: Mode
    ) -> torch.Tensor:
        """(P, N) float32 density logits for edges (P+1, N)."""
        static_only, occupancy = mode == "static", self.occupancy(mode)
        if occupancy is None and self.device.type == "cpu":
            # a CPU multiplies matrices faster than one sample at a time
            found = proposal(rays, t_edges.T.contiguous(), self.model.compute, static_only)
            return found.density_logits.view(len(rays), -1).T.contiguous()
        occupied = None if occupancy is None else occupancy.at(time)
        # what a mode leaves out does not hide what lies behind
        darkness = self._darkness if mode == "full" else math.inf
        return proposal.marched_logits(rays, t_edges, self.model.compute, static_only, occupied, darkness)

    def _look_up(
        self, rays: Rays, time: float, samples: Packed, end: torch.Tensor, mode: Mode
    ) -> tuple[Passed, torch.Tensor, torch.Tensor]:
        """From the front of rays to where their light ends: what they pass, the colour (3, N) of what they see, and
        that of their last sample, where light comes so far."""
        field, compute, space = self.model.field, self.model.compute, self.model.space
        zero = torch.zeros(9, len(rays), device=end.device)
        passed, color, last_color, shown = Passed(zero[0], end.clone(), zero[1]), zero[2:5], zero[5:8], zero[8]
        per_ray, times = field.per_ray(rays).to(compute), end.new_full((1,), float(time))
        alive = samples.count.nonzero().squeeze(1)
        for first in range(0, len(samples.middles), _ROUND):
            if not len(alive):
                break
            row = slice(first, first + _ROUND)
            middles, widths = (x[row].index_select(1, alive).T.contiguous() for x in (samples.middles, samples.widths))
            left = samples.count[alive].long() - first
            origins, directions = rays.origins[alive, None], rays.directions[alive, None]
            positions = space.to_grid((origins + directions * middles[:, :, None]).view(-1, 3))
            found, geometry = field.geometry(positions, times, compute, mode == "static")
            logits = found.density_logits
            if mode != "full":
                logits = torch.where((found.mask < 0.5) == (mode == "dynamic"), logits, EMPTY_LOGIT)
            self.looked_up += logits.numel()
            weights = weigh(passed, alive, left, middles, widths, logits, found.mask)
            lit = passed.depth[alive] < self._darkness

            # colours of samples that show, and of each ray's last one
            count = middles.shape[1]
            is_last = (torch.arange(count, device=left.device) == left[:, None] - 1) & lit[:, None]
            least = self.shortcuts.least_weight
            # thin smoke has no sample that shows: the foremost of each few then stands for them
            thickest = (weights == weights.amax(1, keepdim=True)) & (weights > 0.1 * least)
            chosen = ((weights > least) | thickest | is_last).view(-1).nonzero().squeeze(1)
            ray = alive[chosen.div(count, rounding_mode="floor")]
            seen = torch.sigmoid(field.color_logits(per_ray[:, ray], geometry[:, chosen]).float())
            share = weights.view(-1)[chosen]
            parts = zero.new_zeros(4, weights.numel())
            parts[:, chosen] = torch.cat([seen * share, share[None]])
            sums = parts.view(4, -1, count).sum(2)
            color[:, alive] += sums[:3]
            shown[alive] += sums[3]
            final = is_last.view(-1)[chosen]
            last_color[:, ray[final]] = seen[:, final]
            alive = alive[(left > _ROUND) & lit]
        # where half of the light never goes, the depth is the last sample's, kept or not
        passed.median = torch.where(passed.depth < math.log(2), end, passed.median)
        # the little that did not show has the colour of the rest
        color *= -torch.expm1(-passed.depth) / shown.clamp(min=1e-6)
        return passed, color, last_color


class StillView:
    """Frames through a camera that does not move: rays that meet nothing moving are rendered once.

    A ray is rendered again for each frame if, before static things hide what lies behind, it crosses a cell that holds
    something at some time and that the field's mask calls moving. The other rays are those of one frame.

    Args:
        renderer: of the field.
        cameras: in scene units.
        index: which of them.
        time: of the frame that shows what does not move.
        threshold: masks below it move: nearer to 1, more rays are rendered again, and less is missed.
        mode: see `RadianceField.forward`.
    Source: fixed-view rendering of the released MSTH code, which looks at the masks of each ray's samples.

    Example:
        >>> view = StillView(run.renderer, run.scene.cameras, 0)
        >>> frames = [view.image(k / 29)["rgb"] for k in range(30)]
    """

    def __init__(
        self,
        renderer: FastRenderer,
        cameras: Cameras,
        index: int,
        time: float = 0.0,
        threshold: float = 0.9,
        mode: Mode = "full",
    ):
        self._renderer = renderer
        self._mode: Mode = mode
        self._moving_bits: torch.Tensor | None = None
        self._size = cameras.size(index)
        camera = cameras.select([index]).to(renderer.device)
        width, height = self._size
        pixels = torch.arange(width * height, device=renderer.device)
        rays = [renderer.camera_rays(camera, part, time) for part in pixels.split(renderer.chunk())]
        self.changing = torch.cat([self._changing(part, threshold) for part in rays])
        """(H*W,) bool, rays that are rendered for each frame."""
        where = self.changing.nonzero().squeeze(1)
        self._again = [(part, renderer.camera_rays(camera, part, time)) for part in where.split(renderer.chunk())]
        parts = [self._at(part, time) for part in rays]
        self._first = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    @torch.no_grad()
    def image(self, time: float) -> dict[str, torch.Tensor]:
        """The frame at a time, as `FastRenderer.image` gives it."""
        width, height = self._size
        found = {name: values.clone() for name, values in self._first.items()}
        for pixels, rays in self._again:
            for name, values in self._at(rays, time).items():
                found[name][pixels] = values
        return {name: values.unflatten(0, (height, width)) for name, values in found.items()}

    def _at(self, rays: Rays, time: float) -> dict[str, torch.Tensor]:
        rays = replace(rays, times=torch.full_like(rays.times, float(time)))
        return self._renderer.rays(rays, time, mode=self._mode)

    @torch.no_grad()
    def _changing(self, rays: Rays, threshold: float) -> torch.Tensor:
        renderer, bounds = self._renderer, self._renderer.model.config.rays
        if self._mode == "static":
            return torch.zeros(len(rays), dtype=torch.bool, device=renderer.device)
        proposal: ProposalField = renderer.model.proposals[-1]  # type: ignore[assignment]
        count = renderer.model.config.proposals[0].samples
        _, t_edges = marched_edges(rays.near, rays.far, count, bounds.spacing, bounds.middle)
        moving = self._moving(threshold)
        compute = renderer.model.compute
        moves = proposal.marched_logits(rays, t_edges, compute, occupied=moving) > EMPTY_LOGIT
        logits = proposal.marched_logits(rays, t_edges, compute)
        depth = torch.where(moves, 0.0, torch.exp(logits.clamp(max=30)) * t_edges.diff(dim=0)).cumsum(0)
        return (moves & (depth < _OPAQUE)).any(0)

    def _moving(self, threshold: float) -> torch.Tensor:
        """Bits of cells that hold something at some time, and that the field's mask calls moving at a corner."""
        if self._moving_bits is None:
            model = self._renderer.model
            occupancy = self._renderer.occupancy("full")
            if occupancy is None:
                occupancy = Occupancy(model.proposals[-1], model.compute, _CELLS_CPU)  # type: ignore[arg-type]
            encoding = self._renderer.model.field.encoding
            self._moving_bits = pack_cells(occupancy.ever() & (occupancy.least_mask(encoding) < threshold))
        return self._moving_bits


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
