"""Objects that move before a plain backdrop, seen by cameras that stand still: studio captures made by formulas.

The backdrop is a colour of the picture, not transparency. Lengths are the capture's own: the object is at the origin,
about half a unit tall, and each camera one unit away; the scene's cameras are normalised as those of files are.

Letters: C cameras, T frames, H image height, W image width, N rays, K parts of an object.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from msth_taichi.config import DataConfig
from msth_taichi.kernels import runtime
from msth_taichi.lenses import PINHOLE
from msth_taichi.ops.rays import generate_rays
from msth_taichi.scene.cameras import Cameras, make_cameras
from msth_taichi.scene.normalize import normalize_poses
from msth_taichi.scene.scene import Scene, rig_images

BACKDROPS = {"black": 0.0, "grey": 0.5, "white": 1.0}
FIELD_OF_VIEW = math.radians(45)
ARCS = {"dome": math.tau, "arc": math.radians(60)}
HEIGHTS = (0.1, 0.4)
"""Training cameras alternate between the two; held-out ones stand half way."""

_SUBPIXELS = 2  # squared rays for a pixel


@dataclass(frozen=True)
class Looks:
    """What N rays meet: color (N, 3) times opacity, and opacity (N,)."""

    color: torch.Tensor
    opacity: torch.Tensor


def backdrop_scene(
    content: str,
    backdrop: str,
    layout: str,
    cameras: int,
    config: DataConfig,
    *,
    test_cameras: int = 1,
    frames: int = 12,
    width: int = 64,
    height: int = 48,
) -> Scene:
    """A capture of an object before a plain backdrop; its motion is one loop of T frames.

    Args:
        content: a key of CONTENTS.
        backdrop: a key of BACKDROPS.
        layout: "dome", all around the object, or "arc", 60 degrees of it.
        cameras: training cameras.
        config: how the cameras are normalised.
        test_cameras: held-out cameras, each half way between two training cameras.
        frames: T, times of every camera.
        width: pixels.
        height: pixels.

    Example:
        >>> scene = backdrop_scene("wispy", "black", "arc", 4, DataConfig())
        >>> scene.images("train").source.opacity(0).shape
        (48, 64)
    """
    rig = _rig(layout, cameras, test_cameras, width, height)
    poses = rig.camera_to_world.double().numpy()
    transform = normalize_poses(poses, config)
    normalized = make_cameras(
        transform.apply_poses(poses), rig.intrinsics, rig.distortion, rig.lens, rig.sizes, list(rig.names)
    )
    source = BackdropSource(rig, frames, content, BACKDROPS[backdrop])
    rows = np.arange(cameras + test_cameras)
    return Scene(
        name=f"{content}-{backdrop}-{layout}{cameras}",
        path=None,
        cameras=normalized,
        splits={
            "train": rig_images(rows[:cameras], frames, source),
            "test": rig_images(rows[cameras:], frames, source),
        },
        transform=transform,
        box=config.box,
        num_frames=frames,
        fps=12.0,
        format="synthetic",
        static_cameras=True,
    )


@dataclass(frozen=True, eq=False)
class BackdropSource:
    """Frames made when read; the key of a frame is camera * num_frames + frame.

    Args:
        cameras: in the capture's units.
        num_frames: T.
        content: a key of CONTENTS.
        backdrop: grey value in [0, 1].
    """

    cameras: Cameras
    num_frames: int
    content: str
    backdrop: float
    channels: int = 3
    masked: bool = False

    def read(self, keys: np.ndarray) -> Iterator[np.ndarray]:
        """Frames (H, W, 3) uint8 in the order of `keys`."""
        for key in keys.tolist():
            looks = self._looks(key)
            color = looks.color + (1 - looks.opacity[..., None]) * self.backdrop
            yield (255 * color.clamp(0, 1)).round().byte().cpu().numpy()

    def parts(self, keys: np.ndarray) -> list[np.ndarray]:
        """One: rays are made by a kernel, and kernels are launched from one thread."""
        return [np.arange(len(keys))]

    def fingerprint(self) -> list[Any]:
        """What the frames depend on."""
        return ["backdrop", self.content, self.backdrop, self.num_frames, self.cameras.describe()]

    def opacity(self, key: int) -> np.ndarray:
        """(H, W) float32 share of the pixel that the object takes."""
        return self._looks(key).opacity.cpu().numpy()

    def _looks(self, key: int) -> Looks:
        """What the pixels see: color (H, W, 3) and opacity (H, W)."""
        camera, frame = divmod(key, self.num_frames)
        width, height = self.cameras.size(camera)
        origins, directions = _rays(self.cameras, camera)
        time = torch.tensor(frame / self.num_frames, device=origins.device)
        seen = CONTENTS[self.content](origins, directions, time)
        shape = (height, _SUBPIXELS, width, _SUBPIXELS)
        return Looks(seen.color.view(*shape, 3).mean((1, 3)), seen.opacity.view(shape).mean((1, 3)))


@lru_cache(maxsize=64)
def _rays(cameras: Cameras, camera: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Origins and unit directions (N, 3) of a camera's subpixels, row after row."""
    device, (width, height) = runtime.device(), cameras.size(camera)
    rows, columns = ((torch.arange(size * _SUBPIXELS, device=device) + 0.5) / _SUBPIXELS for size in (height, width))
    pixels = torch.cartesian_prod(rows, columns).flip(1).contiguous()
    one = cameras.select([camera]).to(device)
    index = torch.zeros(len(pixels), dtype=torch.int32, device=device)
    return generate_rays(pixels, index, one.camera_to_world, one.intrinsics, one.distortion, one.lens)


def _rig(layout: str, cameras: int, test_cameras: int, width: int, height: int) -> Cameras:
    """Training cameras, then test cameras in gaps spread evenly."""
    closed = layout == "dome"
    gaps = cameras if closed else cameras - 1
    places = [(i / gaps, HEIGHTS[i % 2]) for i in range(cameras)]
    held_out = [(2 * k + 1) * gaps // (2 * test_cameras) for k in range(test_cameras)]
    places += [((gap + 0.5) / gaps, sum(HEIGHTS) / 2) for gap in held_out]
    focal = 0.5 * width / math.tan(0.5 * FIELD_OF_VIEW)
    count = len(places)
    return make_cameras(
        np.stack([_pose((along - 0.5) * ARCS[layout], z) for along, z in places]),
        np.tile([focal, focal, width / 2, height / 2], (count, 1)),
        np.zeros((count, 8)),
        np.full(count, PINHOLE),
        np.tile([width, height], (count, 1)),
        [f"cam{i:02d}" for i in range(cameras)] + [f"test{i:02d}" for i in range(test_cameras)],
    )


def _pose(angle: float, z: float) -> np.ndarray:
    """(3, 4) camera-to-world, one unit from the origin and looking at it, at `angle` about z from -y."""
    flat = math.sqrt(1 - z * z)
    back = np.array([flat * math.sin(angle), -flat * math.cos(angle), z])
    right = np.array([math.cos(angle), math.sin(angle), 0.0])
    return np.stack([right, np.cross(back, right), back, back], 1)


def body(origins: torch.Tensor, directions: torch.Tensor, time: torch.Tensor) -> Looks:
    """A clothed figure of ellipsoids that turns, sways, and swings its limbs."""
    device, turn = origins.device, math.tau * time
    swing = 0.06 * turn.sin()
    zero = torch.zeros((), device=device)

    def place(x, y, z):
        return torch.stack([zero + x, zero + y, zero + z])

    centers = torch.stack([
        place(0, 0, 0.04), place(0, 0, 0.24),
        place(0.12, swing, 0.05), place(-0.12, -swing, 0.05),
        place(0.05, -swing, -0.19), place(-0.05, swing, -0.19),
    ])  # fmt: skip
    radii = torch.tensor(
        [[0.1, 0.07, 0.14], [0.06, 0.06, 0.07], [0.035, 0.04, 0.13], [0.035, 0.04, 0.13],
         [0.045, 0.05, 0.13], [0.045, 0.05, 0.13]], device=device,
    )  # fmt: skip
    tints = torch.tensor(
        [[0.75, 0.2, 0.15], [0.85, 0.65, 0.5], [0.7, 0.55, 0.2], [0.7, 0.55, 0.2], [0.2, 0.3, 0.65], [0.2, 0.3, 0.65]],
        device=device,
    )
    # into the figure's own axes, which turn about z while it walks a small circle
    cos, sin = turn.cos(), turn.sin()
    axes = torch.stack([place(cos, sin, 0), place(-sin, cos, 0), place(0, 0, 1)])
    at = place(0.04 * sin, 0.04 * cos, 0.0)
    start, along = (origins - at) @ axes.T, directions @ axes.T
    o, d = (start[:, None] - centers) / radii, along[:, None] / radii  # (N, K, 3) of unit spheres
    a, b, c = (d * d).sum(2), (o * d).sum(2), (o * o).sum(2) - 1
    roots = b * b - a * c
    distance = torch.where(roots > 0, (-b - roots.clamp(min=0).sqrt()) / a, math.inf)
    nearest, part = distance.min(1)
    hit = nearest.isfinite()
    t = torch.where(hit, nearest, 0.0)[:, None]
    point = start + t * along
    normal = torch.nn.functional.normalize((point - centers[part]) / radii[part].square(), dim=1)
    light = 0.55 + 0.45 * (normal @ axes)[:, 2].clamp(min=0)  # from above
    weave = 0.5 + 0.5 * (70 * point[:, 2:] + 3 * (45 * point[:, :1]).sin()).sin()
    color = tints[part] * (0.4 + 0.6 * weave) * light[:, None]
    return Looks(color * hit[:, None], hit.float())


def smoke(origins: torch.Tensor, directions: torch.Tensor, time: torch.Tensor) -> Looks:
    """A thin plume: Gaussian puffs that rise, widen and fade; at most about a third of the light is theirs."""
    count = 12
    index = torch.arange(count, device=origins.device)
    age = (time + index / count) % 1
    phase = 2.399 * index  # the golden angle: no two puffs alike
    centers = torch.stack(
        [
            (0.01 + 0.07 * age) * phase.cos() + 0.05 * age * (math.tau * time).sin(),
            (0.01 + 0.07 * age) * phase.sin(),
            0.5 * age - 0.25,
        ],
        1,
    )
    spread = 0.015 + 0.035 * age
    # depth through the middle of a puff; the line's integral of an isotropic Gaussian is one of its distance
    depth = 0.3 * (math.pi * age).sin() * (0.02 / spread)
    offset = centers - origins[:, None]  # (N, K, 3)
    across = (offset * offset).sum(2) - (offset * directions[:, None]).sum(2).square()
    opacity = 1 - (-(depth * (-0.5 * across / spread**2).exp()).sum(1)).exp()
    return Looks(opacity[:, None] * torch.tensor([0.65, 0.7, 0.75], device=origins.device), opacity)


def sticks(origins: torch.Tensor, directions: torch.Tensor, time: torch.Tensor) -> Looks:
    """Three bright rods, thinner than two pixels of a small picture, that tumble past each other."""
    device = origins.device
    index = torch.arange(3, device=device)
    turn = math.tau * time + 2.1 * index
    centers = torch.stack([0.12 * (turn + 1).cos(), 0.12 * turn.sin(), 0.1 * (index - 1.0)], 1)
    axes = torch.stack([turn.cos(), turn.sin(), 0.6 * (turn + index).sin()], 1)
    axes = torch.nn.functional.normalize(axes, dim=1)
    tints = torch.tensor([[1.0, 0.85, 0.5], [0.4, 0.9, 1.0], [1.0, 0.45, 0.7]], device=device)
    half, radius = 0.14, 0.009
    offset = origins[:, None] - centers  # (N, K, 3)
    lean = directions @ axes.T
    o_d, o_a = (offset * directions[:, None]).sum(2), (offset * axes).sum(2)
    on_rod = ((o_a - lean * o_d) / (1 - lean * lean).clamp(min=1e-6)).clamp(-half, half)
    t = lean * on_rod - o_d
    gap = offset + t[..., None] * directions[:, None] - on_rod[..., None] * axes
    distance = torch.where(gap.norm(dim=2) < radius, t, math.inf)
    nearest, rod = distance.min(1)
    hit = nearest.isfinite()
    return Looks(tints[rod] * hit[:, None], hit.float())


CONTENTS: dict[str, Callable[[torch.Tensor, torch.Tensor, torch.Tensor], Looks]] = {
    "dense": body,
    "wispy": smoke,
    "thin": sticks,
}
"""What rays (N, 3) origins and unit directions meet at a time in [0, 1)."""
