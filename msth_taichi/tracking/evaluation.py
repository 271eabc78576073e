"""An evaluation on its way to the visualizers."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from msth_taichi.evaluation.evaluate import page_path
from msth_taichi.tracking.visualizer import Visualizers
from msth_taichi.training.run import Run

_SCORES = ("psnr", "ssim", "psnr_affine", "psnr_dynamic", "psnr_temporal", "depth_error")
_WIDTH = 1920  # pixels that a picture has at most
_WORST = 2


def show_evaluation(visualizers: Visualizers, run: Run, result: Mapping[str, Any]) -> None:
    """Show the scores of an evaluation, the first frame of each camera and the worst frames.

    Args:
        visualizers: nothing is read from disk where there are none.
        run: that was evaluated.
        result: of `evaluate`.
    """
    if not visualizers:
        return
    scores = {f"eval/{key}": result[key] for key in _SCORES if result.get(key) is not None}
    visualizers.scalars(run.step, scores)
    pictures = result["pictures"]
    files = {f"eval/{name}": file for name, file in pictures["first"].items()}
    files |= {f"worst/{place}": worst["file"] for place, worst in enumerate(pictures["worst"][:_WORST], 1)}
    folder = page_path(run, result["protocol"]["split"]).parent
    visualizers.images(run.step, {name: _read(folder / file) for name, file in files.items()})


def _read(file: Any) -> np.ndarray:
    with Image.open(file) as image:
        image.thumbnail((_WIDTH, _WIDTH))
        return np.asarray(image.convert("RGB"))
