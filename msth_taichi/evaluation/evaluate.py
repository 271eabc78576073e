"""Held-out views against a run's renders, with the protocol beside the numbers.

Published figures of one method differ by their SSIM convention, choice of frames or near plane alone, so each
result file states all of these.

Letters: H, W image size; M points.
"""

import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

import msth_taichi
from msth_taichi.errors import DataError
from msth_taichi.evaluation import metrics
from msth_taichi.evaluation.comparison import comparison_panels, target_image
from msth_taichi.files import write_json
from msth_taichi.model.renderer import render_image
from msth_taichi.rendering.paths import view_rows
from msth_taichi.rendering.pictures import depth_range
from msth_taichi.rendering.writers import mosaic, save_image
from msth_taichi.scene.cameras import Cameras
from msth_taichi.scene.scene import Images, Scene, load_scene
from msth_taichi.scene.sources import IMAGE_SUFFIXES
from msth_taichi.training.run import Run

MOSAICS = 8
_PLACE = ("name", "frame", "time")  # which image it was; all else in a frame's row is a metric


def evaluate(
    run: Run,
    scene: Scene,
    split: str | None = None,
    every: int | None = None,
    progress: bool = True,
    on_render: Callable[[int, float, dict[str, torch.Tensor]], None] | None = None,
) -> dict[str, Any]:
    """Render the views of a split, compare them with their frames, and save the result in the run folder.

    Writes `eval/step-XXXXXXXX.json` (what is returned) and, for the first frame of each of at most 8 cameras,
    `eval/step-XXXXXXXX/NAME.png`: ground truth, render, error times 4, mask, depth. Splits other than "test"
    add -SPLIT to the names.

    Where the scene knows its exact depth and motion, `mask` holds the mean of the field's mask m (1 = static)
    at the points that pixel centres see, over static and over moving surfaces.

    Args:
        run: a trained run.
        scene: the same scene with frames, as `scene_of(run)` loads it.
        split: "test", "val" or "train"; default: the run's `evaluation.split`.
        every: every n-th frame of each static camera, or every n-th image in the order of time where the
            cameras move; default: the run's `evaluation.every`.
        progress: show a bar.
        on_render: called with camera, time and `render_image`'s result for each frame that is compared.
    Raises:
        DataError: no such split, or an unreadable frame.

    Example:
        >>> evaluate(run, scene)["psnr"]
        29.1
    """
    split = split or run.config.evaluation.split
    every = every or run.config.evaluation.every
    images = scene.images(split)
    rows = [rows[::every] for rows in view_rows(images, scene.static_cameras).values()]
    chosen = images.select(np.concatenate(rows).tolist())
    suffix = "" if split == "test" else f"-{split}"
    folder = run.path / "eval" / f"step-{run.step:08d}{suffix}"

    views: dict[str, list[dict[str, Any]]] = {}
    pictures: dict[str, np.ndarray] = {}
    surfaces: list[tuple[torch.Tensor, torch.Tensor]] = []
    bar = tqdm(
        chosen.read(),
        total=len(chosen),
        desc=f"eval {split}",
        unit="image",
        disable=None if progress else True,
        leave=False,
    )
    for row, frame in enumerate(bar):
        camera, time = int(chosen.camera[row]), float(chosen.time[row])
        output = render_image(run.model, scene.cameras, camera, time)
        if on_render:
            on_render(camera, time, output)
        target = target_image(frame, run.config.rays.background, output["rgb"], chosen.masked)
        name = scene.cameras.names[camera]
        view = name if scene.static_cameras else split
        views.setdefault(view, []).append(
            {
                "name": name,
                "frame": int(chosen.frame[row]),
                "time": time,
                **metrics.image_metrics(output["rgb"], target),
            }
        )
        if name not in pictures and len(pictures) < MOSAICS:
            pictures[name] = mosaic(comparison_panels(output, target, depth_range(output), error=True))
        if chosen.has_truth:
            surfaces.append(_surface_mask(run, scene.cameras, chosen, row))

    result = {
        "step": run.step,
        **_means([frame for frames in views.values() for frame in frames]),
        "mask": _mask_means(surfaces) if surfaces else None,
        "views": {name: {**_means(frames), "frames": frames} for name, frames in views.items()},
        "protocol": _protocol(run, scene, split, every, views),
    }
    for name, picture in pictures.items():
        save_image(folder / f"{_file_stem(name)}.png", picture)
    write_json(folder.with_name(f"{folder.name}.json"), result)
    return result


def scene_of(run: Run, data: Path | None = None) -> Scene:
    """The data set a run was trained on, with its frames.

    Args:
        run: its scene says where the data set was.
        data: where it is now, if it has moved.
    Raises:
        DataError: not there, or another data set.
    """
    saved = run.scene
    if saved.format == "synthetic" and data is None:
        counts = {split: len(torch.unique(saved.images(split).camera)) for split in saved.splits}
        width, height = saved.cameras.size(0)
        options = {
            "cameras": counts["train"],
            "test_cameras": counts["test"],
            "frames": saved.num_frames,
            "width": width * run.config.data.downscale,
            "height": height * run.config.data.downscale,
        }
        return load_scene("synthetic:" + ",".join(f"{k}={v}" for k, v in options.items()), run.config.data)
    where = data or saved.path
    if data is None and not (saved.path and saved.path.exists()):
        raise DataError(f"{where}: the data set of {run.path} is not there; say where it is with --data PATH")
    assert where is not None
    scene = load_scene(where, run.config.data)
    require_same_cameras(scene, saved, run.path)
    return scene


def require_same_cameras(scene: Scene, saved: Scene, run: Path) -> None:
    """Make sure that a data set is the one that the scene.json of a run describes.

    Raises:
        DataError: its cameras, their image size or the number of times differ.
    """
    new, old = scene.cameras, saved.cameras
    if (
        (new.names, scene.num_frames) != (old.names, saved.num_frames)
        or not torch.equal(new.sizes, old.sizes)
        or not torch.allclose(new.camera_to_world, old.camera_to_world, atol=1e-4)
    ):
        raise DataError(
            f"{scene.path or scene.name}: its cameras are not those of {run}; give the data set the run was trained on"
        )


def _file_stem(name: str) -> str:
    """A camera's name as a file's: images/000.jpg becomes images_000."""
    path = Path(name)
    return str(path.with_suffix("") if path.suffix.lower() in IMAGE_SUFFIXES else path).replace("/", "_")


def _surface_mask(run: Run, cameras: Cameras, images: Images, row: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The mask at the surfaces that the pixel centres of an image see, (M,), and whether they move, (M,)."""
    device = next(run.model.parameters()).device
    depth = torch.from_numpy(images.depth(row)).flatten().to(device)
    pixels = torch.arange(len(depth), device=device)
    cameras = cameras.select([int(images.camera[row])]).to(device)
    camera, time = torch.zeros_like(pixels), torch.zeros_like(depth)
    width, _ = cameras.size(0)
    rays = run.model.rays(cameras, camera, pixels // width, pixels % width, time)
    mask = run.model.mask(rays.origins + rays.directions * depth[:, None])
    return mask.cpu(), torch.from_numpy(images.moving(row)).flatten()


def _mask_means(surfaces: list[tuple[torch.Tensor, torch.Tensor]]) -> dict[str, float | None]:
    mask, moving = (torch.cat(column) for column in zip(*surfaces, strict=True))
    static, dynamic = (m.mean().item() if len(m) else None for m in (mask[~moving], mask[moving]))
    difference = None if static is None or dynamic is None else static - dynamic
    return {"static": static, "moving": dynamic, "difference": difference}


def _means(frames: list[dict[str, Any]]) -> dict[str, float | None]:
    return metrics.aggregate([{k: v for k, v in frame.items() if k not in _PLACE} for frame in frames])


def _protocol(run: Run, scene: Scene, split: str, every: int, views: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    rays = run.config.rays
    sizes = scene.cameras.sizes[scene.images(split).camera].unique(dim=0).tolist()
    device = next(run.model.parameters()).device
    return {
        "data": scene.name,
        "split": split,
        "every": every,
        "views": list(views),
        "images": sum(map(len, views.values())),
        "resolution": sizes[0] if len(sizes) == 1 else sizes,
        "near": rays.near_render or rays.near,
        "background": rays.background,
        "color": "sRGB values in [0, 1] as stored; renders clamped, no colour correction per camera",
        "ignored": "pixels that a mask leaves out are taken from the render" if scene.images(split).masked else "none",
        "psnr": "10 log10(1 / MSE) per image, then the mean; psnr_pooled is of the mean MSE",
        "ssim": "11 x 11 Gaussian, sigma 1.5, data range 1; ssim2: data range 2; ms_ssim: five scales",
        "d_ssim": "(1 - ssim) / 2; d_ssim2: (1 - ssim2) / 2; d_ms_ssim: (1 - ms_ssim) / 2",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU {platform.machine()}",
        "versions": {
            "msth_taichi": msth_taichi.__version__,
            "torch": torch.__version__,
            "taichi": version("taichi"),
        },
    }
