"""From what a user asks for to a training that runs: what can be wrong is found before the first step. And what follows
the last one: a comparison with held-out views, and the report."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

from msth_taichi.config import Config, load_config, load_preset, preset_names
from msth_taichi.errors import ConfigError, RunError
from msth_taichi.evaluation.evaluate import evaluate, page_path, require_same_cameras
from msth_taichi.kernels import runtime
from msth_taichi.rendering.paths import view_rows
from msth_taichi.scene.damage import warn_of_damage, without_damage
from msth_taichi.scene.decoding import decode
from msth_taichi.scene.scene import Scene, load_scene
from msth_taichi.tracking.evaluation import show_evaluation
from msth_taichi.tracking.report import try_report
from msth_taichi.tracking.visualizer import Visualizers, parse_names
from msth_taichi.training.checkpoint import checkpoint_path, checkpoint_steps
from msth_taichi.training.long import require_same_steps, train_segments
from msth_taichi.training.meeting import first_says, has_written
from msth_taichi.training.record import Record
from msth_taichi.training.run import Run, read_scene, require_free
from msth_taichi.training.segments import cut_frames, frame_times, is_chain, read_cut, segment_path
from msth_taichi.training.team import Team, join
from msth_taichi.training.trainer import Beginning, train

LAST_IMAGES = 8
"""Held-out images that are compared after the last step, at most, or one of each view if there are more views."""


def start_training(
    data: str,
    output: Path,
    *,
    preset: str | None = None,
    steps: int | None = None,
    settings: list[str] | None = None,
    arch: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
    vis: str = "none",
    viewer_address: tuple[str, int] = ("127.0.0.1", 8080),
    segment_frames: int | None = None,
    parallel_segments: bool = False,
) -> Run:
    """Train `data` into the run folder `output`; then compare a few held-out images, and write the report.

    A video of more than `segment_frames` frames becomes a `Chain` of segments, each with such a comparison and report.

    Args:
        data: path of a data set, or "demo".
        preset: required unless resuming, when the settings come from the run folder.
        steps: replaces training.steps; the only setting that may change on resuming.
        settings: overrides such as "training.rays_per_step=512".
        arch: "auto", "cpu" or "cuda".
        vis: what shows the training: "none", "tensorboard", "wandb", "viewer", or several joined by commas.
        viewer_address: host and port that the viewer listens on.
        segment_frames: frames of a segment at most; None for one field whatever the length.
        parallel_segments: all segments but the first begin from the first, and processes share them out.
    Raises:
        MsthError: a wrong setting, data set, device or run folder; nothing has been written then.
    """
    if parallel_segments and segment_frames is None and not resume:
        raise ConfigError("--parallel-segments shares out the segments of a long video: give --segment-frames too")
    # torchrun began again after a process had died: from the last checkpoint, with the settings of the run
    left = first_says("left", ("a checkpoint" if _reached(output) else "a beginning") if has_written() else "nothing")
    if left == "a checkpoint":
        preset, settings, resume, overwrite = None, None, True, False
        segment_frames, parallel_segments = None, False
    elif left == "a beginning":
        overwrite = True
    leads = int(os.environ.get("RANK", "0")) == 0
    given = {"viewer": {"host": viewer_address[0], "port": viewer_address[1]}}
    record, visualizers = Record(preset), Visualizers(parse_names(vis) if leads else [], given)
    overrides = (settings or []) + ([f"training.steps={steps}"] if steps is not None else [])
    if resume:
        if preset or settings:
            raise ConfigError(
                f"--resume takes its settings from {output}/config.toml; beside it only --steps may be given"
            )
        if overwrite:
            raise ConfigError("--resume continues what is at --output and --overwrite replaces it; give one of them")
        if segment_frames is not None or parallel_segments:
            given = "--segment-frames" if segment_frames is not None else "--parallel-segments"
            raise ConfigError(f"--resume goes on with the segments of {output}; leave {given} out")
        checkpoint_path(_first(output))
        config = load_config(output / "config.toml", overrides)
        if is_chain(output):
            require_same_steps(output, config.training.steps, load_config(output / "config.toml").training.steps)
        elif config.training.steps < (reached := checkpoint_steps(output)[-1]):
            raise ConfigError(
                f"training.steps={config.training.steps}: {output} is at step {reached}; give --steps more"
            )
    else:
        if leads:
            require_free(output, overwrite)
            _require_writable(output)
        if preset is None:
            raise ConfigError(f"--preset is missing; choose one of {', '.join(preset_names())}")
        config = load_preset(preset, overrides)
    # before the data: the built-in scene is made by kernels and would start Taichi on a device of its choice
    device = runtime.init(arch, threads=config.training.threads)  # type: ignore[arg-type] init checks the name
    scene = load_scene(data, config.data)
    if resume:
        require_same_cameras(scene, read_scene(output), output)
    _require_split(scene, config)
    if leads:
        scene = _check_held_out(scene, record)

    team = join(device)

    def train_one(
        scene: Scene,
        config: Config,
        path: Path,
        *,
        resume: bool,
        team: Team,
        beginning: Beginning | None = None,
        on_begin: Callable[[], None] | None = None,
        record: Record | None = None,
        overwrite: bool = True,
    ) -> Run:
        record = Record(preset) if record is None else record
        try:
            run = train(
                scene,
                config,
                path,
                arch=arch,
                resume=resume,
                overwrite=overwrite,
                progress=leads,
                on_evaluation=lambda run: _evaluate(run, visualizers),
                visualizers=visualizers,
                record=record,
                team=team,
                beginning=beginning,
                on_begin=on_begin,
            )
            if team.leads and run.step == config.training.steps:
                _finish(run, visualizers, record)
        finally:
            visualizers.close()
        return run

    cut = read_cut(output) if resume and is_chain(output) else None
    if segment_frames is not None:
        cut = cut_frames(frame_times(scene), segment_frames, parallel_segments)
    if cut is None or len(cut.segments) == 1:
        return train_one(scene, config, output, resume=resume, team=team, record=record, overwrite=overwrite)
    return train_segments(scene, config, output, cut, train_one, arch=arch, resume=resume, team=team)


def _first(output: Path) -> Path:
    """The run folder of the field that is trained first."""
    return segment_path(output, 0) if is_chain(output) else output


def _reached(output: Path) -> bool:
    """Whether there is something to go on with."""
    return bool(checkpoint_steps(_first(output)))


def _evaluate(run: Run, visualizers: Visualizers) -> None:
    """Compare what is held out; a segment may have nothing of it."""
    if run.config.evaluation.split in run.scene.splits:
        show_evaluation(visualizers, run, evaluate(run, run.scene))


def _require_split(scene: Scene, config: Config) -> None:
    """Raise ConfigError if training is to be interrupted for comparisons with nothing."""
    split, every = config.evaluation.split, config.training.eval_every
    if every and split not in scene.splits:
        raise ConfigError(
            f"training.eval_every={every}: '{scene.name}' has no '{split}' split to compare with; use 0, or set "
            f"evaluation.split to one of {', '.join(scene.splits)}"
        )


def _finish(run: Run, visualizers: Visualizers, record: Record) -> None:
    """Compare a few held-out images, unless this step was evaluated, and write the report. The training is done by
    now, so that whatever goes wrong is no more than a warning."""
    settings, scene = run.config.evaluation, run.scene
    try:
        if settings.split in scene.splits and not page_path(run).is_file():
            views = view_rows(scene.images(settings.split), scene.static_cameras).values()
            each = max(1, LAST_IMAGES // len(views))
            every = max(settings.every, *(-(-len(rows) // each) for rows in views))
            show_evaluation(visualizers, run, evaluate(run, scene, every=every))
            record.lap("evaluation")
            record.write(run.path, next(run.model.parameters()).device)
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        print(f"warning: the held-out views were not compared ({reason}); try: msth eval {run.path}", file=sys.stderr)
    try_report(run)


def _require_writable(output: Path) -> None:
    """Raise RunError if the folder that `output` will be in is none, or is closed to us."""
    parent = next(folder for folder in output.absolute().parents if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise RunError(f"{output}: {parent} is not a folder that can be written to; choose another --output")


def _check_held_out(scene: Scene, record: Record) -> Scene:
    """Decode the frames that training does not read, and leave out damaged ones: they are better found now than by
    the evaluation."""
    if scene.path is None:
        return scene
    for split, images in scene.splits.items():
        if split != "train":
            damage = decode(images, lambda row, frame: None, f"checking {split}")
            warn_of_damage(damage)
            record.damaged[split] = len(damage)
            scene = without_damage(scene, split, damage)
    return scene
