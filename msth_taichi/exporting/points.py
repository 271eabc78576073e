"""A run as a point cloud.

Letters: K points.
"""

from pathlib import Path

import numpy as np

from msth_taichi.errors import RunError
from msth_taichi.exporting.outputs import require_output
from msth_taichi.exporting.ply import write_ply
from msth_taichi.exporting.surfaces import (
    Box,
    Points,
    content_box,
    corners,
    inside,
    seen_points,
    training_cameras,
)
from msth_taichi.model.renderer import Mode
from msth_taichi.training.run import Run

POINTS = 1_000_000

_SEEN = 4  # pixels for each point, so that one stands for several views of it
_HALVINGS = 20  # of the ratio between an edge that is too small and one that is not
_FINEST = 2**20  # voxels along an axis, of which three fit into one number of 64 bits


def export_points(
    run: Run,
    output: Path,
    time: float = 0.0,
    *,
    points: int = POINTS,
    box: Box | None = None,
    mode: Mode = "full",
    overwrite: bool = False,
    progress: bool = True,
) -> Path:
    """Write the surfaces that the training cameras see at one time as points with normals and colours.

    Positions are in the user's coordinates.

    Args:
        run: a trained run; its data set is not needed.
        output: ends in .ply.
        time: in [0, 1].
        points: most that are written; of more, those in one voxel become their mean.
        box: what is kept; default: around nearly all that is seen.
        mode: "full"; "static" without what moves, or "dynamic", what moves alone.
        overwrite: replace a file.
        progress: show a bar.
    Returns:
        `output`.
    Raises:
        RunError: a number out of range, nothing is seen, or a path that cannot be written.

    Example:
        >>> export_points(run, Path("cloud.ply"), time=0.5)
        PosixPath('cloud.ply')
    """
    if points < 1:
        raise RunError(f"--points {points}: out of range; use a number from 1")
    require_output(output, ".ply", overwrite)
    kept = None if box is None else corners(box)
    seen = seen_points(run, time, training_cameras(run, _SEEN * points), mode, progress).in_user_coordinates(run)
    if len(seen):
        seen = seen.select(inside(seen.positions, content_box(seen.positions) if kept is None else kept))
    if not len(seen):
        raise RunError(f"{output}: no surface is seen at time {time:g}; try another --time, --mode or --box")
    cloud = thinned(seen, points)
    write_ply(output, cloud.positions, cloud.normals, cloud.colors)
    return output


def thinned(points: Points, most: int) -> Points:
    """At most `most` points: the means of all in one voxel, with voxels nearly as small as that allows."""
    if len(points) <= most:
        return points
    low, high = points.positions.min(0), points.positions.max(0)
    extent = float((high - low).max())
    small, large = extent / _FINEST, extent + 1e-9
    for _ in range(_HALVINGS):
        edge = (small * large) ** 0.5
        if len(np.unique(_voxels(points.positions - low, edge))) > most:
            small = edge
        else:
            large = edge
    _, voxel, count = np.unique(_voxels(points.positions - low, large), return_inverse=True, return_counts=True)

    def mean(values: np.ndarray) -> np.ndarray:
        return np.stack([np.bincount(voxel, values[:, axis]) for axis in range(3)], 1) / count[:, None]

    normals = mean(points.normals)
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    return Points(mean(points.positions), normals / np.maximum(length, 1e-9), mean(points.colors))


def _voxels(offsets: np.ndarray, edge: float) -> np.ndarray:
    """(K,) number of the voxel of each offset (K, 3) from the lowest corner."""
    cell = (offsets / edge).astype(np.int64)
    return (cell[:, 0] << 42) | (cell[:, 1] << 21) | cell[:, 2]
