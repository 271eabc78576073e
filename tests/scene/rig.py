"""The built-in scene as a rig of cameras or one that moves, to be written in every format and read back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import torch

from msth_taichi.config import DataConfig
from msth_taichi.kernels import runtime
from msth_taichi.ops.rays import generate_rays
from msth_taichi.scene.assemble import View
from msth_taichi.scene.cameras import make_cameras
from msth_taichi.scene.scene import Scene, load_scene

AS_IS = DataConfig(orientation="none", center=False, auto_scale=False, scale_factor=1.0)
"""Scene coordinates are the user's."""


@dataclass(frozen=True, eq=False)
class Rig:
    """Views and what they see.

    Args:
        views: V cameras.
        frames: (V, T, H, W, 3) uint8; one time a view where a camera moves.
        times: (T,) in [0, 1]; (V,) where a camera moves.
        fps: frames per second.
    """

    views: list[View]
    frames: np.ndarray
    times: np.ndarray
    fps: float = 25.0


def room_rig(cameras: int = 4, frames: int = 3, width: int = 32, height: int = 24) -> Rig:
    """Cameras that stand still, all seeing every time."""
    scene, pictures = _room(cameras, frames, width, height)
    return Rig(_views(scene), pictures, np.arange(frames) / frames)


def room_sweep(count: int = 9, width: int = 32, height: int = 24) -> Rig:
    """One camera that moves: a view and a time for each image."""
    scene, pictures = _room(count, count, width, height)
    return Rig(_views(scene), pictures[np.arange(count), np.arange(count)][:, None], np.arange(count) / count)


def _room(cameras: int, frames: int, width: int, height: int) -> tuple[Scene, np.ndarray]:
    runtime.device()
    options = f"cameras={cameras},test_cameras=1,frames={frames},width={width},height={height}"
    scene = load_scene(f"synthetic:{options}", AS_IS)
    return scene, np.stack(list(scene.images("train").read())).reshape(cameras, frames, height, width, 3)


def _views(scene: Scene) -> list[View]:
    cameras = scene.cameras
    return [
        View(name, pose.double().numpy(), tuple(intrinsics.tolist()), *size)
        for name, pose, intrinsics, size in zip(
            cameras.names, cameras.camera_to_world, cameras.intrinsics, cameras.sizes.tolist(), strict=True
        )
        if name.startswith("cam")
    ]


def write_video(path: Path, frames: Sequence[np.ndarray], fps: float = 25.0) -> None:
    """Frames (H, W, 3) uint8, without loss."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264rgb", rate=round(fps), options={"qp": "0", "preset": "ultrafast"})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "rgb24"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())


def assert_same_scene(
    scene: Scene, rig: Rig, splits: Mapping[str, Sequence[int]], tolerance: float = 1e-5, exact: bool = True
) -> None:
    """The views at `splits` of the rig are the images of the scene: the same rays, times and colours.

    A rig's images may come in any order within a split; they are told apart by camera and time.
    """
    moving = rig.frames.shape[1] == 1 and len(rig.times) == len(rig.views)
    for split, views in splits.items():
        images = scene.images(split)
        expected = {
            (v, round(float(time), 4)): frame
            for v in views
            for time, frame in zip([rig.times[v]] if moving else rig.times, rig.frames[v], strict=True)
        }
        assert len(images) == len(expected), (split, len(images), len(expected))
        found = _views_of(scene, images.camera.tolist(), rig, views, tolerance)
        for row, frame in enumerate(images.read()):
            target = expected.pop((found[int(images.camera[row])], round(float(images.time[row]), 4)))
            difference = np.abs(frame[..., :3].astype(int) - target)
            assert difference.max() == 0 if exact else difference.mean() < 3
        assert not expected


def assert_finite_rays(scene: Scene) -> None:
    """Every camera has rays of length 1 over the whole of its image."""
    count, device = len(scene.cameras), runtime.device()
    grid = torch.cartesian_prod(torch.linspace(0, 1, 5), torch.linspace(0, 1, 5))
    pixels = (scene.cameras.sizes[:, None].float() * grid).reshape(-1, 2)
    camera = torch.arange(count, dtype=torch.int32).repeat_interleave(len(grid))
    cameras = scene.cameras.to(device)
    origins, directions = generate_rays(
        pixels.to(device),
        camera.to(device),
        cameras.camera_to_world,
        cameras.intrinsics,
        cameras.distortion,
        cameras.lens,
    )
    assert origins.isfinite().all()
    assert ((directions.norm(dim=1) - 1).abs() < 1e-3).all()


def _views_of(scene: Scene, cameras: list[int], rig: Rig, views: Sequence[int], tolerance: float) -> dict[int, int]:
    """The view of the rig that has the rays of each camera."""
    target = {v: _rays(rig, v) for v in views}
    found = {}
    for camera in set(cameras):
        rays = _camera_rays(scene, camera)
        errors = {v: (rays - t).abs().max().item() if rays.shape == t.shape else np.inf for v, t in target.items()}
        best = min(errors, key=lambda v: errors[v])
        assert errors[best] < tolerance, f"{scene.cameras.names[camera]}: rays differ by {errors[best]:.2g}"
        found[camera] = best
    return found


def _rays(rig: Rig, v: int) -> torch.Tensor:
    view = rig.views[v]
    cameras = make_cameras(
        [view.pose], [view.intrinsics], [view.distortion], [view.lens], [[view.width, view.height]], ["a"]
    )
    return _rays_through(cameras, 0)


def _camera_rays(scene: Scene, camera: int) -> torch.Tensor:
    return _rays_through(scene.cameras, camera)


def _rays_through(cameras, i: int) -> torch.Tensor:
    """(N, 6) origins and directions through a grid of pixels."""
    width, height = cameras.size(i)
    pixels = torch.cartesian_prod(torch.linspace(0, width, 7), torch.linspace(0, height, 7))
    device = runtime.device()
    one = cameras.select([i]).to(device)
    rays = generate_rays(
        pixels.to(device),
        torch.zeros(len(pixels), dtype=torch.int32, device=device),
        one.camera_to_world,
        one.intrinsics,
        one.distortion,
        one.lens,
    )
    return torch.cat(rays, dim=1).cpu()
