"""Where the camera stands, and when, in each frame of a video.

Letters: C training cameras, F frames of the path, p positions, o, d origins and directions of optical axes.
All poses are camera-to-world, OpenGL axes, in scene units.
"""

from dataclasses import dataclass

import numpy as np
import torch

from msth_taichi.errors import RunError
from msth_taichi.lenses import PINHOLE
from msth_taichi.scene.cameras import Cameras
from msth_taichi.scene.scene import Images, Scene

PATHS = ("test", "spiral", "orbit")
LONGEST = 100_000
STILL_FRAMES = 120  # frames of a camera move through a scene that has one moment only
_FOCUS = 1.0  # distance looked at when the optical axes do not meet


@dataclass(frozen=True)
class CameraPath:
    """One view per frame of a video.

    Attributes:
        cameras: the poses and lenses the path uses, scene units.
        camera: (F,) int64, which of `cameras` each frame is seen through.
        time: (F,) float32.
        fps: frames per second.
    """

    cameras: Cameras
    camera: np.ndarray
    time: np.ndarray
    fps: float

    def __len__(self) -> int:
        return len(self.camera)


def make_path(scene: Scene, name: str, frames: int | None = None) -> CameraPath:
    """The path called `name` through `scene`.

    Args:
        scene: cameras and times suffice; no frame is read.
        name: "test" (held-out views), "spiral" or "orbit".
        frames: F; for "test", how many evenly spaced frames of each held-out camera are kept. Default: as
            many as the scene has moments.
    Raises:
        RunError: unknown name, no frames asked for, or no held-out views.

    Example:
        >>> len(make_path(load_scene("demo"), "spiral", frames=30))
        30
    """
    if name not in PATHS:
        raise RunError(f"--path {name}: unknown path; use one of {', '.join(PATHS)}")
    if frames is not None and not 1 <= frames <= LONGEST:
        raise RunError(f"--frames {frames}: out of range; use a number from 1 to {LONGEST}")
    if name == "test":
        return held_out_views(scene, frames)
    train = scene.images("train")
    seen = scene.cameras.select(torch.unique(train.camera))
    count = frames or (scene.num_frames if scene.num_frames > 1 else STILL_FRAMES)
    poses = seen.camera_to_world.double().cpu().numpy()
    placed = spiral_poses(poses, count) if name == "spiral" else orbit_poses(poses, count)
    cameras = Cameras(
        camera_to_world=torch.from_numpy(placed).float(),
        intrinsics=seen.intrinsics[:1].cpu().expand(count, 4).contiguous(),
        distortion=torch.zeros(count, 8),
        lens=torch.full((count,), PINHOLE, dtype=torch.int32),
        sizes=seen.sizes[:1].repeat(count, 1),
        names=tuple(f"{name}-{k:05d}" for k in range(count)),
    )
    time = np.linspace(float(train.time.min()), float(train.time.max()), count, dtype=np.float32)
    return CameraPath(cameras, np.arange(count), time, scene.fps)


def held_out_views(scene: Scene, frames: int | None = None) -> CameraPath:
    """Each held-out camera through all its frames, one camera after the other; where the cameras move, the
    held-out images in the order of time."""
    images = scene.splits.get("test")
    if images is None or len(images) == 0:
        raise RunError("--path test: the run holds no test views; use --path spiral or --path orbit")
    groups = [rows[_spread(len(rows), frames)] for rows in view_rows(images, scene.static_cameras).values()]
    rows = np.concatenate(groups)
    return CameraPath(scene.cameras, images.camera.numpy()[rows], images.time.numpy()[rows], scene.fps)


def view_rows(images: Images, static_cameras: bool) -> dict[int, np.ndarray]:
    """Rows of `images` in the order of time, by camera; all under -1 where each image has its own camera."""
    camera = images.camera.numpy() if static_cameras else np.full(len(images), -1)
    order = np.lexsort((images.time.numpy(), camera))
    return {int(c): order[camera[order] == c] for c in np.unique(camera)}


def spiral_poses(poses: np.ndarray, count: int) -> np.ndarray:
    """Two turns of a closed spiral inside the rig, looking at what the rig looks at.

    Along the principal axes a of the camera positions, with spread s_a and z_ia = a . (p_i - mean) / s_a,

        p(u) = mean + k (s_1 cos(4 pi u) e_1 + s_2 sin(4 pi u) e_2 + s_3 sin(2 pi u) e_3)
             = sum_i (1 + k (z_i1 cos + z_i2 sin + z_i3 sin)) / C  p_i

    with the largest k <= 1 that leaves each weight >= 0: a convex combination, so the path never leaves the
    hull of the cameras. A rig that surrounds the scene has no mean pose; the quarter of its cameras nearest
    to the first stands in for it.

    Args:
        poses: (C, 3, 4).
        count: F.
    Returns:
        (F, 3, 4).
    """
    target, up = focus_point(poses), _mean_up(poses)
    if _surrounds(poses, target):
        distance = np.linalg.norm(poses[:, :, 3] - poses[0, :, 3], axis=1)
        poses = poses[np.argsort(distance, kind="stable")[: max(4, len(poses) // 4)]]
    positions = poses[:, :, 3]
    mean = positions.mean(axis=0)
    _, spread, axes = np.linalg.svd(positions - mean, full_matrices=False)
    axes, spread = axes[spread > 1e-9], spread[spread > 1e-9] / np.sqrt(len(positions))
    angle = 4 * np.pi * np.arange(count) / count
    wave = np.stack([np.cos(angle), np.sin(angle), np.sin(angle / 2)])[: len(axes)]
    reach = np.abs((positions - mean) @ axes.T / spread)
    bound = np.hypot(reach[:, 0], reach[:, 1]) if len(axes) > 1 else reach.sum(axis=1)
    bound = bound + (reach[:, 2] if len(axes) > 2 else 0.0)
    shrink = min(1.0, 1.0 / bound.max()) if len(axes) else 0.0
    path = mean + shrink * (wave.T * spread) @ axes
    return np.stack([look_at(p, target, up) for p in path])


def orbit_poses(poses: np.ndarray, count: int) -> np.ndarray:
    """A circle around what the rig looks at, at its mean height and distance, that ends where it began.

    Where the cameras leave a gap of more than 120 degrees around the target, an arc over the rig and back.

    Args:
        poses: (C, 3, 4).
        count: F.
    Returns:
        (F, 3, 4).
    """
    target, up = focus_point(poses), _mean_up(poses)
    right, ahead = _plane(up)
    offset = poses[:, :, 3] - target
    height = (offset @ up).mean()
    radius = np.hypot(offset @ right, offset @ ahead).mean()
    start, span = _arc(np.arctan2(offset @ ahead, offset @ right))
    phase = 2 * np.pi * np.arange(count) / count
    azimuth = start + (phase if span == 2 * np.pi else span * (1 - np.cos(phase)) / 2)
    circle = np.outer(np.cos(azimuth), right) + np.outer(np.sin(azimuth), ahead)
    path = target + height * up + radius * circle
    return np.stack([look_at(p, target, up) for p in path])


def look_at(position: np.ndarray, target: np.ndarray, up: np.ndarray) -> np.ndarray:
    """(3, 4) pose at `position` that looks at `target`, `up` pointing up in the image as far as possible."""
    back = position - target
    back = back / np.linalg.norm(back) if np.linalg.norm(back) > 1e-9 else _plane(up)[0]
    right = np.cross(up, back)
    right = right / np.linalg.norm(right) if np.linalg.norm(right) > 1e-6 else _plane(back)[0]
    return np.column_stack([right, np.cross(back, right), back, position])


def focus_point(poses: np.ndarray) -> np.ndarray:
    """(3,) the point nearest to all optical axes: argmin_x sum_i |(I - d_i d_i^T)(x - o_i)|^2.

    Nearly parallel axes meet nowhere useful: a weak pull to the point one scene unit ahead of the mean pose
    decides what they leave open, and that point itself is taken where the axes meet behind the cameras.
    """
    origins, directions = poses[:, :, 3], -poses[:, :, 2]
    ahead = directions.mean(axis=0)
    length = np.linalg.norm(ahead)
    default = origins.mean(axis=0) + (_FOCUS * ahead / length if length > 1e-3 else 0.0)
    across = np.eye(3) - directions[:, :, None] * directions[:, None, :]
    pull = 1e-3 * len(poses)
    left = across.sum(axis=0) + pull * np.eye(3)
    point = np.linalg.solve(left, np.einsum("cij,cj->i", across, origins) + pull * default)
    depth = np.einsum("ci,ci->c", point - origins, directions)
    return point if np.median(depth) > 1e-6 else default


def _mean_up(poses: np.ndarray) -> np.ndarray:
    up = poses[:, :, 1].mean(axis=0)
    length = np.linalg.norm(up)
    return up / length if length > 1e-6 else np.array([0.0, 0.0, 1.0])


def _plane(normal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two unit vectors that span the plane across `normal`, right-handed with it."""
    first = np.cross(normal, np.eye(3)[np.argmin(np.abs(normal))])
    first /= np.linalg.norm(first)
    return first, np.cross(normal, first)


def _arc(azimuth: np.ndarray) -> tuple[float, float]:
    """Start and span of the shortest arc over all azimuths; a whole turn where no gap exceeds 120 degrees."""
    azimuth = np.sort(azimuth % (2 * np.pi))
    gaps = np.diff(azimuth, append=azimuth[0] + 2 * np.pi)
    widest = int(np.argmax(gaps))
    start = float(azimuth[(widest + 1) % len(azimuth)])
    return (start, 2 * np.pi) if gaps[widest] <= 2 * np.pi / 3 else (start, float(2 * np.pi - gaps[widest]))


def _surrounds(poses: np.ndarray, target: np.ndarray) -> bool:
    up = _mean_up(poses)
    right, ahead = _plane(up)
    offset = poses[:, :, 3] - target
    return _arc(np.arctan2(offset @ ahead, offset @ right))[1] == 2 * np.pi


def _spread(total: int, count: int | None) -> np.ndarray:
    """`count` of `total` indices, evenly spaced from the first to the last."""
    if count is None or count >= total:
        return np.arange(total)
    return np.linspace(0, total - 1, count).round().astype(np.int64)
