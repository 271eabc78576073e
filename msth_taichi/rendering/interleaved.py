"""Work that waits for the GPU, beside other work that keeps it busy meanwhile."""

from collections.abc import Generator, Iterable
from typing import TypeVar

Result = TypeVar("Result")


def interleaved(works: Iterable[Generator[None, None, Result]]) -> list[Result]:
    """What some generators return, each of which goes on in turn until it yields.

    One yields before it waits for a number that the GPU works out. What the others launch until then keeps the GPU
    busy.

    Example:
        >>> def count(name):
        ...     for k in range(2):
        ...         print(name, k)
        ...         yield
        ...     return name
        >>> interleaved([count("a"), count("b")])
        a 0
        b 0
        a 1
        b 1
        ['a', 'b']
    """
    running = dict(enumerate(works))
    results: dict[int, Result] = {}
    while running:
        for k, work in list(running.items()):
            try:
                next(work)
            except StopIteration as end:
                results[k] = end.value
                del running[k]
    return [results[k] for k in sorted(results)]
