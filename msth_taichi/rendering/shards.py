"""Which share of the frames this process renders. Importing it is cheap: the GPU is chosen before torch is imported."""

import os
from collections.abc import MutableMapping
from dataclasses import dataclass

from msth_taichi.errors import RunError


@dataclass(frozen=True)
class Shard:
    """Every `count`-th frame, beginning with `index`."""

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise RunError(f"--shard {self.index}/{self.count}: out of range; use 0/N to N-1/N, such as 0/4")

    def frames(self, total: int) -> range:
        """The frames, of `total`, that are its own."""
        return range(self.index, total, self.count)


def parse_shard(text: str) -> Shard:
    """The shard that "I/N" stands for, 0 <= I < N.

    Raises:
        RunError: not of this form, or out of range.

    Example:
        >>> parse_shard("1/4")
        Shard(index=1, count=4)
    """
    index, slash, count = text.partition("/")
    if not (slash and index.strip().isdecimal() and count.strip().isdecimal()):
        raise RunError(f"--shard {text}: expected I/N, such as 0/4 for the first of four processes")
    return Shard(int(index), int(count))


def torchrun_shard(environment: MutableMapping[str, str] = os.environ) -> Shard:
    """The shard of a process that torchrun started, by RANK and WORLD_SIZE; all frames in any other process.

    Where several processes share a machine, each is given its own of the visible GPUs by CUDA_VISIBLE_DEVICES, which
    must happen before torch and Taichi are imported.
    """
    if "RANK" not in environment or "WORLD_SIZE" not in environment:
        return Shard()
    if int(environment.get("LOCAL_WORLD_SIZE", "1")) > 1:
        local = int(environment["LOCAL_RANK"])
        given = environment.get("CUDA_VISIBLE_DEVICES")
        visible = [name for name in (given or "").split(",") if name.strip()]
        if visible or given is None:  # and not forbidden
            environment["CUDA_VISIBLE_DEVICES"] = visible[local % len(visible)] if visible else str(local)
    return Shard(int(environment["RANK"]), int(environment["WORLD_SIZE"]))
