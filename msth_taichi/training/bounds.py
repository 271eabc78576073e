"""Near and far of a scene's rays, from its data."""

import numpy as np
import torch

from msth_taichi.config import Config
from msth_taichi.rendering.rigs import focus_point
from msth_taichi.scene.scene import Scene

# room before the nearest thing seen and behind the farthest
_BEFORE, _BEHIND = 0.8, 1.25
# where a data set says nothing: of the distance between a camera and what all of them look at
_NEAREST, _FARTHEST = 0.1, 4.0


def with_bounds(config: Config, scene: Scene) -> Config:
    """Settings whose near and far are the scene's, where `rays.bounds` asks for it.

    A contraction leaves far as it is: space is unbounded then.

    Example:
        >>> with_bounds(load_preset("n3v", ["rays.bounds=data"]), scene).rays.near
        0.31
    """
    rays = config.rays
    if rays.bounds != "data":
        return config
    nearest, farthest = scene.bounds or seen_from(scene)
    near = max(_BEFORE * nearest, 1e-6)
    far = _BEHIND * farthest if rays.contraction == "none" and not rays.ndc else rays.far
    bounds = {"near": near, "far": max(far, 2 * near), "near_render": rays.near_render and max(rays.near_render, near)}
    return config.model_copy(update={"rays": rays.model_copy(update=bounds)})


def seen_from(scene: Scene) -> tuple[float, float]:
    """Nearest and farthest distance that the training cameras may see, guessed from what they look at."""
    cameras = scene.cameras.select(torch.unique(scene.images("train").camera))
    poses = cameras.camera_to_world.double().numpy()
    distance = np.linalg.norm(poses[:, :, 3] - focus_point(poses), axis=1)
    return _NEAREST * float(distance.min()), _FARTHEST * float(distance.max())
