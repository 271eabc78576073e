"""What the training cameras see of the scene at one time: positions, colours and normals of surfaces.

Letters: C cameras, H, W image size, K points.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from tqdm import tqdm

from msth_taichi.errors import RunError
from msth_taichi.model.rays import camera_rays
from msth_taichi.model.renderer import Mode
from msth_taichi.scene.cameras import Cameras
from msth_taichi.training.run import Run

MOST_CAMERAS = 64
"""Of cameras that move there is one an image; more of them see little that is new."""

SOLID = 0.5
"""Share of a ray that must be absorbed, or its median depth means nothing."""

_GRAZING = 0.15  # cosine to the normal below which a surface is more likely the jump from one to another
_TAIL = 0.02  # share of points to either side, along each axis, that says nothing about where the scene is
_MARGIN = 0.1  # of the extent of the others, that is added to it

Box = Sequence[float]
"""x, y, z of one corner, then of the other, the user's coordinates."""


@dataclass(frozen=True, eq=False)
class Points:
    """K points of surfaces.

    Args:
        positions: (K, 3) float64.
        normals: (K, 3) float32 unit, towards who saw them.
        colors: (K, 3) float32 in [0, 1].
    """

    positions: np.ndarray
    normals: np.ndarray
    colors: np.ndarray

    def __len__(self) -> int:
        return len(self.positions)

    def select(self, rows: np.ndarray) -> "Points":
        """Those at `rows`, or where it is true."""
        return Points(self.positions[rows], self.normals[rows], self.colors[rows])

    def in_user_coordinates(self, run: Run) -> "Points":
        """Points in scene units, where the user has them."""
        transform = run.scene.transform
        normals = (self.normals @ transform.rotation).astype(np.float32)
        return replace(self, positions=transform.invert_points(self.positions), normals=normals)


def training_cameras(run: Run, pixels: float) -> Cameras:
    """Cameras that were trained on, at most `MOST_CAMERAS` of them, with about `pixels` pixels in all or less."""
    rows = run.scene.images("train").camera.unique()
    kept = torch.linspace(0, len(rows) - 1, min(len(rows), MOST_CAMERAS)).round().long()
    cameras = run.scene.cameras.select(rows[kept])
    total = float(cameras.sizes.prod(1).sum())
    return cameras.scaled(min(1.0, (pixels / total) ** 0.5))


def seen_points(run: Run, time: float, cameras: Cameras, mode: Mode = "full", progress: bool = True) -> Points:
    """A point for each pixel whose ray meets a surface, scene units.

    Rays that hardly meet anything are left out, and so are pixels on the edge from a near to a far surface, whose
    depth is neither's.

    Args:
        run: a trained run.
        time: in [0, 1].
        cameras: C of them, scene units.
        mode: see `Run.render`.
        progress: show a bar.
    """
    bar = tqdm(range(len(cameras)), "render", unit="camera", leave=False, disable=None if progress else True)
    parts = [_of_camera(run, time, cameras.select([index]), mode) for index in bar]
    return Points(*(np.concatenate([getattr(p, name) for p in parts]) for name in ("positions", "normals", "colors")))


def _of_camera(run: Run, time: float, camera: Cameras, mode: Mode) -> Points:
    width, height = camera.size(0)
    image = run.render(camera, time, mode=mode)
    # NaN spreads to the normals of neighbours, which no comparison below then lets through
    depth = torch.where(image["accumulation"] >= SOLID, image["depth"], torch.nan)
    row, column = (x.flatten() for x in torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"))
    row, column = row.to(depth.device), column.to(depth.device)
    rays = camera_rays(camera.to(depth.device), torch.zeros_like(row), row, column, torch.zeros_like(row).float(), 0, 1)
    directions = rays.directions.view(height, width, 3)
    positions = rays.origins.view(height, width, 3) + depth[..., None] * directions
    normals = surface_normals(positions)
    facing = (normals * directions).sum(-1)
    normals = torch.where(facing[..., None] > 0, -normals, normals)
    kept = depth.isfinite() & (facing.abs() > _GRAZING)
    found = (positions.double(), normals, image["rgb"])
    return Points(*(values[kept].cpu().numpy() for values in found))


def surface_normals(positions: torch.Tensor) -> torch.Tensor:
    """(H, W, 3) unit normals, of either sign, of positions (H, W, 3) seen by neighbouring pixels; 0 in the margin."""
    normals = torch.zeros_like(positions)
    if min(positions.shape[:2]) > 2:
        across = positions[1:-1, 2:] - positions[1:-1, :-2]
        down = positions[2:, 1:-1] - positions[:-2, 1:-1]
        normals[1:-1, 1:-1] = torch.nn.functional.normalize(torch.linalg.cross(across, down), dim=-1, eps=1e-20)
    return normals


def content_box(positions: np.ndarray) -> np.ndarray:
    """(2, 3) lower and upper corner around nearly all of the points (K, 3): a few are far off in any cloud."""
    low, high = np.quantile(positions, [_TAIL, 1 - _TAIL], axis=0)
    margin = _MARGIN * (high - low).max()
    return np.stack([low - margin, high + margin])


def corners(box: Box) -> np.ndarray:
    """(2, 3) lower and upper corner.

    Raises:
        RunError: not two corners of a box.
    """
    found = np.asarray(box, np.float64)
    if found.shape != (6,) or not np.isfinite(found).all() or not (found[:3] < found[3:]).all():
        raise RunError(f"--box {','.join(f'{x:g}' for x in box)}: no box; write x0,y0,z0,x1,y1,z1, each 0 below its 1")
    return found.reshape(2, 3)


def inside(positions: np.ndarray, box: np.ndarray) -> np.ndarray:
    """(K,) bool, which positions (K, 3) lie between the corners (2, 3)."""
    return ((positions >= box[0]) & (positions <= box[1])).all(1)
