"""What this process may use of the machine, of which torchrun may have started several processes."""

import os
from pathlib import Path

_CONTAINER = Path("/sys/fs/cgroup")


def processes_here() -> int:
    """Processes of this team on this machine."""
    return max(int(os.environ.get("LOCAL_WORLD_SIZE", "1")), 1)


def usable_cores() -> int:
    """Cores that this process may run on, shared with its team's other processes."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(cores // processes_here(), 1)


def free_memory() -> float:
    """Bytes of RAM that this process can take without swapping, and without what its team's other processes can;
    infinite where the system does not say."""
    return min(_free_on_machine(), _free_in_container()) / processes_here()


def _free_on_machine() -> float:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (OSError, ValueError, AttributeError):
        return float("inf")


def _free_in_container() -> float:
    """What a control group of version 2 leaves, of which files that were read can be given back."""
    try:
        most = float((_CONTAINER / "memory.max").read_text())
        taken = float((_CONTAINER / "memory.current").read_text())
        lines = (line.split() for line in (_CONTAINER / "memory.stat").read_text().splitlines())
        return most - taken + next(float(value) for name, value in lines if name == "inactive_file")
    except (OSError, ValueError, StopIteration):  # no limit is the word "max"
        return float("inf")
