"""A run as a mesh: depth maps of many views, joined in a grid of signed distances whose zero is the surface.

Letters: C cameras, H, W image size, V voxels, K vertices, T triangles.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from msth_taichi.errors import RunError
from msth_taichi.exporting.outputs import require_output
from msth_taichi.exporting.ply import write_ply
from msth_taichi.exporting.surfaces import (
    SOLID,
    Box,
    Points,
    content_box,
    corners,
    seen_points,
    training_cameras,
)
from msth_taichi.lenses import ORTHOGRAPHIC, PINHOLE
from msth_taichi.model.renderer import Mode
from msth_taichi.scene.cameras import Cameras
from msth_taichi.training.run import Run

RESOLUTION = 256
FINEST = 768
"""Voxels along the longest edge: six grids of 32 bits of them fill 11 GB."""

_BAND = 4.0  # voxels to either side of a surface in which distances count
_WIDEST = 45.0  # degrees to the axis; beyond, the pixels of a flat image grow large
_SMALLEST, _SHARE = 64, 0.002  # triangles, and share of those of the largest part; what is smaller and alone floats
_AT_ONCE = 2**21  # voxels looked at together
_PROBED = 200_000  # points that say where the scene is


@dataclass(frozen=True, eq=False)
class DepthView:
    """What a pinhole camera sees at one time.

    Args:
        camera: one, on the device.
        depth: (H, W) distance along the unit ray, scene units; 0 where there is nothing.
        color: (H, W, 3) in [0, 1].
    """

    camera: Cameras
    depth: torch.Tensor
    color: torch.Tensor

    def look(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Where positions (V, 3) are seen, and how far before the surface in that direction they lie.

        Returns:
            pixel (V,), number in the image by rows; distance (V,), below 0 behind the surface; NaN where outside
            of the image or where there is nothing.
        """
        pose, (fx, fy, cx, cy) = self.camera.camera_to_world[0], self.camera.intrinsics[0]
        offset = positions - pose[:, 3]
        x, y, z = (offset @ pose[:, :3]).unbind(1)
        forward = (-z).clamp(min=1e-9)
        column, row = (x / forward * fx + cx).floor(), (cy - y / forward * fy).floor()
        height, width = self.depth.shape
        seen = (z < 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
        pixel = torch.where(seen, row * width + column, 0.0).long()
        depth = self.depth.flatten()[pixel]
        return pixel, torch.where(seen & (depth > 0), depth - offset.norm(dim=1), torch.nan)


@dataclass(frozen=True, eq=False)
class Grid:
    """Cubic voxels, in scene units.

    Args:
        corner: (3,) middle of the first voxel.
        edge: of a voxel.
        shape: voxels along x, y, z.
    """

    corner: np.ndarray
    edge: float
    shape: tuple[int, int, int]

    def positions(self, first: int, last: int, device: torch.device) -> torch.Tensor:
        """(last - first, 3) middles of voxels, counted with z fastest."""
        number = torch.arange(first, last, device=device)
        _, ny, nz = self.shape
        cell = torch.stack([number // (ny * nz), number // nz % ny, number % nz], 1)
        return torch.from_numpy(self.corner).to(device).float() + self.edge * cell


def export_mesh(
    run: Run,
    output: Path,
    time: float = 0.0,
    *,
    resolution: int = RESOLUTION,
    box: Box | None = None,
    mode: Mode = "full",
    overwrite: bool = False,
    progress: bool = True,
) -> Path:
    """Write the surfaces that the training cameras see at one time as triangles with normals and colours.

    Depth maps are rendered from where the training cameras stand and joined in a grid of truncated signed distances,
    whose zero marching cubes find. Surfaces that no camera saw are open. Positions are in the user's coordinates.

    Args:
        run: a trained run; its data set is not needed.
        output: ends in .ply.
        time: in [0, 1].
        resolution: voxels along the longest edge of the box.
        box: what is kept; default: around nearly all that is seen.
        mode: "full"; "static" without what moves, or "dynamic", what moves alone.
        overwrite: replace a file.
        progress: show a bar.
    Returns:
        `output`.
    Raises:
        RunError: the extra `mesh` is not installed, a number is out of range, nothing is seen, or a path that cannot
            be written.
    Source: Curless and Levoy 1996; Lorensen and Cline 1987, by scikit-image.

    Example:
        >>> export_mesh(run, Path("mesh.ply"), time=0.5, resolution=512)
        PosixPath('mesh.ply')
    """
    require_skimage()
    if not 8 <= resolution <= FINEST:
        raise RunError(f"--resolution {resolution}: out of range; use a number from 8 to {FINEST}")
    require_output(output, ".ply", overwrite)
    grid = _grid(_scene_box(run, time, box, mode, progress), resolution)
    cameras = pinholes(training_cameras(run, pixels=np.inf), 2 * resolution)
    views = list(depth_views(run, time, cameras, mode, progress))
    positions, normals, triangles = extract(smoothed(fuse(views, grid, progress)))
    if not len(triangles):
        raise RunError(f"{output}: no surface is seen at time {time:g}; try another --time, --mode or --box")
    positions = grid.corner + grid.edge * positions
    colored = Points(positions, normals, seen_colors(views, positions, normals, grid.edge)).in_user_coordinates(run)
    write_ply(output, colored.positions, colored.normals, colored.colors, triangles)
    return output


def require_skimage() -> Any:
    """The module skimage.measure.

    Raises:
        RunError: it is not installed; says what to install.
    """
    try:
        return import_module("skimage.measure")
    except ImportError as error:
        raise RunError("--to mesh: scikit-image is not installed; run: pip install 'msth_taichi[mesh]'") from error


def pinholes(cameras: Cameras, longest: int) -> Cameras:
    """Pinhole cameras that see the middle of what these see, up to 45 degrees from the axis to each side.

    Args:
        cameras: of any lens.
        longest: pixels of the longer edge of the largest image.
    """
    sizes = cameras.sizes.to(cameras.intrinsics)
    focal, middle = cameras.intrinsics.split(2, dim=1)
    # the others' counts pixels per radian, or as here: about the axis all are alike; an orthographic one's does not
    focal = torch.where(cameras.lens[:, None] == ORTHOGRAPHIC, 0.0, focal)
    focal = torch.maximum(focal, 0.5 * sizes / np.tan(np.radians(_WIDEST)))
    flat = replace(
        cameras,
        intrinsics=torch.cat([focal, middle], 1),
        distortion=torch.zeros_like(cameras.distortion),
        lens=torch.full_like(cameras.lens, PINHOLE),
    )
    return flat.scaled(longest / int(cameras.sizes.max()))


def depth_views(run: Run, time: float, cameras: Cameras, mode: Mode, progress: bool = True) -> Iterator[DepthView]:
    """What each of the pinhole cameras sees."""
    bar = tqdm(range(len(cameras)), "render", unit="camera", leave=False, disable=None if progress else True)
    for index in bar:
        camera = cameras.select([index])
        image = run.render(camera, time, mode=mode)
        depth = torch.where(image["accumulation"] >= SOLID, image["depth"], 0.0)
        yield DepthView(camera.to(depth.device), depth, image["rgb"])


def fuse(views: list[DepthView], grid: Grid, progress: bool = True) -> np.ndarray:
    """The mean over views of distances to the surface, in voxels, truncated to [-4, 4]; NaN where no view says.

    A voxel further behind the surface of a view is hidden from it, and that view says nothing about it.

    Args:
        views: of one device.
        grid: V voxels.
        progress: show a bar.
    Returns:
        float32 of the grid's shape.
    """
    count = int(np.prod(grid.shape))
    distances = np.empty(count, np.float32)
    device = views[0].depth.device
    for first in tqdm(range(0, count, _AT_ONCE), "fuse", leave=False, disable=None if progress else True):
        positions = grid.positions(first, min(first + _AT_ONCE, count), device)
        total, weight = torch.zeros(len(positions), device=device), torch.zeros(len(positions), device=device)
        for view in views:
            distance = view.look(positions)[1] / grid.edge
            counts = distance > -_BAND  # NaN is not
            total += torch.where(counts, distance.clamp(max=_BAND), 0.0)
            weight += counts
        distances[first : first + len(positions)] = torch.where(weight > 0, total / weight, torch.nan).cpu().numpy()
    return distances.reshape(grid.shape)


def smoothed(distances: np.ndarray) -> np.ndarray:
    """The mean of each voxel that is known and those of its 26 neighbours that are; NaN elsewhere.

    Depths of neighbouring pixels differ by steps of the samples along their rays, which would show as ripples.
    """
    known = np.isfinite(distances)
    sums, counts = (
        torch.nn.functional.avg_pool3d(torch.from_numpy(values.astype(np.float32))[None, None], 3, 1, 1)[0, 0].numpy()
        for values in (np.where(known, distances, 0), known)
    )
    return np.divide(sums, counts, out=np.full_like(distances, np.nan), where=known)


def seen_colors(views: list[DepthView], positions: np.ndarray, normals: np.ndarray, edge: float) -> np.ndarray:
    """(K, 3) colours of vertices: the mean over the views that see them, those that face them counting most."""
    device = views[0].depth.device
    at, normal = (torch.from_numpy(values).float().to(device) for values in (positions, normals))
    total, weight = torch.full((len(at), 3), 0.5e-6, device=device), torch.full((len(at), 1), 1e-6, device=device)
    for view in views:
        pixel, distance = view.look(at)
        towards = torch.nn.functional.normalize(view.camera.camera_to_world[0, :, 3] - at, dim=1)
        facing = (towards * normal).sum(1).clamp(min=1e-3).square()
        share = torch.where(distance.abs() < _BAND * edge, facing, 0.0)[:, None]  # NaN is not
        total += share * view.color.reshape(-1, 3)[pixel]
        weight += share
    return (total / weight).cpu().numpy()


def _scene_box(run: Run, time: float, box: Box | None, mode: Mode, progress: bool) -> np.ndarray:
    """(2, 3) corners in scene units, whose axes may not be the user's."""
    if box is None:
        seen = seen_points(run, time, training_cameras(run, _PROBED), mode, progress).positions
        return content_box(seen) if len(seen) else np.array([[-1.0] * 3, [1.0] * 3])
    low, high = corners(box)
    ends = np.stack(np.meshgrid(*zip(low, high, strict=True)), -1).reshape(-1, 3)
    moved = run.scene.transform.apply_points(ends)
    return np.stack([moved.min(0), moved.max(0)])


def _grid(box: np.ndarray, resolution: int) -> Grid:
    extent = box[1] - box[0]
    edge = float(extent.max()) / (resolution - 1)
    x, y, z = (max(int(np.ceil(length / edge)), 1) + 1 for length in extent)
    return Grid(box[0], edge, (x, y, z))


def extract(distances: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where a grid of distances is zero, as triangles.

    Args:
        distances: (X, Y, Z), above 0 outside, NaN where unknown.
    Returns:
        positions (K, 3) in voxels and normals (K, 3) float32 that point outside, triangles (T, 3) counter-clockwise
        seen from there. No surface is closed across what is unknown, and no small part stands alone.
    """
    known = np.isfinite(distances)
    if not (distances[known] > 0).any() or not (distances[known] < 0).any():
        return np.zeros((0, 3)), np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int64)
    measure = require_skimage()
    positions, triangles, *_ = measure.marching_cubes(np.where(known, distances, _BAND), 0.0)
    whole = np.ones([n - 1 for n in distances.shape], bool)  # cells whose eight corners are known
    for corner in np.ndindex(2, 2, 2):
        whole &= known[tuple(slice(c, c + n) for c, n in zip(corner, whole.shape, strict=True))]
    cell = np.floor(positions[triangles].mean(1)).astype(np.int64)
    triangles = triangles[whole[tuple(np.minimum(cell, np.array(whole.shape) - 1).T)]]
    used, triangles = np.unique(_large_parts(triangles, len(positions)), return_inverse=True)
    positions, triangles = positions[used], triangles.reshape(-1, 3)
    return positions, _vertex_normals(positions, triangles), triangles


def _large_parts(triangles: np.ndarray, count: int) -> np.ndarray:
    """The triangles whose connected part, of `count` vertices in all, is not much smaller than the largest."""
    sparse, graph = import_module("scipy.sparse"), import_module("scipy.sparse.csgraph")  # scikit-image brings both
    ends = triangles[:, [0, 1, 1, 2]].reshape(-1, 2)
    edges = sparse.coo_matrix((np.ones(len(ends), bool), ends.T), (count, count))
    part = graph.connected_components(edges, directed=False)[1][triangles[:, 0]]
    size = np.bincount(part, minlength=1)
    return triangles[size[part] >= max(_SMALLEST, _SHARE * size.max())]


def _vertex_normals(positions: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """(K, 3) float32 unit: the mean over the triangles of a vertex, by their areas."""
    a, b, c = (positions[triangles[:, i]] for i in range(3))
    across = np.cross(b - a, c - a)
    normals = np.stack([np.bincount(triangles.ravel(), across[:, i].repeat(3), len(positions)) for i in range(3)], 1)
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    return (normals / np.maximum(length, 1e-20)).astype(np.float32)
