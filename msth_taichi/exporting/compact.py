"""A run as one small file, and what its rounding costs."""

from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from msth_taichi.errors import DataError, RunError
from msth_taichi.evaluation.comparison import target_image
from msth_taichi.evaluation.evaluate import scene_of
from msth_taichi.evaluation.metrics import psnr
from msth_taichi.exporting.model_file import SUFFIX, Bits, decode, encode, write_model_file
from msth_taichi.exporting.outputs import require_output
from msth_taichi.model.renderer import render_image
from msth_taichi.scene.scene import Images
from msth_taichi.training.checkpoint import load_parameters
from msth_taichi.training.run import Run, make_model, ready
from msth_taichi.training.segments import is_chain, segment_path

VIEWS = 8
"""Views that are rendered with both models."""


def export_compact(
    run: Run,
    output: Path,
    bits: Bits = 8,
    *,
    data: Path | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Write a run as one file that `load_run` opens, and measure what is lost.

    A few views, of held-out cameras where there are some, are rendered with the run and with what the file holds of
    it. Where the data set is at hand, both are compared with its pictures.

    Args:
        run: a trained run.
        output: ends in .safetensors.
        bits: 16 keeps tables in float16; 8 rounds them, see `msth_taichi.exporting.quantize`.
        data: the data set, where it has moved.
        overwrite: replace a file.
        progress: show a bar.
    Returns:
        bytes of the file and bytes_float32 of the run's parameters; views, how many were compared, and split, whose;
        psnr_to_run, dB, of the file's renders to the run's; psnr_run and psnr_file, dB to the pictures, and loss,
        their difference: None without pictures. All are means over views, and stand in the file as well but for its
        own size.
    Raises:
        RunError: unknown bits, a run of several segments, or a path that cannot be written.
        DataError: `data` is not the run's data set, or a picture of it cannot be decoded.

    Example:
        >>> export_compact(run, Path("demo.safetensors"))["loss"]
        0.004
    """
    if bits not in (16, 8):
        raise RunError(f"--bits {bits}: unknown; use 16 (float16) or 8")
    if is_chain(run.path):
        raise RunError(
            f"--to compact: {run.path} has several segments; export each, from {segment_path(run.path, 0)} on"
        )
    require_output(output, SUFFIX, overwrite)
    split, images = _views(run, data)
    tensors = encode(run.model, bits)
    model = make_model(run.config, run.scene, for_training=False)
    load_parameters(decode(tensors), model, output)
    device = next(run.model.parameters()).device
    rounded = Run(output, run.config, run.scene, ready(model, device), run.step)
    size = 4 * sum(parameter.numel() for parameter in run.model.parameters())
    frames = _pictures(images, required=data is not None)
    quality = {"bytes_float32": size, "split": split, **_compare(run, rounded, images, frames, progress)}
    write_model_file(output, run.config, run.scene, run.step, bits, tensors, quality)
    return {"bytes": output.stat().st_size, **quality}


def _views(run: Run, data: Path | None) -> tuple[str, Images]:
    """Views that are spread over the cameras and times of a split, with pictures if they are to be had."""
    split = run.config.evaluation.split
    split = split if len(run.scene.splits.get(split, ())) else "train"
    try:
        scene = scene_of(run, data)
    except DataError:
        if data is not None:
            raise
        scene = run.scene
    images = scene.images(split)
    rows = np.linspace(0, len(images) - 1, min(VIEWS, len(images))).round()
    return split, images.select(rows.astype(np.int64).tolist())


def _pictures(images: Images, required: bool) -> list[np.ndarray] | None:
    """Of the views; None where they are not to be had, as the file can do without."""
    if images.source is None:
        return None
    try:
        return list(images.read())
    except DataError:
        if required:
            raise
        return None


def _compare(run: Run, rounded: Run, images: Images, frames: list[np.ndarray] | None, progress: bool) -> dict[str, Any]:
    scores: dict[str, list[float]] = {"psnr_to_run": [], "psnr_run": [], "psnr_file": []}
    views = zip(images.camera.tolist(), images.time.tolist(), frames or repeat(None), strict=False)
    bar = tqdm(views, total=len(images), desc="compare", disable=None if progress else True, leave=False)
    for camera, time, frame in bar:
        one, other = (render_image(r.model, run.scene.cameras, camera, time)["rgb"] for r in (run, rounded))
        scores["psnr_to_run"].append(psnr(other, one))
        if frame is not None:
            for name, image in (("psnr_run", one), ("psnr_file", other)):
                target = target_image(frame, run.config.rays.behind, image, images.masked)
                scores[name].append(psnr(image, target))
    means = {name: float(np.mean(values)) if values else None for name, values in scores.items()}
    before, after = means["psnr_run"], means["psnr_file"]
    loss = None if before is None or after is None else before - after
    return {"views": len(images), **means, "loss": loss}
