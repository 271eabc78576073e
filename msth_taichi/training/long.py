"""Training of a long video: one segment after the other, or the later ones shared out over processes.

The first segment is trained for longer than any other run, since the others use what it learns: they begin with the
parameters of a trained one but its masks, on a time axis of their own, and static tables, colours and poses of cameras
stay those of the first.
"""

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import torch

from msth_taichi.config import Config
from msth_taichi.errors import ConfigError
from msth_taichi.files import empty
from msth_taichi.scene.scene import Scene
from msth_taichi.training.bounds import with_bounds
from msth_taichi.training.chain import Chain, load_chain
from msth_taichi.training.checkpoint import steps_reached, write_shared
from msth_taichi.training.run import Run, make_model, read_config, write_run
from msth_taichi.training.segments import (
    SHARED,
    Cut,
    part_of,
    require_same_cameras_throughout,
    segment_path,
    write_cut,
)
from msth_taichi.training.team import Team
from msth_taichi.training.trainer import Beginning, require_trainable

LONGER = 1.5
"""Steps of the first segment in those of any other. With as many, later segments were up to 0.3 dB worse than models of
their own, which train their static table for themselves: docs/long_videos.md."""


class TrainOne(Protocol):
    """Trains one segment into a run folder of its own."""

    def __call__(
        self,
        scene: Scene,
        config: Config,
        path: Path,
        *,
        resume: bool,
        team: Team,
        beginning: Beginning | None,
        on_begin: Callable[[], None] | None,
    ) -> Run: ...


def train_segments(
    scene: Scene,
    config: Config,
    output: Path,
    cut: Cut,
    train_one: TrainOne,
    *,
    arch: str = "auto",
    resume: bool = False,
    team: Team | None = None,
) -> Chain:
    """Train the segments of a scene that are not trained yet.

    Frames of one segment are held at a time, and the model of one. Stops early when `train_one` does; what comes after
    the segment that it stopped in is then not there.

    Args:
        scene: the whole video, with frames.
        config: settings of each segment, steps too; the first takes `LONGER` times as many.
        output: run folder; replaced, unless resuming.
        cut: the segments.
        train_one: such as `train`, overwriting what is there.
        arch: "auto", "cpu" or "cuda".
        resume: go on with what is there.
        team: processes that share the rays of a segment; where the cut is `parallel`, only those of the first, and
            then the segments.
    Raises:
        MsthError: as `train`.
    """
    team = team or Team()
    require_same_cameras_throughout(scene, cut, config.cameras)
    for segment in cut.segments:
        require_trainable(part_of(scene, segment), config)
    config = with_bounds(config, scene)
    # segments must agree on bounds, or they could not share a table
    each = config.model_copy(update={"rays": config.rays.model_copy(update={"bounds": "settings"})})
    first, shared = _longer(each), output / SHARED

    def write() -> None:
        if not resume:
            empty(output)
        write_run(output, config, scene)
        write_cut(output, cut)

    def trained(number: int, start: int | None, team: Team, on_begin: Callable[[], None] | None = None) -> bool:
        """Train a segment if it is not yet; whether it is now."""
        path = segment_path(output, number)
        reached = steps_reached(path) if resume else 0
        # a segment that was begun keeps to its own number
        own = read_config(path) if reached else (each if number else first)
        if reached == own.training.steps:
            return True
        beginning = None if start is None or reached else Beginning(segment_path(output, start), shared)
        part = part_of(scene, cut.segments[number])
        run = train_one(part, own, path, resume=bool(reached), team=team, beginning=beginning, on_begin=on_begin)
        done = run.step == own.training.steps
        del run
        _free_memory()
        return done

    if trained(0, None, team, write):
        if team.leads and not shared.is_file():
            part = part_of(scene, cut.segments[0])
            write_shared(shared, segment_path(output, 0), make_model(each, part))
        team.wait()  # until it is written
        alone = Team()
        for number in range(1, len(cut.segments)):
            if not cut.parallel:
                done = trained(number, number - 1, team)
            else:
                done = (number - 1) % team.size != team.rank or trained(number, 0, alone)
            if not done:
                break
    team.wait()  # until all are trained
    return load_chain(output, arch=arch, unfinished=True)


def _longer(config: Config) -> Config:
    """The settings of the first segment: its schedule is stretched as well."""
    training = config.training
    stretched = {
        name: round(LONGER * steps)
        for name, steps in (("steps", training.steps), ("schedule_steps", training.schedule_steps))
        if steps is not None
    }
    return config.model_copy(update={"training": training.model_copy(update=stretched)})


def require_same_steps(output: Path, asked: int, steps: int) -> None:
    """Raise ConfigError if a run of segments is to be resumed with another number of steps."""
    if asked != steps:
        raise ConfigError(
            f"training.steps={asked}: the segments of {output} share what the first one learnt in {steps} steps; leave "
            "--steps out, or train again"
        )


def _free_memory() -> None:
    """Give back what a training took, cycles of objects too, before the next one asks for as much."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
