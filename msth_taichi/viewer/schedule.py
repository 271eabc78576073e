"""Whose picture is rendered next, and how sharp: bookkeeping alone, with the time handed in.

A client has one request, its newest. It is shown as a draft at once, small enough to be rendered in a moment, and
when it has been at rest for a moment with four times as many pixels again and again until it is sharp. Drafts come
first; among equals, who has waited longest.
"""

import math
import threading
from dataclasses import dataclass

from msth_taichi.viewer.requests import Request, scaled_size

DRAFT = 0.15
"""Seconds that the draft of a moving client may take to render."""

REST = 0.15
"""Seconds without a new request after which a picture is sharpened."""

_STEP = 4  # times the pixels, from one picture to the next
_FIRST_SPEED = 2e4  # pixels per second before anything was measured
_LEAST_PIXELS = 48 * 36


@dataclass(frozen=True, eq=False)
class Task:
    """One picture to render.

    Args:
        client: whose it is.
        request: what it shows.
        size: width and height, pixels.
        draft: it is the first of its request.
        sharp: nothing sharper comes after it, for now.
    """

    client: int
    request: Request
    size: tuple[int, int]
    draft: bool
    sharp: bool


@dataclass
class _Slot:
    request: Request
    asked: float
    pixels: int = 0  # of what is shown of the request
    served: float = -math.inf


class Schedule:
    """Requests of all clients; every method may be called from any thread.

    Attributes:
        changed: set when somebody asks.
        stale_after: seconds after which a picture is rendered again though nobody asked; None for never.
        longest: seconds that one picture may take; None for any. Pictures stay smaller then.
        speed: pixels per second, as measured.

    Example:
        >>> schedule = Schedule()
        >>> schedule.ask(0, request, now=0.0)
        >>> schedule.next(now=0.0).draft
        True
    """

    def __init__(self) -> None:
        self.changed = threading.Event()
        self.stale_after: float | None = None
        self.longest: float | None = None
        self.speed = _FIRST_SPEED
        self._slots: dict[int, _Slot] = {}
        self._lock = threading.Lock()

    def ask(self, client: int, request: Request, now: float) -> None:
        """Replace what a client asked for."""
        with self._lock:
            before = self._slots.get(client)
            self._slots[client] = _Slot(request, now, served=before.served if before else -math.inf)
        self.changed.set()

    def forget(self, client: int) -> None:
        """A client has gone."""
        with self._lock:
            self._slots.pop(client, None)

    def next(self, now: float) -> Task | None:
        """What to render; None if everybody sees what they asked for."""
        with self._lock:
            waiting = [(slot.pixels > 0, slot.served, client) for client, slot in self._slots.items()]
            for shown, _, client in sorted(waiting):
                slot = self._slots[client]
                size = self._size(slot, now)
                if size is not None:
                    return Task(client, slot.request, size, draft=not shown, sharp=size == self._sharpest(slot))
        return None

    def wanted(self, task: Task) -> bool:
        """Whether a picture that is being rendered is still of use, and nobody waits for a draft."""
        with self._lock:
            slot = self._slots.get(task.client)
            if slot is None or task.draft:
                return slot is not None
            return slot.request is task.request and all(other.pixels for other in self._slots.values())

    def done(self, task: Task, seconds: float, now: float) -> None:
        """A picture was rendered in so many seconds, and is shown."""
        width, height = task.size
        with self._lock:
            # the mean of logarithms: half as fast counts as much as twice as fast
            self.speed = math.sqrt(self.speed * width * height / max(seconds, 1e-6))
            slot = self._slots.get(task.client)
            if slot is not None:
                slot.served = now
                if slot.request is task.request:
                    slot.pixels = width * height

    def settled(self, client: int, now: float) -> bool:
        """Whether a client rests and sees its picture as sharp as it can be for now."""
        with self._lock:
            slot = self._slots.get(client)
            return slot is not None and slot.pixels > 0 and now - slot.asked >= REST and self._size(slot, now) is None

    def _size(self, slot: _Slot, now: float) -> tuple[int, int] | None:
        """Of the next picture of a request; None if there is none to render."""
        sharpest = self._sharpest(slot)
        if not slot.pixels:
            return scaled_size(sharpest, max(self.speed * DRAFT, _LEAST_PIXELS))
        if now - slot.asked < REST:
            return None
        most = sharpest[0] * sharpest[1]
        # an estimate of speed that wavers is no reason to render again
        if slot.pixels < (most if sharpest == slot.request.size else most / 2):
            # a last step that is a little longer instead of two
            return sharpest if most < 1.5 * _STEP * slot.pixels else scaled_size(sharpest, _STEP * slot.pixels)
        if self.stale_after is not None and now - slot.served >= self.stale_after:
            return sharpest
        return None

    def _sharpest(self, slot: _Slot) -> tuple[int, int]:
        """The largest picture of a request that there may be."""
        full = slot.request.size
        return full if self.longest is None else scaled_size(full, max(self.speed * self.longest, _LEAST_PIXELS))


class Pace:
    """Keeps what is done between training steps to a share of the time.

    Args:
        share: of the time, in (0, 1].

    Example:
        >>> pace = Pace(0.1)
        >>> pace.spent(1.0, now=1.0)
        >>> pace.allows(now=9.0), pace.allows(now=10.0)
        (False, True)
    """

    def __init__(self, share: float):
        self._rest = 1 / share - 1
        self._free = -math.inf

    def allows(self, now: float) -> bool:
        return now >= self._free

    def spent(self, seconds: float, now: float) -> None:
        """So many seconds were spent, until now."""
        self._free = now + seconds * self._rest
