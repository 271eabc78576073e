"""The built-in scene from training to a video: a check that all works, and a picture of what it does."""

import time
from collections.abc import Iterator
from pathlib import Path

from msth_taichi.evaluation.comparison import write_comparison
from msth_taichi.evaluation.evaluate import evaluate
from msth_taichi.evaluation.report import evaluation_lines
from msth_taichi.scene.scene import load_scene
from msth_taichi.tracking.report import try_report
from msth_taichi.training.start import start_training


def run_demo(output: Path, *, steps: int | None = None, arch: str = "auto", overwrite: bool = False) -> Iterator[str]:
    """Train, evaluate and render the built-in scene; yield lines that tell what came out.

    Args:
        output: run folder to create; its `renders/comparison.mp4` shows ground truth, render, mask and depth.
        steps: default: the preset's.
        arch: "auto", "cpu" or "cuda".
        overwrite: replace an existing folder.
    Raises:
        MsthError: as `start_training`.
    """
    start = time.monotonic()
    run = start_training("demo", output, preset="demo", steps=steps, arch=arch, overwrite=overwrite)
    if run.step < run.config.training.steps:
        yield f"stopped at step {run.step}; continue with: msth train demo --output {output} --resume"
        return
    scene = load_scene("demo", run.config.data)
    renders = {}
    result = evaluate(run, scene, on_render=lambda camera, time, image: renders.update({(camera, time): image}))
    yield from evaluation_lines(result)
    if report := try_report(run):
        yield f"report   {report}"
    video = write_comparison(run, scene, output / "renders" / "comparison.mp4", renders)
    yield f"video    {video}  (ground truth, render, mask, depth)"
    yield f"run      {output}"
    yield f"took {(time.monotonic() - start) / 60:.1f} minutes"
