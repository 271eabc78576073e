"""What a device does at best: the rates that floors are computed from.

The kernels here are the benchmark's own, and do nothing but the operation that they count.
"""

# pyright: reportGeneralTypeIssues=false, reportInvalidTypeForm=false
# Taichi's annotations are values

from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace

import taichi as ti
import torch
from common import copy_rate, measure

from msth_taichi.kernels.cells import GRAIN, Sums
from msth_taichi.kernels.launch import launchers

LOOKUPS_PER_THREAD = 16


@dataclass(frozen=True)
class Work:
    """What an operation cannot do without.

    Args:
        bytes: read or written in memory, each once.
        lookups: table entries read, each at a slot of its own.
        additions: to table entries, each at a slot of its own.
    """

    bytes: float = 0.0
    lookups: float = 0.0
    additions: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        return Work(self.bytes + other.bytes, self.lookups + other.lookups, self.additions + other.additions)


@dataclass(frozen=True)
class Rates:
    """What is done per second.

    Args:
        entries: of the table that is read or added to at random slots.
        copy_bytes: read and written by a large copy.
        read_bytes: by a large sum.
        lookups: of 8 bytes.
        int64_atomics: additions.
        float32_atomics: additions.
        serial_additions: of pairs of float32, without atomics, by CPU threads with a table each; None on a GPU.
    """

    entries: int
    copy_bytes: float
    read_bytes: float
    lookups: float
    int64_atomics: float
    float32_atomics: float
    serial_additions: float | None

    def floors(self, work: Work, sums: Sums = "fixed") -> dict[str, float]:
        """Milliseconds that each part of the work takes at these rates.

        The bytes are a bound. Slots of a small level, or near each other, can be faster than the random ones here.
        """
        additions = {
            "fixed": self.int64_atomics,
            "atomic": self.float32_atomics,
            "serial": self.serial_additions or self.float32_atomics,
        }
        # of reads and writes in any proportion: the better of the two is the safe bound
        bandwidth = max(self.copy_bytes, self.read_bytes)
        return {
            "floor_bytes_ms": 1e3 * work.bytes / bandwidth,
            "floor_lookups_ms": 1e3 * work.lookups / self.lookups,
            "floor_additions_ms": 1e3 * work.additions / additions[sums],
        }

    def lines(self) -> list[str]:
        """For the head of a page."""
        serial = self.serial_additions
        return [
            f"- copy {self.copy_bytes / 1e9:.0f} GB/s (read and written), sum {self.read_bytes / 1e9:.0f} GB/s",
            f"- at random slots of a table of {self.entries:,} entries, in 10^9 per second: "
            f"lookups {self.lookups / 1e9:.2f}, int64 atomics {self.int64_atomics / 1e9:.2f}, "
            f"float32 atomics {self.float32_atomics / 1e9:.2f}"
            + ("" if serial is None else f", plain additions of pairs {serial / 1e9:.2f}"),
        ]


def measure_rates(device: torch.device, entries: int = 2**19, scale: float = 1.0) -> Rates:
    """Rates of this device.

    Args:
        device: that kernels run on.
        entries: of the table, a power of two.
        scale: shrinks what is copied and counted, for tests.
    """
    gpu = device.type == "cuda"
    count = int(scale * (2**26 if gpu else 2**21)) // LOOKUPS_PER_THREAD * LOOKUPS_PER_THREAD
    threads = torch.get_num_threads()
    source = torch.ones(int(scale * (2**28 if gpu else 2**25)), device=device)
    words = torch.zeros(entries, dtype=torch.int64, device=device)
    floats = torch.zeros(entries, device=device)
    found = torch.zeros(count // LOOKUPS_PER_THREAD, dtype=torch.int64, device=device)
    kernels = _rate_kernels()

    def seconds(function) -> float:
        return measure(function, device).ms / 1e3

    serial = None
    if not gpu:
        tables = torch.zeros(threads, entries, 2)
        serial = threads * (count // threads) / seconds(lambda: kernels.add_serially(tables, count // threads))
    return Rates(
        entries=entries,
        copy_bytes=copy_rate(device, scale),
        read_bytes=source.nbytes / seconds(source.sum),
        lookups=count / seconds(lambda: kernels.look_up(words, found)),
        int64_atomics=count / seconds(lambda: kernels.add_words(words, count)),
        float32_atomics=count / seconds(lambda: kernels.add_floats(floats, count)),
        serial_additions=serial,
    )


@cache
def _rate_kernels() -> SimpleNamespace:
    words = ti.types.ndarray(dtype=ti.i64, ndim=1)
    floats = ti.types.ndarray(dtype=ti.f32, ndim=1)
    tables = ti.types.ndarray(dtype=ti.f32, ndim=3)

    @ti.func
    def slot(i, entries):
        """An integer hash (Wellons' lowbias32): neighbouring threads meet at slots far apart."""
        x = i
        x = (x ^ ti.bit_shr(x, 16)) * 0x7FEB352D
        x = (x ^ ti.bit_shr(x, 15)) * -2073254261  # 0x846CA68B as a signed integer
        return (x ^ ti.bit_shr(x, 16)) & (entries - 1)

    @ti.kernel
    def look_up(table: words, found: words):
        for thread in range(found.shape[0]):
            total = ti.cast(0, ti.i64)
            for k in ti.static(range(LOOKUPS_PER_THREAD)):
                total += table[slot(thread * LOOKUPS_PER_THREAD + k, table.shape[0])]
            found[thread] = total

    @ti.kernel
    def add_words(table: words, count: ti.i32):
        for i in range(count):
            ti.atomic_add(table[slot(i, table.shape[0])], ti.cast(1, ti.i64))

    @ti.kernel
    def add_floats(table: floats, count: ti.i32):
        for i in range(count):
            ti.atomic_add(table[slot(i, table.shape[0])], 1.0)

    @ti.kernel
    def add_serially(table: tables, count: ti.i32):
        for item in range(table.shape[0] * GRAIN):  # a thread owns its table
            if item % GRAIN == 0:
                row = item // GRAIN
                for i in range(count):
                    k = slot(i + row, table.shape[1])
                    table[row, k, 0] = table[row, k, 0] + 1.0
                    table[row, k, 1] = table[row, k, 1] + 1.0

    return launchers(look_up=look_up, add_words=add_words, add_floats=add_floats, add_serially=add_serially)
