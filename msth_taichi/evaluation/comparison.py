"""Renders beside the frames they should equal.

Letters: H, W image size.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from msth_taichi.rendering.paths import view_rows
from msth_taichi.rendering.pictures import DepthRange, as_array, depth_picture, depth_range
from msth_taichi.rendering.writers import mosaic, save_image, write_video
from msth_taichi.scene.scene import Scene
from msth_taichi.training.run import Run, run_image

Renders = Mapping[tuple[int, float], Mapping[str, torch.Tensor]]

_PANEL_HEIGHT = 216  # pixels; smaller images are enlarged by a whole factor
_BACKGROUND = {"white": 1.0, "random": 0.5}  # as RadianceField.background; black for the others


def target_image(frame: np.ndarray, background: str, render: torch.Tensor, masked: bool = False) -> torch.Tensor:
    """(H, W, 3) float32 in [0, 1]; straight alpha is composited on what is behind a render.

    Args:
        frame: (H, W, 3 or 4, and one more if masked) uint8.
        background: `rays.behind`.
        render: (H, W, 3), shown where pixels are to be ignored, so that they make no difference.
        masked: whether the last channel says which pixels count.
    """
    image = torch.tensor(frame).to(render.device).float() / 255
    if masked:
        return torch.where(image[..., -1:] > 0, target_image(frame[..., :-1], background, render), render)
    if image.shape[-1] == 3:
        return image
    color, alpha = image[..., :3], image[..., 3:]
    return color * alpha + _BACKGROUND.get(background, 0.0) * (1 - alpha)


def valid_pixels(frame: np.ndarray) -> torch.Tensor:
    """(H, W) bool, the pixels that count, of a frame whose last channel says so."""
    return torch.from_numpy(frame[..., -1] > 0)


def comparison_panels(
    image: Mapping[str, torch.Tensor], target: torch.Tensor, limits: DepthRange, error: bool = False
) -> dict[str, np.ndarray]:
    """Panels for `writers.mosaic`: ground truth, render, their difference if asked for, depth, mask.

    Args:
        image: from `render_image`.
        target: (H, W, 3) in [0, 1].
        limits: from `depth_range`.
        error: include 4 |render - ground truth|.
    """
    rgb = image["rgb"]
    panels = {"ground truth": as_array(target), "render": as_array(rgb)}
    if error:
        panels["error x 4"] = as_array((rgb - target).abs() * 4)
    return panels | {"mask": as_array(image["mask"]), "depth": depth_picture(image, limits)}


def write_comparison(
    run: Run, scene: Scene, output: Path, renders: Renders | None = None, progress: bool = True
) -> Path:
    """Show the first held-out camera through its frames; the middle frame is saved as .png beside the video.

    Args:
        run: a trained run.
        scene: the same scene with frames.
        output: ends in .mp4.
        renders: what was rendered before, by camera and time; the rest is rendered now.
        progress: show a bar.
    Returns:
        `output`.
    """
    images = scene.images("test")
    rows = next(iter(view_rows(images, scene.static_cameras).values()))
    images = images.select(rows.tolist())

    def frames() -> Iterator[np.ndarray]:
        limits = None
        bar = tqdm(images.read(), total=len(images), desc="comparison", disable=None if progress else True, leave=False)
        for row, frame in enumerate(bar):
            key = int(images.camera[row]), float(images.time[row])
            image = (renders or {}).get(key) or run_image(run, scene.cameras, *key)
            limits = limits or depth_range(image)
            target = target_image(frame, run.config.rays.behind, image["rgb"], images.masked)
            panels = comparison_panels(image, target, limits)
            factor = max(1, _PANEL_HEIGHT // len(target))
            picture = mosaic({k: v.repeat(factor, axis=0).repeat(factor, axis=1) for k, v in panels.items()})
            if row == len(images) // 2:
                save_image(output.with_suffix(".png"), picture)
            yield picture

    write_video(output, frames(), scene.fps)
    return output
