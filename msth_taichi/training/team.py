"""Several processes that train one field: each has a device of its own and a share of the rays.

All draw the same pixels from the same generator and take their own of them; gradients are added up over the processes.
So every process has the same parameters, bit for bit, after every step, and what a training does depends on the number
of processes only by rounding.

Letters: R processes, N rays of a batch.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist

from msth_taichi.errors import ConfigError, DeviceError, RunError
from msth_taichi.training.meeting import PATIENCE, first_says, meeting

_SMALL = 2**16  # entries of a tensor that is copied to travel with others


class Team:
    """This process among those that train together; alone unless `join` found others.

    Args:
        rank: of this process, from 0 on.
        size: R.

    Example:
        >>> Team().share_of(torch.arange(4))
        tensor([0, 1, 2, 3])
    """

    def __init__(self, rank: int = 0, size: int = 1):
        self.rank, self.size = rank, size
        self._apart = False

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes files and talks."""
        return self.rank == 0

    def require_divisible(self, rays_per_step: int) -> None:
        """Raise ConfigError unless rays can be shared evenly: the mean over all of them must be the mean of means."""
        if rays_per_step % self.size:
            raise ConfigError(
                f"training.rays_per_step={rays_per_step}: does not divide by {self.size} processes; use a multiple"
            )

    def share_of(self, values: torch.Tensor, dim: int = 0) -> torch.Tensor:
        """Every R-th of the values along an axis, from this process's rank on; contiguous."""
        if self.size == 1:
            return values
        rows = torch.arange(self.rank, values.shape[dim], self.size, device=values.device)
        return values.index_select(dim, rows)

    def gathered(self, share: torch.Tensor) -> torch.Tensor:
        """(N,) values of all processes, in the order that `share_of` took them from."""
        if self.size == 1:
            return share
        parts = [torch.empty_like(share) for _ in range(self.size)]
        with _others():
            dist.all_gather(parts, share.contiguous())
        return torch.stack(parts, dim=1).flatten()

    def add(self, tensors: Iterable[torch.Tensor]) -> None:
        """Replace tensors by their sums over all processes; integers and floats alike come out the same everywhere.

        Small ones travel together: what a message costs hardly depends on its size.
        """
        if self.size == 1 or self._apart:
            return
        small: dict[torch.dtype, list[torch.Tensor]] = {}
        for tensor in tensors:
            if tensor.numel() > _SMALL:
                _reduce(tensor)
            else:
                small.setdefault(tensor.dtype, []).append(tensor)
        for together in small.values():
            message = together[0] if len(together) == 1 else torch.cat([tensor.flatten() for tensor in together])
            _reduce(message)
            if len(together) > 1:
                parts = message.split([tensor.numel() for tensor in together])
                for tensor, part in zip(together, parts, strict=True):
                    tensor.copy_(part.view_as(tensor))

    def least(self, value: torch.Tensor) -> torch.Tensor:
        """The least over all processes."""
        if self.size == 1:
            return value
        value = value.clone()
        _reduce(value, dist.ReduceOp.MIN)
        return value

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Within the block `add` leaves tensors as they are, for what each process tries by itself."""
        self._apart = True
        try:
            yield
        finally:
            self._apart = False

    def most(self, value: int) -> int:
        """The most over all processes; on the host, so that no GPU is waited for."""
        if self.size == 1:
            return value
        found = torch.tensor(value)
        _reduce(found, dist.ReduceOp.MAX)
        return int(found.item())

    def any(self, flag: bool) -> bool:
        """Whether any process says so; see `most`."""
        return bool(self.most(flag))

    def wait(self) -> None:
        """Return when all processes have come here."""
        self.any(False)


def join(device: torch.device) -> Team:
    """The team of a process that torchrun started, by RANK, WORLD_SIZE and MASTER_ADDR; else a process alone.

    Args:
        device: that this process works on. GPUs talk through NCCL, CPUs through gloo.

    Example:
        >>> join(torch.device("cpu")).size
        1
    """
    met = meeting()
    if met is None or met.size == 1:
        return Team()
    if not dist.is_initialized():
        if first_says("device", device.type) != device.type:
            raise DeviceError(
                f"process {met.rank} runs on {device.type}, unlike the first one: is there a GPU for each of "
                f"{os.environ.get('LOCAL_WORLD_SIZE', met.size)} processes? Lower --nproc-per-node, or use --arch cpu"
            )
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=PATIENCE, store=met.attempt, rank=met.rank, world_size=met.size)
    return Team(met.rank, met.size)


def leave() -> None:
    """End what `join` began."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
    meeting.cache_clear()


def _reduce(tensor: torch.Tensor, how: Any = dist.ReduceOp.SUM) -> None:
    with _others():
        dist.all_reduce(tensor, how)


@contextmanager
def _others() -> Iterator[None]:
    """Whatever goes wrong while processes talk is the fault of one that has ended."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        reason = " ".join(str(error).split())
        raise RunError(f"another process of the team has ended, and says above why ({reason:.200})") from error
