"""The one place that starts Taichi.

A process owns one device: Taichi always takes CUDA device 0 and cannot move once started, so choose another
GPU by CUDA_VISIBLE_DEVICES before the process starts.
"""

import contextlib
import io
import warnings
from typing import Literal

import taichi as ti
import torch

from msth_taichi.errors import DeviceError
from msth_taichi.machine import processes_here, usable_cores

Arch = Literal["auto", "cpu", "cuda"]

_device: torch.device | None = None


def init(arch: Arch = "auto", threads: int = 0, debug: bool = False) -> torch.device:
    """Start Taichi once and return the torch device that its kernels work on.

    Args:
        arch: "cuda", "cpu", or "auto" for CUDA where torch sees a GPU.
        threads: CPU threads of Taichi and torch; 0 for all.
        debug: bounds checks in kernels (slow).
    Raises:
        DeviceError: CUDA asked for without a GPU, or Taichi already runs on the other device.

    Example:
        >>> init("cpu")
        device(type='cpu')
    """
    global _device
    if arch not in ("auto", "cpu", "cuda"):
        raise DeviceError(f"--arch {arch}: unknown device; use auto, cpu or cuda")
    if arch == "cuda" and not torch.cuda.is_available():
        raise DeviceError("--arch cuda: torch sees no CUDA GPU here; use --arch cpu or install torch with CUDA")
    wanted = torch.device("cuda" if arch == "cuda" or (arch == "auto" and torch.cuda.is_available()) else "cpu")
    if _device is not None:
        if arch != "auto" and wanted != _device:
            raise DeviceError(f"Taichi already runs on {_device.type} in this process; start a new process for {arch}")
        return _device
    if threads or (wanted.type == "cpu" and processes_here() > 1):  # torchrun leaves torch a single thread
        torch.set_num_threads(threads or usable_cores())
    if wanted.type == "cuda":
        torch.zeros(1, device=wanted)  # torch creates the primary context that Taichi then joins
        # the thread of backward passes joins it with its first matrix product, and torch would warn of that
        warnings.filterwarnings("ignore", message="Attempting to run cuBLAS, but there was no current CUDA context")
    with contextlib.redirect_stdout(io.StringIO()):  # ti.init prints a line that no option turns off
        ti.init(
            arch=ti.cuda if wanted.type == "cuda" else ti.cpu,
            # exact division and square roots on the CPU, where tests compare with float64; speed on the GPU
            fast_math=wanted.type == "cuda",
            cpu_max_num_threads=threads or usable_cores(),
            debug=debug,
            offline_cache=True,
            log_level=ti.WARN,
        )
    _device = wanted
    return wanted


def device() -> torch.device:
    """The device kernels run on; starts Taichi with `arch="auto"` if nobody has yet."""
    return _device if _device is not None else init()
