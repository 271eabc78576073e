"""What the benchmarks share: how an operation is timed, and files that say where their numbers come from.

A benchmark gives `main` its name, a function that measures and one that turns the result into a page.
"""

import argparse
import datetime
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

# as the program does, before torch is imported; see msth_taichi.cli.main
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import taichi
import torch

from msth_taichi.errors import MsthError
from msth_taichi.files import write_json, write_text
from msth_taichi.kernels import runtime

REPEATS = 7
CPU_SECONDS = 0.5  # no further repeat of one operation after this

CACHE_BYTES = 2**28  # more than any GPU's L2 cache holds
# of a spinning GPU; where the clock is lower the host has more time, which does no harm
_CYCLES_PER_SECOND = 2e9
_LONGEST_LEAD = 5e-3  # s; a call that takes its host longer is bound by the host, and is reported so

Row = dict[str, Any]
Result = dict[str, Any]


class Timing(NamedTuple):
    """Milliseconds of one call: until its work is done, and until the host is free again (None on a CPU)."""

    ms: float
    host_ms: float | None


def measure(
    function: Callable[[], Any],
    device: torch.device,
    before: Callable[[], Any] | None = None,
    repeats: int = REPEATS,
) -> Timing:
    """Median time of `function`, after calls that warm it up.

    On a GPU by device events, from a cold L2 cache; the GPU is kept busy while the host issues the call, so that
    gaps between launches do not count. On a CPU by the clock.

    Args:
        function: without arguments.
        device: that it works on.
        before: called before each repeat, not timed.
        repeats: at most; a CPU stops after half a second.

    Example:
        >>> measure(lambda: a @ b, torch.device("cuda")).ms
        0.21
    """
    prepare = before or (lambda: None)
    timer = _time_on_gpu if device.type == "cuda" else _time_on_cpu
    return timer(function, prepare, repeats)


def _time_on_cpu(function: Callable[[], Any], prepare: Callable[[], Any], repeats: int) -> Timing:
    prepare()
    function()
    spent: list[float] = []
    while len(spent) < repeats and sum(spent) < CPU_SECONDS:
        prepare()
        start = time.perf_counter()
        function()
        spent.append(time.perf_counter() - start)
    return Timing(1e3 * statistics.median(spent), None)


def _time_on_gpu(function: Callable[[], Any], prepare: Callable[[], Any], repeats: int) -> Timing:
    def issue() -> float:
        start = time.perf_counter()
        function()
        return time.perf_counter() - start

    prepare()
    function()  # compiles
    prepare()
    torch.cuda.synchronize()
    lead = min(2 * issue() + 1e-4, _LONGEST_LEAD)
    cache = torch.empty(CACHE_BYTES, dtype=torch.uint8, device="cuda")
    spent, issued = [], []
    for _ in range(repeats):
        prepare()
        cache.zero_()
        hold_gpu(lead)
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        issued.append(issue())
        end.record()
        torch.cuda.synchronize()
        spent.append(start.elapsed_time(end))
    return Timing(statistics.median(spent), 1e3 * statistics.median(issued))


def copy_rate(device: torch.device, scale: float = 1.0) -> float:
    """Bytes per second, read and written, of a copy too large for any cache."""
    source = torch.ones(int(scale * (2**28 if device.type == "cuda" else 2**25)), device=device)
    target = torch.empty_like(source)
    return 2e3 * source.nbytes / measure(lambda: target.copy_(source), device).ms


def bytes_of(*tensors: torch.Tensor) -> int:
    """Bytes that their elements take."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


class Bench:
    """Times operations one after another.

    Args:
        device: that they work on.
        repeats: of each.
        scale: see `copy_rate`.
    """

    def __init__(self, device: torch.device, repeats: int, scale: float = 1.0):
        self.device, self.repeats = device, repeats
        self.copy_bytes = copy_rate(device, scale)

    def row(
        self,
        operation: str,
        function: Callable[[], Any],
        size: int | None = None,
        compared: Row | None = None,
        before: Callable[[], Any] | None = None,
    ) -> Row:
        """Time a function.

        Args:
            operation: its name.
            function: without arguments.
            size: bytes that it must read or write, see `bytes_of`; moving them once takes the row's floor.
            compared: the row that it is another way to compute.
            before: see `measure`.
        """
        timing = measure(function, self.device, before, self.repeats)
        return {
            "operation": operation,
            "ms": timing.ms,
            "host_ms": timing.host_ms,
            "floor_bytes_ms": size and 1e3 * size / self.copy_bytes,
            "compared": compared and compared["operation"],
            "ratio": compared and timing.ms / compared["ms"],
        }


def hold_gpu(seconds: float) -> None:
    """Keep the GPU busy, so that what the host issues meanwhile runs without gaps."""
    torch.cuda._sleep(int(seconds * _CYCLES_PER_SECOND))


def wait(device: torch.device) -> None:
    """Return when the device has done all that was issued."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def stamp(device: torch.device, commit: str) -> Row:
    """Where and when numbers were measured, and of which code."""
    return {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else _cpu_name(),
        "threads": torch.get_num_threads(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "taichi": ".".join(map(str, taichi.__version__)),
        },
        "date": datetime.date.today().isoformat(),
        "commit": commit,
    }


def origin(values: Row) -> str:
    """`stamp` as a line of Markdown."""
    versions = [f"{name} {version}" for name, version in values["versions"].items()]
    facts = [values["device"], f"{values['threads']} CPU threads", *versions, values["date"]]
    return f"{', '.join(facts)}, commit {values['commit']}."


def head(script: str, result: Result) -> list[str]:
    """First lines of a page, below its title."""
    command = f"Written by `python benchmarks/{script}`; see [README](../README.md)."
    return [f"{command} {origin(result['stamp'])}", ""]


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """Lines of a table; floats in three digits, None as nothing."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return lines + ["| " + " | ".join(map(_cell, row)) + " |" for row in rows]


def operations_page(title: str, script: str, about: str, result: Result) -> str:
    """Rows of a `Bench` as Markdown."""
    preset = " ".join([result["preset"], *result["settings"]])
    cells = [
        [
            row["operation"],
            row["ms"],
            row["host_ms"],
            row["floor_bytes_ms"],
            row["compared"] and f"{row['ratio']:.2f} times {row['compared']}",
        ]
        for row in result["rows"]
    ]
    columns = ["operation", "ms", "host ms", "floor ms", "takes"]
    lines = [
        f"# {title}",
        "",
        *head(script, result),
        f"Preset {preset}: {about}. The floor is the time in which the device copies what must be read and written, "
        f"at {result['copy_bytes_per_second'] / 1e9:.0f} GB/s.",
        "",
        *markdown_table(columns, cells),
    ]
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3g}" if value < 1000 else f"{value:.0f}"
    return str(value)


def main(
    name: str,
    measured: Callable[[torch.device, argparse.Namespace], Result],
    page: Callable[[Result], str],
    parser: argparse.ArgumentParser,
    cpu_sizes: bool = False,
) -> None:
    """Measure, print, and write `name`.md and .json with a stamp; exit with status 2 on an error of the user's.

    `cpu_sizes` says that the benchmark has something to measure on a CPU beside its small sizes.
    """
    options = parser.parse_args()
    try:
        device = runtime.init(options.arch)
        if device.type == "cpu" and not options.small and not cpu_sizes:
            raise MsthError("full sizes need a GPU: add --small")
        result = {"stamp": stamp(device, options.commit), **measured(device, options)}
        text = page(result)
        print(text)
        suffix = "_small" if options.small else "_cpu" if device.type == "cpu" else ""
        save(options.results, name + suffix, result, text)
    except MsthError as error:
        print("error:", error, file=sys.stderr)
        sys.exit(2)


def save(folder: Path, name: str, result: Result, text: str) -> None:
    """Replace both files of a result, each in one step."""
    write_json(folder / f"{name}.json", result)
    write_text(folder / f"{name}.md", text)


def _cpu_name() -> str:
    """What /proc/cpuinfo says, or the architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else f"CPU {platform.machine()}"
