"""Several processes that train one field: each has a device of its own and a share of the rays.

All draw the same pixels from the same generator and take their own of them; gradients are added up over the processes.
So every process has the same parameters, bit for bit, after every step, and what a training does depends on the number
of processes only by rounding.

Letters: R processes, N rays of a batch.
"""

import datetime
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from msth_taichi.errors import ConfigError

_PATIENCE = datetime.timedelta(hours=2)
"""How long processes wait for each other: the first one evaluates while the others do nothing."""

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
                dist.all_reduce(tensor)
            else:
                small.setdefault(tensor.dtype, []).append(tensor)
        for together in small.values():
            message = together[0] if len(together) == 1 else torch.cat([tensor.flatten() for tensor in together])
            dist.all_reduce(message)
            if len(together) > 1:
                parts = message.split([tensor.numel() for tensor in together])
                for tensor, part in zip(together, parts, strict=True):
                    tensor.copy_(part.view_as(tensor))

    def least(self, value: torch.Tensor) -> torch.Tensor:
        """The least over all processes."""
        if self.size == 1:
            return value
        value = value.clone()
        dist.all_reduce(value, dist.ReduceOp.MIN)
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
        dist.all_reduce(found, dist.ReduceOp.MAX)
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
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or "RANK" not in os.environ:
        return Team()
    if not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        store, rank, size = next(rendezvous("env://", timeout=_PATIENCE))
        # the store outlives a restart, and with it the addresses of those that died
        store = PrefixStore(f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
        dist.init_process_group(backend, timeout=_PATIENCE, store=store, rank=rank, world_size=size)
    return Team(dist.get_rank(), dist.get_world_size())


def leave() -> None:
    """End what `join` began."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
