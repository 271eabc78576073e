"""Writing files so that a reader never sees half of one."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from msth_taichi.errors import RunError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` that becomes `path` if the block succeeds, and vanishes if it does not.

    It keeps the suffix, by which codecs are chosen, and lies in the same folder, so that the last step is a rename.

    Raises:
        RunError: the path is a folder, or the system refuses a write.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        if path.is_dir():
            raise RunError(f"{path}: is a folder; give the name of a file")
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        if temporary.exists():
            temporary.unlink()


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder that becomes `path` if the block succeeds, with all it holds flushed to disk."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        yield temporary
        for file in (*temporary.iterdir(), temporary):
            _flush(file)
        if path.exists():
            remove_folder(path)
        temporary.replace(path)
        _flush(path.parent)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_folder(path: Path) -> None:
    """Remove a folder so that half of it never has its name; what a killed process leaves begins with a dot."""
    doomed = path.with_name(f".{path.name}.{os.getpid()}.old")
    path.replace(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def empty(path: Path) -> None:
    """Remove what is in a folder, if there is one; the folder itself may be a link, or a disk's own."""
    for entry in path.iterdir() if path.is_dir() else ():
        if entry.is_dir() and not entry.is_symlink():
            remove_folder(entry)
        else:
            entry.unlink()


def write_text(path: Path, text: str) -> None:
    """Replace a text file in one step."""
    with replacing(path) as temporary:
        temporary.write_text(text)


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Replace a json file in one step."""
    write_text(path, json.dumps(values, indent=1) + "\n")


def media_name(path: Path) -> str:
    """A path as ffmpeg opens it: of a relative one it takes what is before a colon for a protocol."""
    return str(path.absolute())


def unwritable(path: Path, error: Exception) -> RunError:
    """What to say when the system refuses a write."""
    reason = getattr(error, "strerror", None) or error
    return RunError(f"{path}: cannot be written ({reason}); free the disk or choose another path")


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
