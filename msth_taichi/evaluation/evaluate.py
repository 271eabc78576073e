"""Held-out views against a run's renders: numbers, a page to read, pictures."""

from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from msth_taichi.errors import DataError, RunError
from msth_taichi.evaluation.curves import curves_svg
from msth_taichi.evaluation.gallery import Gallery
from msth_taichi.evaluation.kept import KeptFrames
from msth_taichi.evaluation.markdown import evaluation_page
from msth_taichi.evaluation.metrics import means
from msth_taichi.evaluation.perceptual import Perceptual, require_lpips
from msth_taichi.evaluation.protocol import protocol_of
from msth_taichi.evaluation.surfaces import MASK_BINS, MaskScores, depth_errors, mask_histogram, surface_mask
from msth_taichi.evaluation.views import ViewScores
from msth_taichi.files import write_json, write_text
from msth_taichi.rendering.paths import view_rows
from msth_taichi.rendering.pictures import as_array
from msth_taichi.scene.cameras import Cameras
from msth_taichi.scene.damage import without_what_was_left_out
from msth_taichi.scene.scene import Scene, load_scene
from msth_taichi.training.run import Moment, Run, blended, run_image
from msth_taichi.training.segments import chain_of


def evaluate(
    run: Run,
    scene: Scene,
    split: str | None = None,
    every: int | None = None,
    progress: bool = True,
    on_render: Callable[[int, float, dict[str, torch.Tensor]], None] | None = None,
    lpips: bool = False,
) -> dict[str, Any]:
    """Render the views of a split, compare them with their frames, and save the result in the run folder.

    Writes `eval/step-XXXXXXXX.json` (what is returned), the same as a page to read in `eval/step-XXXXXXXX.md`, and in
    the folder `eval/step-XXXXXXXX` its pictures: `psnr.svg`, curves over the frames; `NAME.png`, the first frame of
    each of at most 8 cameras; `worst/NAME-FRAME.png`, the worst frame of each of at most 8 views. Splits other than
    "test" add -SPLIT to the names.

    `docs/evaluation.md` says what the numbers are. `mask`, `depth_error` and `depth_error_relative` compare the field
    with the exact depth and motion of the built-in scene; elsewhere `mask` is None and the others are not there.
    `mask_histogram` counts the pixels of all renders whose mask lies in each of 32 even bins from 0 to 1.

    Args:
        run: a trained run.
        scene: the same scene with frames, as `scene_of(run)` loads it.
        split: "test", "val" or "train"; default: the run's `evaluation.split`.
        every: every n-th frame of each static camera, or every n-th image in the order of time where the
            cameras move; default: the run's `evaluation.every`.
        progress: show a bar.
        on_render: called with camera, time and `render_image`'s result for each frame that is compared.
        lpips: compute LPIPS as well, which needs the extra `lpips`.
    Raises:
        DataError: no such split, or an unreadable frame.
        RunError: LPIPS is wanted and the extra is not installed; or the weights of its networks cannot be had, which
            is said at the end, when all else is written.

    Example:
        >>> evaluate(run, scene)["psnr"]
        29.1
    """
    split = split or run.config.evaluation.split
    every = every or run.config.evaluation.every
    images = scene.images(split)
    names = scene.cameras.names
    rows = {
        names[camera] if scene.static_cameras else split: rows[::every]
        for camera, rows in view_rows(images, scene.static_cameras).items()
    }
    chosen = images.select(np.concatenate(list(rows.values())).tolist())
    device = next(run.model.parameters()).device
    perceptual, without_lpips = _perceptual(device) if lpips else (None, None)

    def render(row: int) -> dict[str, torch.Tensor]:
        return run_image(run, scene.cameras, int(chosen.camera[row]), float(chosen.time[row]))

    background, masked = run.config.rays.behind, chosen.masked
    views: dict[str, dict[str, Any]] = {}
    gallery = Gallery(background, masked)
    truth = MaskScores() if chosen.has_truth else None
    masks = np.zeros(MASK_BINS, np.int64)
    with tqdm(
        chosen.read(),
        total=len(chosen),
        desc=f"eval {split}",
        unit="image",
        disable=None if progress else True,
        leave=False,
    ) as bar:
        frames = enumerate(bar)
        for title, group in rows.items():
            kept = KeptFrames(chosen, lambda row: render(row)["rgb"])
            view = ViewScores(kept, background, masked, scene.static_cameras, perceptual)
            for row, frame in islice(frames, len(group)):
                camera, time = int(chosen.camera[row]), float(chosen.time[row])
                output = render(row)
                masks += mask_histogram(as_array(output["mask"]))
                if on_render:
                    on_render(camera, time, output)
                labels = {"name": names[camera], "frame": int(chosen.frame[row]), "time": time}
                scores = view.add(row, labels, output["rgb"], frame)
                if truth is not None:
                    exact = chosen.depth(row)
                    scores |= depth_errors(output["depth"], exact)
                    at_surface = _surface_mask(run, scene.cameras, camera, exact, time)
                    truth.add(at_surface, output["mask"], chosen.moving(row))
                gallery.look(scores, output, frame)
            gallery.end_view()
            views[title] = view.finish(device)

    page = page_path(run, split)
    folder = page.with_suffix("")
    pictures = {"curves": f"{folder.name}/psnr.svg", **gallery.write(folder)}
    result = {
        "step": run.step,
        **means([frame for view in views.values() for frame in view["frames"]]),
        "mask": None if truth is None else truth.result(),
        "mask_histogram": masks.tolist(),
        "views": views,
        "pictures": pictures,
        "protocol": protocol_of(run, scene, split, every, views),
    }
    write_text(page.parent / pictures["curves"], _curves(result))
    write_json(page.with_suffix(".json"), result)
    write_text(page, evaluation_page(result))
    if without_lpips is not None:
        raise RunError(f"{without_lpips}; all other metrics are in {page}")
    return result


def page_path(run: Run, split: str | None = None) -> Path:
    """Where `evaluate` writes its page; the json lies beside it, the pictures in a folder of the same name.

    Example:
        >>> page_path(load_run("runs/demo"))
        PosixPath('runs/demo/eval/step-00001100.md')
    """
    split = split or run.config.evaluation.split
    return run.results / "eval" / f"step-{run.step:08d}{'' if split == 'test' else f'-{split}'}.md"


def scene_of(run: Run, data: Path | None = None) -> Scene:
    """The data set a run was trained on, with its frames; without those that the training left out as damaged.

    Args:
        run: its scene says where the data set was.
        data: where it is now, if it has moved.
    Raises:
        DataError: not there, or another data set.
    """
    if (chain := chain_of(run.path)) is not None:
        raise DataError(f"{run.path}: is a segment, whose frames are not those of a data set; give the run {chain}")
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
    return without_what_was_left_out(scene, saved)


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


def _surface_mask(run: Run, cameras: Cameras, camera: int, exact: np.ndarray, time: float) -> torch.Tensor:
    def mask(at: Moment) -> dict[str, torch.Tensor]:
        return {"mask": surface_mask(at.run.model, cameras, camera, exact, at.time)}

    return blended(run.at(time), mask)["mask"]


def _perceptual(device: torch.device) -> tuple[Perceptual | None, RunError | None]:
    """LPIPS, or why it cannot be had: no reason to lose what else there is to measure."""
    require_lpips()
    try:
        return Perceptual(device), None
    except RunError as error:
        return None, error


def _curves(result: Mapping[str, Any]) -> str:
    protocol = result["protocol"]
    return curves_svg(
        f"{protocol['data']}, step {result['step']}: PSNR as rendered",
        "frame",
        "PSNR (dB)",
        {name: [(f["frame"], f["psnr"]) for f in view["frames"]] for name, view in result["views"].items()},
    )
