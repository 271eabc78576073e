"""Frames that wait beside the place of their video or folder until all are there.

OUTPUT.work/job.json           which job they are of, and the limits of depth's colours
            rgb/frame_00000.png, ...
            lock               held by the process that begins or ends the job
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from filelock import FileLock

from msth_taichi.files import replacing, write_json
from msth_taichi.rendering.pictures import DepthRange


class WorkFolder:
    """The frames of one job. Processes on several machines may share it.

    Args:
        path: of the folder; nothing is created yet.
    """

    def __init__(self, path: Path):
        self.path = path

    def lock(self) -> FileLock:
        """Held while a job begins or ends; a killed process lets go of it."""
        self.path.mkdir(parents=True, exist_ok=True)
        return FileLock(self.path / "lock")

    def job(self) -> str | None:
        """The job that was begun here."""
        return self._state().get("job")

    def limits(self) -> DepthRange | None:
        """Limits of depth's colours, the same for all frames whoever renders them."""
        found = self._state().get("limits")
        return None if found is None else (found[0], found[1])

    def begin(self, job: str, limits: DepthRange | None) -> None:
        """Note which job it is; frames of another are removed."""
        for entry in self.path.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
        write_json(self._file, {"job": job, "limits": limits})

    def folder(self, name: str) -> Path:
        """Where the frames of an output are."""
        return self.path / name

    def remove(self) -> None:
        """End the job: its note goes first, so that a folder that is half gone is not taken for one to go on with."""
        self._file.unlink(missing_ok=True)
        shutil.rmtree(self.path, ignore_errors=True)

    @property
    def _file(self) -> Path:
        return self.path / "job.json"

    def _state(self) -> dict[str, Any]:
        try:
            return json.loads(self._file.read_text())
        except (OSError, ValueError):
            return {}


def frame_name(index: int, suffix: str) -> str:
    """Example: frame_name(3, ".png") is "frame_00003.png"."""
    return f"frame_{index:05d}{suffix}"


def move_frames(source: Path, target: Path, suffix: str) -> None:
    """Give a finished folder of frames its name. A folder that is there already, which may be a link or of another
    disk, gets the frames instead and keeps its other files."""
    for unfinished in source.glob(".*"):  # of a process that was killed while it wrote
        unfinished.unlink()
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        source.replace(target)
        return
    new = sorted(source.iterdir())
    for old in set(target.glob(f"frame_*{suffix}")) - {target / file.name for file in new}:
        old.unlink()
    for file in new:  # which stay where they are until all are there
        with replacing(target / file.name) as temporary:
            try:
                os.link(file, temporary)
            except OSError:
                shutil.copyfile(file, temporary)
