"""Where a camera can stand and look, given where the cameras of a rig do.

Letters: C cameras of the rig, F frames of the path, p positions, o, d origins and directions of optical axes.
All poses are camera-to-world, OpenGL axes, in scene units.
"""

import numpy as np

_FOCUS = 1.0  # distance looked at when the optical axes do not meet


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
    target, up = focus_point(poses), mean_up(poses)
    if surrounds(poses, target):
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
    target, up = focus_point(poses), mean_up(poses)
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


def visiting_order(poses: np.ndarray, closed: bool) -> np.ndarray:
    """(C,) the cameras in the order of a short tour through all of them: nearest neighbour, then 2-opt.

    Two cameras are as far apart as they stand and look: a scene unit counts as much as a radian, about.

    Args:
        poses: (C, 3, 4).
        closed: the tour comes back to its first camera; else it begins and ends where that is shortest.

    Example:
        >>> visiting_order(poses[[0, 2, 1]], closed=False)  # of three cameras in a row
        array([0, 2, 1])
    """
    distance = pose_distance(poses[:, None], poses[None])
    if not closed:
        # a place that is next to every other, where the tour is then opened
        distance = np.pad(distance, ((1, 0), (1, 0)))
    order = _shorter(_nearest_neighbours(distance), distance)
    return order if closed else order[1:] - 1


def pose_distance(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(...) between poses (..., 3, 4): of their positions and of their viewing directions, together."""
    return np.linalg.norm(first[..., 2:] - second[..., 2:], axis=(-2, -1))


def _nearest_neighbours(distance: np.ndarray) -> np.ndarray:
    left, order = set(range(1, len(distance))), [0]
    while left:
        order.append(min(left, key=lambda k: (distance[order[-1], k], k)))
        left.remove(order[-1])
    return np.array(order)


def _shorter(order: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """A closed tour with parts of it turned around as long as that makes it shorter; its first place stays."""
    better = True
    while better:
        better = False
        for i in range(1, len(order) - 1):
            last = np.arange(i + 1, len(order))
            after = order[(last + 1) % len(order)]
            before = distance[order[i - 1], order[i]] + distance[order[last], after]
            change = distance[order[i - 1], order[last]] + distance[order[i], after] - before
            if change.min() < -1e-9:
                end = last[np.argmin(change)] + 1
                order[i:end] = order[i:end][::-1].copy()
                better = True
    return order


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


def mean_up(poses: np.ndarray) -> np.ndarray:
    """(3,) unit: what the cameras hold upwards."""
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


def surrounds(poses: np.ndarray, target: np.ndarray) -> bool:
    """Whether cameras stand all around a target (3,): no gap between them is wider than 120 degrees."""
    up = mean_up(poses)
    right, ahead = _plane(up)
    offset = poses[:, :, 3] - target
    return _arc(np.arctan2(offset @ ahead, offset @ right))[1] == 2 * np.pi
