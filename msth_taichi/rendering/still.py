"""Frames through a camera that stands still: what does not move is rendered once.

Letters: N rays, H, W image size, T spans of time, C cells per axis.
"""

import math
from dataclasses import replace

import torch

from msth_taichi.model.field import ProposalField
from msth_taichi.model.parts import in_parts
from msth_taichi.model.rays import Rays
from msth_taichi.model.renderer import Mode
from msth_taichi.ops.marching import marched_edges, pack_cells
from msth_taichi.rendering.fast import FastRenderer
from msth_taichi.rendering.occupancy import Occupancy
from msth_taichi.scene.cameras import Cameras
from msth_taichi.thresholds import EMPTY_LOGIT

_OPAQUE = 7.0  # optical depth that lets a thousandth through
_HAZE = 0.05  # optical depth across a cell
_CELLS_CPU = 64


class StillView:
    """Frames through a camera that does not move: rays that meet nothing moving are rendered once.

    Time is cut into the spans of an `Occupancy`. A ray changes in a span if, before static things hide what lies
    behind (in a dynamic render they hide nothing), it crosses a cell that holds something in that span and that the
    field's mask calls moving; it is then rendered for each frame. In the other spans it shows what it shows in the
    middle of the first of them. So all frames are the same whichever of them are rendered, and in whatever order.

    Args:
        renderer: of the field.
        cameras: in scene units.
        index: which of them.
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
        threshold: float = 0.9,
        mode: Mode = "full",
    ):
        self._renderer = renderer
        self._mode: Mode = mode
        self._size = cameras.size(index)
        self._camera = cameras.select([index]).to(renderer.device)
        self._pixels = torch.arange(math.prod(self._size), device=renderer.device)
        self._occupancy = self._cells()
        masks = self._occupancy.least_mask(renderer.model.field.encoding)
        self._moving = pack_cells(masks < threshold)
        self._changing: list[torch.Tensor] = []
        self._again: tuple[int, torch.Tensor, Rays | None] | None = None  # of one span, which neighbouring frames share
        self._still: dict[str, torch.Tensor] = {}
        self._look()

    def changing(self, time: float) -> torch.Tensor:
        """(H*W,) bool, rays that are rendered for a frame at this time."""
        return self._changing[self._occupancy.span(time)]

    @torch.no_grad()
    def image(self, time: float) -> dict[str, torch.Tensor]:
        """The frame at a time, as `FastRenderer.image` gives it."""
        width, height = self._size
        pixels, rays = self._rays_again(self._occupancy.span(time))
        # first, so that the GPU is not kept waiting for it
        again = self._at(pixels, time, rays) if len(pixels) else {}
        found = {name: values.clone() for name, values in self._still.items()}
        for name, values in again.items():
            found[name][pixels] = values
        return {name: values.unflatten(0, (height, width)) for name, values in found.items()}

    def _rays_again(self, span: int) -> tuple[torch.Tensor, Rays | None]:
        """The pixels that change in a span, and their rays unless these are too many to be kept."""
        if self._again is None or self._again[0] != span:
            pixels = self._pixels[self._changing[span]]
            few = 0 < len(pixels) <= self._renderer.chunk()
            self._again = span, pixels, self._rays(pixels, 0.0) if few else None
        return self._again[1:]

    def _look(self) -> None:
        """Find the rays that change in each span, and render what the others show."""
        spans = self._occupancy.spans
        unseen = torch.ones_like(self._pixels, dtype=torch.bool)
        for span in range(spans):
            time = (span + 0.5) / spans
            parts = in_parts(
                self._pixels,
                self._renderer.chunk(),
                lambda part, time=time: self._changes(self._rays(part, time), time),
            )
            changing = torch.cat(parts)
            self._changing.append(changing)
            # of the last span all, for names and shapes if for nothing else
            fresh = self._pixels[unseen if span == spans - 1 else unseen & ~changing]
            unseen = unseen & changing
            if len(fresh):
                for name, values in self._at(fresh, time).items():
                    if name not in self._still:
                        self._still[name] = values.new_zeros(len(unseen), *values.shape[1:])
                    self._still[name][fresh] = values

    def _rays(self, pixels: torch.Tensor, time: float) -> Rays:
        return self._renderer.camera_rays(self._camera, pixels, time)

    def _at(self, pixels: torch.Tensor, time: float, rays: Rays | None = None) -> dict[str, torch.Tensor]:
        """What pixels show at a time; their rays are made part by part unless they are given."""
        renderer = self._renderer
        if rays is None:
            parts = in_parts(
                pixels, renderer.chunk(), lambda part: renderer.rays(self._rays(part, time), time, mode=self._mode)
            )
        else:
            rays = replace(rays, times=torch.full_like(rays.times, time))
            parts = in_parts(rays, renderer.chunk(), lambda part: renderer.rays(part, time, mode=self._mode))
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    @torch.no_grad()
    def _changes(self, rays: Rays, time: float) -> torch.Tensor:
        """(N,) bool: which rays change in the span of a time."""
        renderer, bounds = self._renderer, self._renderer.model.config.rays
        if self._mode == "static":
            return torch.zeros(len(rays), dtype=torch.bool, device=renderer.device)
        proposal: ProposalField = renderer.model.proposals[-1]  # type: ignore[assignment]
        count = renderer.model.config.proposals[0].samples
        _, t_edges = marched_edges(rays.near, rays.far, count, bounds.spacing, bounds.middle)
        compute = renderer.model.compute
        moving = self._moving & self._occupancy.at(time)
        moves = proposal.marched_logits(rays, t_edges, compute, occupied=moving) > EMPTY_LOGIT
        if self._mode == "dynamic":
            return moves.any(0)
        logits = proposal.marched_logits(rays, t_edges, compute)
        depth = torch.where(moves, 0.0, torch.exp(logits.clamp(max=30)) * t_edges.diff(dim=0)).cumsum(0)
        return (moves & (depth < _OPAQUE)).any(0)

    def _cells(self) -> Occupancy:
        """Of what can be seen: a haze that moves is none."""
        model, shared = self._renderer.model, self._renderer.occupancy("full")
        cells = _CELLS_CPU if shared is None else shared.cells
        return Occupancy(model.proposals[-1], model.compute, cells, least=_HAZE)  # type: ignore[arg-type]
