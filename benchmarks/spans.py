"""Time by phase of a program that knows nothing of it: its functions are wrapped while it is looked at."""

import functools
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch

Target = tuple[Any, str, str]
"""An object, the name of one of its functions, and the phase that the function's time counts as."""


@dataclass
class _Span:
    phase: str
    parent: int | None
    marks: list[Any]


class Spans:
    """Records how long phases take, by device events on a GPU and by the clock on a CPU.

    Args:
        device: that the work runs on.

    Example:
        >>> spans = Spans(device)
        >>> with spans.watching([(trainer.optimizer, "step", "optimiser")]), spans.span("rest"):
        ...     terms = trainer.step()
        >>> spans.take()
        {'rest': 4.1, 'optimiser': 0.6}
    """

    def __init__(self, device: torch.device):
        self._gpu = device.type == "cuda"
        self._spans: list[_Span] = []
        self._open: list[int] = []

    @contextmanager
    def span(self, phase: str) -> Iterator[None]:
        """What the block takes counts as `phase`, but for spans within it."""
        record = _Span(phase, self._open[-1] if self._open else None, [self._mark()])
        self._open.append(len(self._spans))
        self._spans.append(record)
        try:
            yield
        finally:
            self._open.pop()
            record.marks.append(self._mark())

    @contextmanager
    def watching(self, targets: Sequence[Target]) -> Iterator[None]:
        """Every call of a target within the block is a span."""
        with ExitStack() as stack:
            for owner, name, phase in targets:
                stack.enter_context(patch.object(owner, name, self._wrapped(getattr(owner, name), phase)))
            yield

    def take(self) -> dict[str, float]:
        """Milliseconds of each phase since the last time, without the phases within it, in order of appearance."""
        if self._gpu:
            torch.cuda.synchronize()
        totals: dict[str, float] = defaultdict(float)
        for span in self._spans:
            spent = self._between(*span.marks)
            totals[span.phase] += spent
            if span.parent is not None:
                totals[self._spans[span.parent].phase] -= spent
        self._spans = []
        return dict(totals)

    def _wrapped(self, function: Callable[..., Any], phase: str) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with self.span(phase):
                return function(*args, **kwargs)

        return wrapper

    def _mark(self) -> Any:
        if not self._gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _between(self, start: Any, end: Any) -> float:
        return start.elapsed_time(end) if self._gpu else 1e3 * (end - start)
