"""How the processes that torchrun started find each other, however often it starts them again.

The store in which they leave word for each other outlives a restart, and with it what processes said that have died.
And each machine counts its restarts for itself. So every attempt gets a name of its own, and what is said in it stands
under that name.
"""

import datetime
import os
import time
import uuid
from functools import cache
from typing import NamedTuple

from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from msth_taichi.errors import RunError

PATIENCE = datetime.timedelta(days=1)
"""How long processes wait for each other: the first one evaluates while the others do nothing, and of segments that are
shared out some have one more. One that dies is noticed by torchrun."""

_LOOK = 0.05  # seconds
_WRITES = "writes"


class Meeting(NamedTuple):
    """Where processes meet: the store of all attempts, that of this one, this process's number and that of all."""

    launch: Store
    attempt: Store
    rank: int
    size: int


@cache
def meeting() -> Meeting | None:
    """By RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT; None in a process that torchrun did not start."""
    if not {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        return None
    store, rank, size = next(rendezvous("env://", timeout=PATIENCE))
    launch = PrefixStore("msth", store)
    return Meeting(launch, PrefixStore(name_attempt(launch, rank, size), launch), rank, size)


def name_attempt(store: Store, rank: int, size: int, patience: datetime.timedelta = PATIENCE) -> str:
    """Agree on a new name with the processes that live: each asks under a name of its own, and the first one answers.

    Raises:
        RunError: some never ask.
    """
    if rank:
        mine = uuid.uuid4().hex
        store.set(f"asks {rank}", mine)
        name = store.get(f"answer to {mine}").decode()
        store.set(f"{name} has {rank}", "")
        return name
    name = uuid.uuid4().hex
    missing, deadline = set(range(1, size)), time.monotonic() + patience.total_seconds()
    while missing:
        for other in missing:
            if store.check([f"asks {other}"]):  # perhaps one that has died; then another one will
                store.set(f"answer to {store.get(f'asks {other}').decode()}", name)
        missing = {other for other in missing if not store.check([f"{name} has {other}"])}
        if missing and time.monotonic() > deadline:
            late = ", ".join(map(str, sorted(missing)))
            raise RunError(f"of {size} processes, {late} did not come; start torchrun on all machines")
        time.sleep(_LOOK)
    return name


def note_writing() -> None:
    """Leave word to later attempts that the run folder is of this launch."""
    if met := meeting():
        met.launch.set(_WRITES, "")


def has_written() -> bool:
    """Whether the run folder is of an earlier attempt of this launch, and not of somebody's earlier training."""
    met = meeting()
    return met is not None and met.launch.check([_WRITES])


def first_says(question: str, answer: str) -> str:
    """What the first process answers; the same question must not be asked twice."""
    met = meeting()
    if met is None:
        return answer
    if met.rank == 0:
        met.attempt.set(question, answer)
    return met.attempt.get(question).decode()
