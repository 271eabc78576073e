"""What can be rendered: the numbers of each output, the picture of them, and what both mean.

Letters: H, W image size.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.functional import avg_pool2d, normalize, pad

from msth_taichi.config import Config
from msth_taichi.errors import RunError
from msth_taichi.model.uncertainty import U_MIN
from msth_taichi.rendering.pictures import DepthRange, as_array
from msth_taichi.rendering.view import View, render_uncertainty
from msth_taichi.rendering.writers import colorize, to_uint8
from msth_taichi.training.run import Moment, blended

Picture = Callable[[np.ndarray, DepthRange | None], np.ndarray]

_EDGE = 0.1  # relative step of depth from one pixel to the next that is the edge of a thing
_LEAST_ALPHA = 1e-3  # below it a colour is not told apart from what is behind it


@dataclass(frozen=True)
class Output:
    """One thing that a view shows.

    Attributes:
        values: its numbers, float32 (H, W) or (H, W, 3 or 4); NaN where there are none.
        meaning: what the numbers are, and their unit.
        picture: from the numbers, and the limits of depth's colours, to (H, W, 3 or 4) uint8.
        colors: what the colours of the picture say.
    """

    values: Callable[[View], np.ndarray]
    meaning: str
    picture: Picture = lambda values, limits: to_uint8(values)
    colors: str = "as they are"

    def describe(self, limits: DepthRange | None = None) -> dict[str, Any]:
        """Metadata of a picture, where `limits` are those of depth's colours."""
        return {"values": self.meaning, "colors": self.colors} | ({"limits": list(limits)} if limits else {})


def normals(view: View) -> np.ndarray:
    """(H, W, 3) unit normals of the rendered surface, in the data set's axes, towards the camera.

        n = mean of (p_right - p) x mean of (p_down - p)

    where p are the points that rays meet, and the means are over a window of some 1/40 of the image's height: a median
    depth is as coarse as the samples of a ray. Steps over the edge of a thing are left out. NaN where nothing is met.
    """
    points, directions = view.points()
    normal = torch.linalg.cross(_mean_step(points, view.depth, 1), _mean_step(points, view.depth, 0))
    normal = normalize(normal, dim=-1, eps=1e-30)
    normal = torch.where((normal * directions).sum(-1, keepdim=True) <= 0, normal, -normal)
    known = (normal.square().sum(-1) > 0.5) & view.depth.isfinite()
    return as_array(torch.where(known[..., None], normal, torch.nan))


def _mean_step(points: torch.Tensor, depth: torch.Tensor, axis: int) -> torch.Tensor:
    """(H, W, 3) mean difference to the next point along an axis, over a window; NaN where all of it is unknown."""
    size = [0, 0, 0, 0]
    size[3 - 2 * axis] = 1  # of the last row or column, which has no next one
    edge = depth.diff(dim=axis).abs() > _EDGE * depth.narrow(axis, 0, depth.shape[axis] - 1)
    step = points.diff(dim=axis).masked_fill(edge[..., None], torch.nan).permute(2, 0, 1)
    step = pad(step, size, value=torch.nan)
    reach = max(2, len(depth) // 80)
    known = step.isfinite()
    # the window's size divides both, and falls out
    total, count = (avg_pool2d(x[None], 2 * reach + 1, 1, reach)[0] for x in (step.nan_to_num(0.0), known.float()))
    return (total / count).permute(1, 2, 0)


def dynamic(view: View) -> np.ndarray:
    """(H, W, 4) colour and straight alpha of what moves: the background of the render is taken out again."""
    image = view.image("dynamic")
    alpha = image["accumulation"].float()[..., None]
    behind = view.run.model.background(1, mode="dynamic")
    assert behind is not None  # a dynamic render always has one
    color = (image["rgb"].float() - (1 - alpha) * behind) / alpha.clamp(min=_LEAST_ALPHA)
    color = torch.where(alpha > _LEAST_ALPHA, color, 0.0).clamp(0, 1)
    return as_array(torch.cat([color, alpha.clamp(0, 1)], -1))


def uncertainty(view: View) -> np.ndarray:
    """(H, W); see `render_uncertainty`."""

    def found(at: Moment) -> dict[str, torch.Tensor]:
        return {"uncertainty": render_uncertainty(at.run.model, view.cameras, view.index, at.time)}

    return as_array(blended(view.run.at(view.time), found)["uncertainty"])


def _depth_picture(depth: np.ndarray, limits: DepthRange | None) -> np.ndarray:
    assert limits is not None
    return colorize(1.0 / depth, *limits)


OUTPUTS: dict[str, Output] = {
    "rgb": Output(lambda view: as_array(view.image("full")["rgb"]), "sRGB in [0, 1]"),
    "depth": Output(
        lambda view: as_array(view.depth),
        "distance along the ray, units of the data set; nan: nothing",
        _depth_picture,
        "turbo of 1 / depth, from limits[0] (blue, far) to limits[1] (red, near); black: nothing",
    ),
    "accumulation": Output(
        lambda view: as_array(view.image("full")["accumulation"]), "opacity in [0, 1]", colors="grey, white: 1"
    ),
    "mask": Output(
        lambda view: as_array(view.image("full")["mask"]), "1: static, 0: moving", colors="grey, white: static"
    ),
    "static": Output(lambda view: as_array(view.image("static")["rgb"]), "sRGB in [0, 1] without what moves"),
    "dynamic": Output(
        dynamic,
        "sRGB in [0, 1] and straight alpha of what moves",
        colors="as they are; over black where a file has no alpha",
    ),
    "uncertainty": Output(
        uncertainty,
        f"standard deviation of a colour given the static part, at least {U_MIN}",
        lambda values, limits: colorize(np.log(values), math.log(U_MIN), 0.0),
        f"turbo of log(uncertainty), from {U_MIN} (blue) to 1 (red)",
    ),
    "normals": Output(
        normals,
        "unit normals towards the camera, axes of the data set; nan: nothing",
        lambda values, limits: to_uint8((values + 1) / 2),
        "red, green, blue: (x + 1) / 2, (y + 1) / 2, (z + 1) / 2; black: nothing",
    ),
}


def require_trained(outputs: tuple[str, ...], config: Config, compact: bool = False) -> None:
    """Make sure that a run can render what it is asked for.

    Args:
        outputs: names.
        config: of the run.
        compact: it is a model file, which holds what most renders need.
    Raises:
        RunError: uncertainty of a run that was trained without, or of a model file.
    """
    if "uncertainty" in outputs and compact:
        raise RunError("--outputs uncertainty: a compact model has none; leave it out, or give the run folder")
    if "uncertainty" in outputs and config.mask.objective != "uncertainty":
        raise RunError(
            "--outputs uncertainty: the run was trained without; leave it out, or train with "
            "--set mask.objective=uncertainty"
        )
    if "uncertainty" in outputs and config.field.blend == "add":
        raise RunError("--outputs uncertainty: blend 'add' has no mask to guide by one; leave it out")
