"""Files read through memory, and what happens when one is no longer there.

Reading a mapped file whose disk has gone, or that was cut short, is no error that a call returns: the system sends
SIGBUS, and by default that is the end of the process. Here a thread hears of the signal while the reader is held up,
and puts empty memory in place of the file; the reader gets on, and `require` tells what it has read is nothing.

Letters: P pixels, Ch channels.
"""

import ctypes
import mmap
import os
import signal
import socket
import sys
import threading
import time
import weakref
from pathlib import Path

import numpy as np
import torch

from msth_taichi.errors import DataError

# a file that takes no more than this share of free memory may be mapped as a whole; of a larger one so many bytes are
_MAPPED_SHARE = 0.25
_MAPPED_BYTES = 2e9
_ON_THE_WAY = 2.0  # seconds in which other readers have had the signals that were sent to them before
_MAP_FIXED = 0x10  # which Python's mmap does not name; of Linux

_files: "weakref.WeakSet[MappedFile]" = weakref.WeakSet()
_watching = False


class MappedFile:
    """A file in memory, of which the system reads what is looked at.

    Args:
        path: not empty; it must not change.
        free_memory: bytes; more is given back early of a file that takes much of them.
    """

    def __init__(self, path: Path, free_memory: float):
        self.path = path
        with path.open("rb") as file:
            self._mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        if hasattr(mmap, "MADV_RANDOM"):
            self._mapping.madvise(mmap.MADV_RANDOM)
        self.bytes = torch.from_numpy(np.frombuffer(self._mapping, np.uint8))
        """(size,) uint8."""
        self.large = len(self._mapping) > _MAPPED_SHARE * free_memory
        self._lost = False
        _files.add(self)
        _watch()

    def release(self) -> None:
        """Give back memory that reading has taken, where it is much."""
        # the pages stay in the system's cache of files, where they count for nobody
        if self.large and hasattr(mmap, "MADV_DONTNEED") and _shared_memory() > _MAPPED_BYTES:
            self._mapping.madvise(mmap.MADV_DONTNEED)

    def require(self) -> None:
        """Raise DataError if the file could not be read since it was opened."""
        if self._lost:
            raise DataError(f"{self.path}: can no longer be read; bring its disk back, or choose another data.cache")

    def give_up(self) -> None:
        """Zeros in place of the file."""
        self._lost = True
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
        rights, kind = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_FIXED
        libc.mmap(self.bytes.data_ptr(), len(self._mapping), rights, kind, -1, 0)


def _watch() -> None:
    """Listen for SIGBUS from now on, where this can be done: on Linux, from the main thread."""
    global _watching
    if _watching or sys.platform != "linux" or threading.current_thread() is not threading.main_thread():
        return
    hears, tells = socket.socketpair()
    tells.setblocking(False)
    # Python's own handler would only run after the reader, which reads the same again for ever; but at once it writes
    # the signal's number here
    before = signal.set_wakeup_fd(tells.fileno(), warn_on_full_buffer=False)
    if before != -1:  # somebody else listens
        signal.set_wakeup_fd(before)
        return
    signal.signal(signal.SIGBUS, lambda number, frame: None)
    threading.Thread(target=_mend, args=(hears, tells), name="mapped files", daemon=True).start()
    _watching = True


def _mend(hears: socket.socket, _tells: socket.socket) -> None:
    while signal.SIGBUS not in hears.recv(4096):
        pass
    for file in list(_files):
        file.give_up()
    time.sleep(_ON_THE_WAY)
    # whatever comes now has another reason, and ends the process as it always does
    ctypes.CDLL(None).signal(int(signal.SIGBUS), None)


def _shared_memory() -> float:
    """Bytes of files that this process has mapped; 0 where the system does not say."""
    try:
        return float(Path("/proc/self/statm").read_text().split()[2]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return 0.0
