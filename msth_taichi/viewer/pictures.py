"""From a request to a picture.

Letters: H, W image size; N rays.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from msth_taichi.model.parts import in_parts
from msth_taichi.model.rays import Rays
from msth_taichi.model.renderer import Mode
from msth_taichi.rendering.fast import FastRenderer
from msth_taichi.rendering.outputs import OUTPUTS
from msth_taichi.rendering.pictures import DepthRange, inverse_range
from msth_taichi.rendering.view import View
from msth_taichi.rendering.writers import over_black, to_uint8
from msth_taichi.scene.cameras import Cameras, perspective_camera
from msth_taichi.scene.normalize import SceneTransform
from msth_taichi.training.run import Run
from msth_taichi.viewer.requests import Request

_MOVING = np.array([255, 112, 0], np.float32)  # colour of masks below the threshold
_TINT = 0.7
_CHUNK_CPU = 2**12  # rays between two looks at whether a picture is still wanted


class Outdated(Exception):
    """Nobody wants the picture any more."""


def request_camera(request: Request, transform: SceneTransform, size: tuple[int, int]) -> Cameras:
    """The camera of a request, scene units, with an image of a size."""
    return perspective_camera(transform.apply_poses(request.pose), request.fov, size)


def render_request(
    run: Run,
    renderer: FastRenderer,
    request: Request,
    size: tuple[int, int],
    wanted: Callable[[], bool] = lambda: True,
) -> tuple[np.ndarray, DepthRange | None]:
    """The picture of a request.

    Args:
        run: whose scene it is.
        renderer: of its field.
        request: what is wanted.
        size: width and height of the picture, pixels.
        wanted: asked now and then; the picture is given up when it says no.
    Returns:
        (H, W, 3) uint8, as `msth render` writes it but for coloured masks; and the limits of depth's colours.
    Raises:
        Outdated: it is not wanted any more.
    """
    view = _View(run, renderer, request, size, wanted)
    output = OUTPUTS[request.output]
    values, limits = output.values(view), request.limits
    if request.output == "depth" and limits is None:
        limits = inverse_range(1.0 / values)
    picture = over_black(output.picture(values, limits))
    if request.output == "mask" and request.threshold > 0:
        picture = tinted(picture, values < request.threshold)
    return picture, limits


def tinted(picture: np.ndarray, where: np.ndarray) -> np.ndarray:
    """A picture (H, W, 3) uint8 with a colour laid over it where (H, W) is true."""
    laid = (1 - _TINT) * picture + _TINT * _MOVING
    return np.where(where[..., None], to_uint8(laid / 255), picture)


class _View(View):
    """What a request's camera sees, inside the crop alone."""

    def __init__(
        self, run: Run, renderer: FastRenderer, request: Request, size: tuple[int, int], wanted: Callable[[], bool]
    ):
        super().__init__(run, request_camera(request, run.scene.transform, size), 0, request.time)
        self._renderer, self._crop, self._wanted = renderer, request.crop, wanted

    def image(self, mode: Mode) -> dict[str, torch.Tensor]:
        if mode not in self._images:
            self._images[mode] = self._rendered(mode)
        return self._images[mode]

    def _rendered(self, mode: Mode) -> dict[str, torch.Tensor]:
        renderer = self._renderer
        width, height = self.cameras.size(0)
        camera = self.cameras.to(renderer.device)
        chunk = renderer.chunk() if renderer.device.type == "cuda" else _CHUNK_CPU

        def render(pixels: torch.Tensor) -> dict[str, torch.Tensor]:
            if not self._wanted():
                raise Outdated
            rays, behind = renderer.camera_rays(camera, pixels, self.time), None
            if self._crop is not None and rays.ndc is None:
                rays = cropped(rays, self._crop, self.run.scene.transform)
                behind = torch.zeros_like(rays.origins)
            return renderer.rays(rays, self.time, mode=mode, behind=behind)

        parts = in_parts(torch.arange(height * width, device=renderer.device), chunk, render)
        return {name: torch.cat([part[name] for part in parts]).unflatten(0, (height, width)) for name in parts[0]}


def cropped(rays: Rays, crop: np.ndarray, transform: SceneTransform) -> Rays:
    """Rays that begin and end where they cross a box; those that miss it are left with near = far.

    Args:
        rays: N rays in scene units.
        crop: (2, 3) corners, the user's coordinates.
        transform: from the user's coordinates to the scene's.
    """
    turn = torch.from_numpy(transform.rotation).to(rays.origins)
    low, high = (torch.from_numpy(transform.scale * (c + _moved(transform))).to(rays.origins) for c in crop)
    # in the user's axes, but in scene units, so that distances stay what they are
    origins, directions = rays.origins @ turn, rays.directions @ turn
    inverse = 1 / torch.where(directions.abs() < 1e-9, 1e-9, directions)
    a, b = (low - origins) * inverse, (high - origins) * inverse
    near = torch.maximum(torch.minimum(a, b).amax(1), rays.near).minimum(rays.far)
    far = torch.maximum(torch.minimum(torch.maximum(a, b).amin(1), rays.far), near)
    return replace(rays, near=near, far=far)


def _moved(transform: SceneTransform) -> np.ndarray:
    """(3,) the translation, in the user's axes."""
    return transform.rotation.T @ transform.translation
