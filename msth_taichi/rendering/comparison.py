"""A video that puts ground truth, render, mask and depth side by side."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from msth_taichi.model.renderer import render_image
from msth_taichi.rendering.paths import view_rows
from msth_taichi.rendering.pictures import comparison_panels, depth_range
from msth_taichi.rendering.target import target_image
from msth_taichi.rendering.writers import mosaic, save_image, write_video
from msth_taichi.scene.scene import Scene
from msth_taichi.training.run import Run

_PANEL_HEIGHT = 216  # pixels; smaller images are enlarged by a whole factor


def write_comparison(run: Run, scene: Scene, output: Path, progress: bool = True) -> Path:
    """Show the first held-out camera through its frames; the middle frame is saved as .png beside the video.

    Args:
        run: a trained run.
        scene: the same scene with frames.
        output: ends in .mp4.
        progress: show a bar.
    Returns:
        `output`.
    """
    images = scene.images("test")
    rows = next(iter(view_rows(images, scene.static_cameras).values()))
    images = images.select(rows.tolist())

    def frames() -> Iterator[np.ndarray]:
        limits = None
        bar = tqdm(images.read(), total=len(images), desc="comparison", disable=not progress, leave=False)
        for row, frame in enumerate(bar):
            image = render_image(run.model, scene.cameras, int(images.camera[row]), float(images.time[row]))
            limits = limits or depth_range(image["depth"])
            target = target_image(frame, run.config.rays.background).to(image["rgb"])
            panels = comparison_panels(image, target, limits)
            factor = max(1, _PANEL_HEIGHT // scene.cameras.height)
            picture = mosaic({k: v.repeat(factor, axis=0).repeat(factor, axis=1) for k, v in panels.items()})
            if row == len(images) // 2:
                save_image(output.with_suffix(".png"), picture)
            yield picture

    write_video(output, frames(), scene.fps)
    return output
