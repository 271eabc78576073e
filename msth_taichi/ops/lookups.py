"""Which samples of rays a render looks up in the field, and what rays see in them. None of it is differentiated.

    1  A few samples of each ray at a time, from the front, until its light is gone.
    2  The colours of samples that show.

What is looked up has a slot: its number among all that are. Samples without one hold nothing.

Letters: N rays, S samples of each at most, M samples that are looked up, C of them whose colours are, G geometry
features, B features of a ray.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from msth_taichi.kernels.lookups import SKIPPED, lookup_kernels, place_kernels
from msth_taichi.ops.checks import check
from msth_taichi.ops.marching import Packed
from msth_taichi.reference.contract import Contraction

_LOGITS = (torch.float16, torch.float32)

ALIGNED = 8
"""Samples come in multiples of it: rows of float16 that start at odd addresses cost a GPU twice as long to multiply."""


@dataclass
class Lookups:
    """What has been looked up of N rays.

    Args:
        samples: middles (S, N), widths (S, N) and counts (N,).

    Attributes:
        slots: (S, N) int32, negative of what is not looked up.
        depth: (N,) optical depth of the turns that `want` was told of.
        all: counts all samples there are.
        taken: samples of all turns so far.
        total: M, the same with up to 7 a turn that belong to no ray.
    """

    samples: Packed
    slots: torch.Tensor = field(init=False)
    depth: torch.Tensor = field(init=False)
    all: "Counted" = field(init=False)
    taken: int = field(default=0, init=False)
    total: int = field(default=0, init=False)
    _going: int = field(init=False)  # rays that go on, at most

    def __post_init__(self) -> None:
        middles, widths, count = self.samples
        check("middles", middles, (None, None), torch.float32)
        check("widths", widths, tuple(middles.shape), torch.float32)
        check("count", count, (middles.shape[1],), torch.int32)
        self.slots = torch.full(middles.shape, SKIPPED, dtype=torch.int32, device=middles.device)
        self.depth = torch.zeros(middles.shape[1], device=middles.device)
        self.all = Counted(count)
        self._going = len(count)

    def room(self, rows: range) -> int:
        """At most so many samples of the next turn are wanted; known before they are counted.

        A ray goes on only if all its samples of the turn before were wanted.
        """
        most = len(rows) * self._going
        return min(most, self.all.total - self.taken) if self.taken else most

    def take(self, rows: range, wanted: "Counted") -> int:
        """Go on to the next turn, once the host has heard how many samples of this one are wanted; that number,
        aligned."""
        number = aligned(wanted.total)
        self.taken += wanted.total
        self.total += number
        self._going = wanted.total // max(len(rows), 1)
        return number


class Counted:
    """How many samples of each ray, and of all rays before it.

    The number of all is asked for at once and waited for when it is read, so that other work fits in between.

    Args:
        each: (N,) int32.

    Attributes:
        each: as given.
        ends: (N,) int32, running sum.

    Example:
        >>> Counted(torch.tensor([2, 0, 3], dtype=torch.int32)).total
        5
    """

    def __init__(self, each: torch.Tensor):
        check("each", each, (None,), torch.int32)
        self.each, self.ends = each, each.cumsum(0, dtype=torch.int32)
        self._total = self.ends[-1:].to("cpu", non_blocking=True)
        self._arrival: torch.cuda.Event | None = None
        if each.is_cuda:
            self._arrival = torch.cuda.Event()
            self._arrival.record()

    @property
    def last(self) -> torch.Tensor:
        """(1,) int32 the sum, where the samples are; of at least one ray."""
        return self.ends[-1:]

    def room(self, most: int) -> int:
        """The sum if the host knows it without waiting, else the most that it can be."""
        return self.total if self._arrival is None else most

    @property
    def total(self) -> int:
        """The sum."""
        if self._arrival is not None:
            self._arrival.synchronize()
        return int(self._total.sum())


class Turn(NamedTuple):
    """What some samples of each ray turned out to be: which ones, the slot of the first of them, and their density
    logits (M',)."""

    rows: range
    base: int
    logits: torch.Tensor


class Seen(NamedTuple):
    """What N rays pass: optical depth (N,), distance where half of the light is gone (N,), sum of masks by weight
    (N,); weights of the samples (M,), -1 of those that do not show; and how many of a ray's do (N,)."""

    depth: torch.Tensor
    median: torch.Tensor
    mask: torch.Tensor
    weights: torch.Tensor
    shown: torch.Tensor


class Chosen(NamedTuple):
    """The samples that show, ray after ray: their slots (C,), their rays (C,), and for each ray (N,) how many there are
    up to its last one. C is a multiple of 8, and slot and ray zero of what is beyond the last ray's."""

    slots: torch.Tensor
    rays: torch.Tensor
    ends: torch.Tensor


def want(lookups: Lookups, rows: range, darkness: float, known: Turn | None = None) -> Counted:
    """Ask for some more of each ray's samples, as long as there is light.

    Args:
        lookups: its depth grows by what an earlier turn found.
        rows: which of each ray's samples, of those that were not asked for so far.
        darkness: optical depth at which a ray ends.
        known: what the earlier turn found, each told of once, in their order.
    Returns:
        how many are wanted. Where none are, no later sample will be.

    Example:
        >>> wanted = want(lookups, range(8), 6.0)
    """
    _, widths, count = lookups.samples
    known = Turn(range(0), 0, widths.new_empty(0)) if known is None else known
    check("logits", known.logits, (None,), _LOGITS)
    wanted = torch.empty_like(count)
    if len(count):
        lookup_kernels(known.logits.dtype).want(
            rows.start,
            rows.stop,
            darkness,
            count,
            widths,
            known.logits,
            known.base,
            known.rows.start,
            known.rows.stop,
            lookups.depth,
            lookups.slots,
            wanted,
        )
    return Counted(wanted)


def place(
    lookups: Lookups,
    rows: range,
    wanted: Counted,
    room: int,
    origins: torch.Tensor,
    directions: torch.Tensor,
    kind: Contraction = "inf",
    box: float = 1.0,
) -> torch.Tensor:
    """Give a slot to each wanted sample, ray after ray, and say where it lies in the grids.

    The host need not know how many they are: `Lookups.take` waits for that, when all that does not depend on it has
    been asked for.

    Args:
        lookups: its slots grow.
        rows: as `want` was given them.
        wanted: from `want`.
        room: at least as many as are wanted.
        origins: (N, 3) scene units.
        directions: (N, 3).
        kind: contraction.
        box: half edge of a bounded scene.
    Returns:
        (M', 3) grid positions, M' the next multiple of 8 of `room`. Beyond the wanted ones they are zero up to a
        multiple of 8, and from there on not written.

    Example:
        >>> wanted = want(lookups, range(8), 6.0)
        >>> room = wanted.room(lookups.room(range(8)))
        >>> positions = place(lookups, range(8), wanted, room, rays.origins, rays.directions)
        >>> positions = positions[: lookups.take(range(8), wanted)]
    """
    middles, _, count = lookups.samples
    check("wanted", wanted.each, tuple(count.shape), torch.int32)
    check("origins", origins, (len(count), 3), torch.float32)
    check("directions", directions, (len(count), 3), torch.float32)
    positions = origins.new_empty(aligned(room), 3)
    if len(positions):
        place_kernels(kind).place(
            rows.start,
            rows.stop,
            count,
            wanted.ends,
            wanted.each,
            lookups.total,
            origins,
            directions,
            middles,
            box,
            ALIGNED,
            lookups.slots,
            positions,
        )
    return positions


def weigh(
    lookups: Lookups,
    logits: torch.Tensor,
    masks: torch.Tensor,
    end: torch.Tensor,
    least: float,
    darkness: float,
    keep_last: bool,
) -> Seen:
    """Weights as `composite` gives them, where samples without a slot hold nothing.

    Args:
        lookups: of all turns.
        logits: (M,) density logits.
        masks: (M,) float32.
        end: (N,) median where half of the light never goes.
        least: share of a ray's light from which on a sample shows. Where none of four neighbours does, the foremost
            with a tenth of it shows in their stead.
        darkness: optical depth from which on the last sample of a ray does not matter.
        keep_last: whether it shows otherwise.

    Example:
        >>> seen = weigh(lookups, logits, masks, end, least=2e-3, darkness=6.0, keep_last=True)
    """
    check("logits", logits, (lookups.total,), _LOGITS)
    check("masks", masks, (lookups.total,), torch.float32)
    middles, widths, count = lookups.samples
    check("end", end, tuple(count.shape), torch.float32)
    seen = Seen(
        torch.empty_like(end), end.clone(), torch.empty_like(end), torch.empty_like(masks), torch.empty_like(count)
    )
    if len(count):
        lookup_kernels(logits.dtype).weigh(
            least, darkness, int(keep_last), count, middles, widths, lookups.slots, logits, masks, *seen
        )
    return seen


def choose(lookups: Lookups, seen: Seen, shown: Counted) -> Chosen:
    """The samples that show.

    Args:
        lookups: of all turns.
        seen: in them.
        shown: counts `seen.shown`.

    Example:
        >>> chosen = choose(lookups, seen, Counted(seen.shown))
    """
    count, ends = lookups.samples.count, shown.ends
    slots, rays = ends.new_empty(2, aligned(shown.room(lookups.total))).unbind()
    if len(slots):
        lookup_kernels(torch.float32).choose(count, lookups.slots, seen.weights, ends, shown.each, ALIGNED, slots, rays)
    number = aligned(shown.total)
    return Chosen(slots[:number], rays[:number], ends)


def aligned(number: int) -> int:
    """The next multiple of 8.

    Example:
        >>> aligned(9)
        16
    """
    return -(-number // ALIGNED) * ALIGNED


def color_inputs(chosen: Chosen, per_ray: torch.Tensor, geometry: torch.Tensor) -> torch.Tensor:
    """(B+1+G, C) what enters the colour MLP, as `radiance` puts it together.

    Args:
        chosen: C samples.
        per_ray: (B, N) float16 or float32.
        geometry: (1+G, M) of the same dtype; its first row, the density, makes way for the constant.

    Example:
        >>> colors = color_mlp(color_inputs(chosen, per_ray, geometry))
    """
    check("per_ray", per_ray, (None, len(chosen.ends)), _LOGITS)
    check("geometry", geometry, (None, None), per_ray.dtype)
    inputs = per_ray.new_empty(len(per_ray) + len(geometry), len(chosen.slots))
    if inputs.numel():
        lookup_kernels(per_ray.dtype).gather(chosen.slots, chosen.rays, per_ray, geometry, inputs)
    return inputs


def shade(chosen: Chosen, seen: Seen, color_logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What rays see, and the colour of the last sample of each that shows.

    What does not show has the colour of what does: the sum of colours by weight is scaled to the light that was
    taken.

    Args:
        chosen: C samples.
        seen: of their rays.
        color_logits: (3, C) before the sigmoid.
    Returns:
        (3, N) and (3, N), zero where nothing shows.

    Example:
        >>> color, last_color = shade(chosen, seen, colors)
    """
    check("color_logits", color_logits, (3, len(chosen.slots)), _LOGITS)
    colors, last_colors = seen.depth.new_empty(2, 3, len(chosen.ends)).unbind()
    if len(chosen.ends):
        lookup_kernels(color_logits.dtype).shade(
            chosen.ends, seen.shown, chosen.slots, seen.weights, seen.depth, color_logits, colors, last_colors
        )
    return colors, last_colors
