"""What a GPU ran while it was profiled, each kernel under the name of what launched it.

Taichi names a kernel `forward_c92_0_kernel_3_range_for`, which tells nothing; so each launch is put into a range with
the name of its module and function, and a kernel belongs to the range, or to torch's operator, in which the host
launched it. Where a trace does not say, the kernel's own name is kept.
"""

import json
import re
import tempfile
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from msth_taichi.kernels.launch import Launcher

PREFIX = "taichi: "
STEP = "benchmark: step"

Event = dict[str, Any]

_ON_DEVICE = {"kernel", "gpu_memcpy", "gpu_memset"}
_LAUNCHES = {"cuda_runtime", "cuda_driver"}
_OWNERS = {"cpu_op", "user_annotation"}


def kernel_name(launcher: Launcher) -> str:
    """`masked_encoding.forward` of the function `forward` in `msth_taichi.kernels.masked_encoding`."""
    function = launcher._kernel._primal.func
    return f"{function.__module__.rpartition('.')[2]}.{function.__name__}"


@contextmanager
def launches_seen(before: Callable[[str], Any]) -> Iterator[None]:
    """Within the block, `before` is called with the name of each Taichi launch; a context that it returns is
    entered around the launch."""
    launch = Launcher.__call__

    def seen(self: Launcher, *values: Any) -> None:
        context = before(kernel_name(self))
        if context is None:
            launch(self, *values)
        else:
            with context:
                launch(self, *values)

    with patch.object(Launcher, "__call__", seen):
        yield


def profiled(step: Callable[[], Any], steps: int, device: torch.device) -> dict[str, Any]:
    """What `steps` calls of `step` spend on the device, per call.

    Returns:
        rows: name, ms and count of each kernel (on a CPU: operator), the longest first; busy_ms: in which the GPU
        did anything at all; synchronizations: calls in which the host waited for it. The latter two None on a CPU.
    """
    gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if gpu else [])
    with profile(activities=activities) as record, launches_seen(lambda name: record_function(PREFIX + name)):
        for _ in range(steps):
            with record_function(STEP):
                step()
        if gpu:
            torch.cuda.synchronize()
    if not gpu:
        return {"rows": _operators(record, steps), "busy_ms": None, "synchronizations": None}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        record.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    return summary(events, steps)


def summary(events: list[Event], steps: int) -> dict[str, Any]:
    """See `profiled`, from the events of a Chrome trace."""
    events = [event for event in events if event.get("ph") == "X"]
    on_device = [event for event in events if event.get("cat") in _ON_DEVICE]
    owners = _Owners(events)
    spent: dict[str, list[float]] = defaultdict(list)
    for event in on_device:
        spent[owners.name(event)].append(event["dur"] / 1e3)
    rows = [{"name": name, "ms": sum(ms) / steps, "count": len(ms) / steps} for name, ms in spent.items()]
    return {
        "rows": sorted(rows, key=lambda row: -row["ms"]),
        "busy_ms": _covered(on_device) / 1e3 / steps,
        "synchronizations": _synchronizations(events) / steps,
    }


class _Owners:
    """Finds what launched a kernel: the innermost range or operator around the call with its correlation number."""

    def __init__(self, events: list[Event]):
        self._calls = {
            event["args"]["correlation"]: event
            for event in events
            if event.get("cat") in _LAUNCHES and "correlation" in event.get("args", {})
        }
        owners = [event for event in events if event.get("cat") in _OWNERS and event["name"] != STEP]
        self._all = sorted(owners, key=lambda event: event["ts"])
        self._by_thread: dict[Any, list[Event]] = defaultdict(list)
        for event in self._all:
            self._by_thread[event.get("tid")].append(event)

    def name(self, event: Event) -> str:
        call = self._calls.get(event.get("args", {}).get("correlation"))
        owner = call and self._around(call)
        if not owner:
            return shortened(event["name"])
        name = owner["name"]
        if not name.startswith(PREFIX):
            return shortened(name)
        part = re.search(r"_kernel_(\d+)", event["name"])
        return name.removeprefix(PREFIX) + (f" [{part[1]}]" if part else "")

    def _around(self, call: Event) -> Event | None:
        # where threads are numbered in two ways, time alone has to do: only one of them launches at a time
        candidates = self._by_thread.get(call.get("tid")) or self._all
        # ranges of a thread are nested, so the latest one that has not ended is the innermost
        for i in range(bisect_right(candidates, call["ts"], key=lambda event: event["ts"]) - 1, -1, -1):
            if candidates[i]["ts"] + candidates[i]["dur"] >= call["ts"]:
                return candidates[i]
        return None


def shortened(name: str) -> str:
    """A kernel's name without its template arguments and parameters."""
    plain = re.sub(r"^void ", "", name)
    while (reduced := re.sub(r"<[^<>]*>|\([^()]*\)", "", plain)) != plain:
        plain = reduced
    return plain.strip()[:70] or name[:70]


def _covered(events: list[Event]) -> float:
    """Microseconds in which at least one event runs."""
    total, end = 0.0, float("-inf")
    for event in sorted(events, key=lambda event: event["ts"]):
        stop = event["ts"] + event["dur"]
        total += max(0.0, stop - max(event["ts"], end))
        end = max(end, stop)
    return total


def _synchronizations(events: list[Event]) -> int:
    """Calls within steps that wait for the device."""
    steps = [(event["ts"], event["ts"] + event["dur"]) for event in events if event["name"] == STEP]
    waits = [event["ts"] for event in events if event.get("cat") in _LAUNCHES and "Synchronize" in event["name"]]
    return sum(any(start <= ts <= end for start, end in steps) for ts in waits)


def _operators(record: Any, steps: int) -> list[dict[str, Any]]:
    """Operators and Taichi launches of a CPU, without the time of those within them."""
    rows = [
        {
            "name": shortened(event.key.removeprefix(PREFIX)),
            "ms": event.self_cpu_time_total / 1e3 / steps,
            "count": event.count / steps,
        }
        for event in record.key_averages()
        if event.key != STEP
    ]
    return sorted(rows, key=lambda row: -row["ms"])
