"""What a training notes: numbers in metrics.jsonl; in training.json what it ran on and where its time went."""

import json
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import msth_taichi
from msth_taichi.files import write_json


class Record:
    """Device, versions, and the seconds spent in parts of a training, all its sessions together.

    The clock starts here. Each `lap` counts the time since the one before towards a part, so that nothing is counted
    twice and a step costs nothing.

    Args:
        preset: that the settings started from, if any.

    Example:
        >>> record = Record("demo")
        >>> record.lap("start")
    """

    def __init__(self, preset: str | None = None):
        self.preset = preset
        self.seconds = {"start": 0.0, "training": 0.0, "evaluation": 0.0}
        self.damaged: dict[str, int] = {}
        """Frames of each split that could not be decoded and were left out."""
        self._peak: int | None = None
        self._since = time.perf_counter()

    def lap(self, part: str) -> None:
        """Count the time since the last lap towards "start", "training" or "evaluation"."""
        now = time.perf_counter()
        self.seconds[part] += now - self._since
        self._since = now
        if part == "training" and torch.cuda.is_initialized():
            self._peak = torch.cuda.max_memory_allocated()

    def resume(self, run: Path) -> None:
        """Go on counting where the sessions before stopped."""
        before = read_record(run)
        self.preset = before.get("preset")
        for part, seconds in before.get("seconds", {}).items():
            self.seconds[part] = self.seconds.get(part, 0.0) + seconds

    def write(self, run: Path, device: torch.device) -> None:
        """Replace training.json of a run folder; the peak of GPU memory is since the training was last started."""
        values: dict[str, Any] = {
            "preset": self.preset,
            "device": device_name(device),
            "cores": os.cpu_count(),
            "versions": {**versions(), "python": platform.python_version(), "cuda": torch.version.cuda},
            "seconds": {part: round(seconds, 2) for part, seconds in self.seconds.items()},
            "peak_gpu_bytes": self._peak,
            "damaged_frames": self.damaged,
        }
        write_json(run / _FILE, values)


_FILE = "training.json"


def read_record(run: Path) -> dict[str, Any]:
    """What `Record.write` wrote; empty of a run without it, or with a damaged one: nothing else depends on it."""
    try:
        found = json.loads((run / _FILE).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl of a run folder; without one that was being written when the run was killed."""
    file = run / "metrics.jsonl"
    rows = []
    for line in file.read_text().splitlines() if file.is_file() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def device_name(device: torch.device) -> str:
    """The GPU's name, or the kind of CPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU {platform.machine()}"


def versions() -> dict[str, str]:
    """Of the packages that decide about numbers."""
    return {"msth_taichi": msth_taichi.__version__, "torch": torch.__version__, "taichi": version("taichi")}
