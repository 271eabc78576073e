"""What `msth export` does with an open run."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from msth_taichi.errors import RunError
from msth_taichi.exporting.cameras import export_cameras
from msth_taichi.exporting.compact import export_compact
from msth_taichi.exporting.mesh import RESOLUTION, export_mesh
from msth_taichi.exporting.outputs import spread_times, write_series
from msth_taichi.exporting.points import POINTS, export_points
from msth_taichi.exporting.surfaces import Box, corners
from msth_taichi.training.run import Run

TARGETS = ("points", "mesh", "cameras", "compact")


def export(
    run: Run,
    target: str,
    output: Path,
    *,
    time: float = 0.0,
    times: int | None = None,
    mode: str = "full",
    box: str | None = None,
    points: int = POINTS,
    resolution: int = RESOLUTION,
    bits: int = 8,
    data: Path | None = None,
    overwrite: bool = False,
) -> list[str]:
    """Write a run as `target` and say what was written.

    Args:
        run: a trained run.
        target: a name from `TARGETS`.
        output: file, or folder of the points or meshes of several `times`.
        time: of points and mesh.
        times: how many, evenly spaced over the scene; None for the one.
        mode: see `Run.render`.
        box: "x0,y0,z0,x1,y1,z1", see `export_points`.
        points: see `export_points`.
        resolution: see `export_mesh`.
        bits: see `export_compact`.
        data: see `export_compact`.
        overwrite: replace what exists.
    Returns:
        Lines for a terminal.
    Raises:
        MsthError: a wrong option, or a path that cannot be written.
    """
    kept = None if box is None else parse_box(box)
    options: dict[str, Any] = {"box": kept, "mode": mode}
    surfaces: dict[str, Callable[..., Path]] = {
        "points": partial(export_points, run, points=points, **options),
        "mesh": partial(export_mesh, run, resolution=resolution, **options),
    }
    if target in surfaces:
        write = surfaces[target]
        if times is None:
            return [str(write(output, time, overwrite=overwrite))]
        moments = spread_times(run.scene, times)
        files = write_series(partial(write, progress=False), output, moments, overwrite)
        return [f"{output}: {len(files)} files, from time {moments[0]:.4g} to {moments[-1]:.4g}"]
    if times is not None:
        raise RunError(f"--times {times}: is for points and mesh; leave it out for --to {target}")
    if target == "cameras":
        return [str(export_cameras(run, output, overwrite=overwrite))]
    if target == "compact":
        return compact_lines(output, export_compact(run, output, bits, data=data, overwrite=overwrite))  # type: ignore[arg-type] it checks
    raise RunError(f"--to {target}: unknown; use one of {', '.join(TARGETS)}")


def parse_box(text: str) -> Box:
    """Six numbers of "x0,y0,z0,x1,y1,z1".

    Raises:
        RunError: not two corners of a box.

    Example:
        >>> parse_box("-1,-1,0,1,1,2")
        [-1.0, -1.0, 0.0, 1.0, 1.0, 2.0]
    """
    try:
        box = [float(number) for number in text.split(",")]
    except ValueError:
        raise RunError(f"--box {text}: not numbers; write x0,y0,z0,x1,y1,z1, such as -1,-1,0,1,1,2") from None
    corners(box)
    return box


def compact_lines(file: Path, result: dict[str, Any]) -> list[str]:
    """The result of `export_compact` for a terminal."""
    lines = [
        f"{file}: {result['bytes'] / 1e6:.2f} MB, of {result['bytes_float32'] / 1e6:.1f} MB in float32",
        f"{result['views']} {result['split']} views: PSNR {result['psnr_to_run']:.2f} dB to the renders of the run",
    ]
    if result["loss"] is None:
        return [
            *lines,
            "loss to the pictures: unknown, the data set is not there or damaged; say where it is with --data PATH",
        ]
    before, after = result["psnr_run"], result["psnr_file"]
    return [*lines, f"to the pictures: {before:.3f} dB before, {after:.3f} dB now, {result['loss']:.3f} dB lost"]
