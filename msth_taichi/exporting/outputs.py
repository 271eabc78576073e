"""Where exports are written: one file, or a numbered one for each of many times."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from tqdm import tqdm

from msth_taichi.errors import RunError
from msth_taichi.scene.scene import Scene

LONGEST = 100_000
"""Files of one series."""


def require_output(output: Path, suffix: str, overwrite: bool) -> None:
    """Make sure that a file may be written.

    Raises:
        RunError: another suffix than the format's, or there is something already and `overwrite` is off.
    """
    if output.suffix.lower() != suffix:
        raise RunError(f"--output {output}: expected a name that ends in {suffix}; use {output.name}{suffix}")
    if output.exists() and not overwrite:
        raise RunError(f"{output}: already exists; pass --overwrite to replace it or choose another --output")


def spread_times(scene: Scene, count: int) -> list[float]:
    """`count` times from the first to the last that was trained on, evenly spaced.

    Raises:
        RunError: no such number of times.
    """
    if not 1 <= count <= LONGEST:
        raise RunError(f"--times {count}: out of range; use a number from 1 to {LONGEST}")
    seen = scene.images("train").time
    return np.linspace(float(seen.min()), float(seen.max()), count).tolist()


def write_series(
    write: Callable[[Path, float], Path],
    folder: Path,
    times: list[float],
    overwrite: bool = False,
    progress: bool = True,
) -> list[Path]:
    """Write one file for each time: folder/frame_00000.ply, frame_00001.ply, ...

    Files that an earlier series left in the folder are removed once the new ones are complete; other files stay.

    Args:
        write: given a file's name, which ends in .ply, and a time.
        folder: created if it is not there.
        times: in [0, 1].
        overwrite: write into a folder that is not empty.
        progress: show a bar.
    Returns:
        The files.
    Raises:
        RunError: `folder` is a file or, without `overwrite`, not empty.

    Example:
        >>> write_series(lambda file, time: export_points(run, file, time), Path("cloud"), [0.0, 0.5])
        [PosixPath('cloud/frame_00000.ply'), PosixPath('cloud/frame_00001.ply')]
    """
    if folder.is_file():
        raise RunError(f"{folder}: is a file; several times go into a folder, so give the name of one")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise RunError(f"{folder}: not empty; pass --overwrite to replace its frames or choose another --output")
    new, unfinished = not folder.exists(), folder / ".unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)  # of a process that was killed
    try:
        names = [f"frame_{index:05d}.ply" for index in range(len(times))]
        bar = tqdm(zip(names, times, strict=True), total=len(times), desc="export", disable=None if progress else True)
        for name, time in bar:
            write(unfinished / name, time)
        for old in folder.glob("frame_*.ply"):
            old.unlink()
        return [(unfinished / name).replace(folder / name) for name in names]
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
        if new and folder.exists() and not any(folder.iterdir()):
            folder.rmdir()
