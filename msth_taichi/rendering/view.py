"""One frame of a path, before it is a picture.

Letters: H, W image size; N rays, S samples per ray.
"""

from functools import cached_property
from pathlib import Path

import torch

from msth_taichi.model.parts import in_parts
from msth_taichi.model.renderer import Mode, RadianceField
from msth_taichi.model.uncertainty import rendered_uncertainty
from msth_taichi.ops.rays import generate_rays
from msth_taichi.rendering.paths import CameraPath
from msth_taichi.rendering.still import StillView
from msth_taichi.scene.cameras import Cameras
from msth_taichi.training.run import Moment, Run, blended


class View:
    """What a camera sees at a time; each mode is rendered when it is first asked for, and once.

    Args:
        run: a trained run.
        cameras: in scene units.
        index: which of them.
        time: in [0, 1].
        stills: of these cameras, where what does not move is rendered once.

    Example:
        >>> View(run, run.scene.cameras, 0, time=0.5).image("static")["rgb"].shape
        torch.Size([96, 128, 3])
    """

    def __init__(self, run: Run, cameras: Cameras, index: int, time: float, stills: "StillViews | None" = None):
        self.run, self.cameras, self.index, self.time = run, cameras, index, time
        self._stills = stills
        self._images: dict[Mode, dict[str, torch.Tensor]] = {}

    def image(self, mode: Mode) -> dict[str, torch.Tensor]:
        """See `FastRenderer.image`."""
        if mode not in self._images:
            if self._stills is None:
                self._images[mode] = self.run.renderer.image(self.cameras, self.index, self.time, mode=mode)
            else:
                self._images[mode] = self._stills.image(self.index, self.time, mode)
        return self._images[mode]

    @cached_property
    def depth(self) -> torch.Tensor:
        """(H, W) distance along the ray, in the data set's units; NaN where less than half of a ray is absorbed, and
        its median depth means nothing."""
        image = self.image("full")
        return torch.where(image["accumulation"] >= 0.5, image["depth"].float(), torch.nan) / self._scale

    @torch.no_grad()
    def points(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Where rays end, (H, W, 3), and their unit directions (H, W, 3), in the data set's units and axes, but seen
        from the scene's origin."""
        camera = self.cameras.select([self.index]).to(self.depth.device)
        height, width = self.depth.shape
        pixels = torch.arange(height * width, device=self.depth.device)
        centres = torch.stack([pixels % width, pixels // width], dim=1).float() + 0.5
        origins, directions = generate_rays(
            centres,
            torch.zeros_like(pixels, dtype=torch.int32),
            camera.camera_to_world,
            camera.intrinsics,
            camera.distortion,
            camera.lens,
        )
        turn = torch.from_numpy(self.run.scene.transform.rotation).to(directions)
        directions = directions @ turn
        points = origins @ turn / self._scale + directions * self.depth.view(-1, 1)
        return points.view(height, width, 3), directions.view(height, width, 3)

    @property
    def _scale(self) -> float:
        return self.run.scene.transform.scale


class StillViews:
    """Cameras of a path that stand still; see `StillView`.

    Args:
        run: a trained run.
        path: whose cameras return.
        threshold: masks below it move.
    """

    def __init__(self, run: Run, path: CameraPath, threshold: float):
        self._run, self._path, self._threshold = run, path, threshold
        self._views: dict[tuple[int, Path, Mode], StillView] = {}

    def image(self, index: int, time: float, mode: Mode) -> dict[str, torch.Tensor]:
        """The frame of a camera at a time; see `StillView.image`."""
        moments = self._run.at(time)
        here = {at.run.path for at in moments}
        # a path shows one camera after the other, and a long video one segment after the other
        self._views = {key: view for key, view in self._views.items() if key[0] == index and key[1] in here}
        return blended(moments, lambda at: self._view(at, index, mode).image(at.time))

    def _view(self, at: Moment, index: int, mode: Mode) -> StillView:
        key = index, at.run.path, mode
        if key not in self._views:
            self._views[key] = StillView(at.run.renderer, self._path.cameras, index, self._threshold, mode)
        return self._views[key]


@torch.no_grad()
def render_uncertainty(model: RadianceField, cameras: Cameras, index: int, time: float) -> torch.Tensor:
    """How unsure the static part of a field is of what each pixel shows; see `model.uncertainty`.

    Args:
        model: trained with mask.objective "uncertainty".
        cameras: in scene units.
        index: which of them.
        time: in [0, 1].
    Returns:
        (H, W) standard deviation of a colour.
    """
    assert model.uncertainty is not None
    field = model.uncertainty.field
    device = model.field.encoding.mask_logits.device
    camera = cameras.select([index]).to(device)
    width, height = camera.size(0)
    near = model.config.rays.near_render or model.config.rays.near

    def render(part: torch.Tensor) -> torch.Tensor:
        times = torch.full((len(part),), float(time), device=device)
        rays = model.rays(camera, torch.zeros_like(part), part // width, part % width, times, near)
        seen = model(rays, background=model.background(len(part))).levels[-1]
        u = field(model.space.on_rays(rays, seen.t_edges))
        return rendered_uncertainty(seen.weights, u, field.u_min)

    parts = in_parts(torch.arange(height * width, device=device), model.config.evaluation.chunk, render)
    return torch.cat(parts).view(height, width)
