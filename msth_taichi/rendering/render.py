"""A run along a camera path, as videos, previews, images or numbers.

Each frame is rendered for itself and kept in a work folder beside the output (`rendering.work`); files are assembled
once all frames are there. So a render that was stopped goes on where it was, and several processes can share it.
"""

import errno
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from av.error import FFmpegError
from tqdm import tqdm

from msth_taichi.errors import RunError
from msth_taichi.files import unwritable
from msth_taichi.rendering.frame_files import is_whole, load_frame, save_frame
from msth_taichi.rendering.outputs import OUTPUTS, require_trained
from msth_taichi.rendering.paths import CameraPath
from msth_taichi.rendering.pictures import DepthRange, inverse_range
from msth_taichi.rendering.plan import MOSAIC, Plan, Request, make_plan, run_digest
from msth_taichi.rendering.shards import Shard
from msth_taichi.rendering.view import StillViews, View
from msth_taichi.rendering.work import move_frames
from msth_taichi.rendering.writers import mosaic, over_black, write_animation, write_video
from msth_taichi.training.run import Run

_WRITERS = 4  # threads that encode frames while the next is rendered
_WAITING = 8  # frames that writers may lie behind the renderer
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}  # after which no other frame can be written either


def _ignore(frames: int) -> None:
    pass


@dataclass
class Outcome:
    """What became of a plan.

    Attributes:
        files: that are finished; empty while frames are missing.
        failures: what went wrong, by frame.
    """

    files: list[Path] = field(default_factory=list)
    failures: dict[int, str] = field(default_factory=dict)

    def describe(self) -> str:
        """The failures in one line."""
        first = "; ".join(f"frame {frame}: {reason}" for frame, reason in sorted(self.failures.items())[:3])
        count = "1 frame" if len(self.failures) == 1 else f"{len(self.failures)} frames"
        return f"{count} failed ({first}); the others are kept, run it again to render these"


def render_path(
    run: Run,
    path: CameraPath,
    outputs: Sequence[str] = ("rgb",),
    *,
    output: Path,
    scale: float = 1.0,
    format: str = "mp4",
    codec: str = "h264",
    mosaic: bool = False,
    still: float | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> list[Path]:
    """Render every view of a path and write one file, or one folder of files, per output.

    Depth is drawn by inverse depth, near red, far blue and nothing black, between the limits of the first frame. What
    an earlier call rendered of the same is not rendered again.

    Args:
        run: a trained run; its data set is not needed.
        path: from `make_path`.
        outputs: names from `OUTPUTS`.
        output: of one output the very file or folder; of several, -NAME goes before the suffix.
        scale: image size as a multiple of the path's cameras'.
        format: a file: "mp4", "webp", "gif"; a folder of frame_00000.png, frame_00001.png, ...: "png" or, numbers
            rather than pictures, "npz" and "exr".
        codec: of mp4: "h264" or "h265".
        mosaic: one file with the outputs side by side under their names.
        still: see `Request`.
        overwrite: replace what exists.
        progress: show a bar.
    Returns:
        What was written, in the order of `outputs`.
    Raises:
        RunError: a request that cannot be met, a file that exists or cannot be written, or frames that failed; the
            others are kept.

    Example:
        >>> render_path(run, make_path(run.scene, "spiral"), ["rgb", "depth"], output=Path("spiral.mp4"))
        [PosixPath('spiral-rgb.mp4'), PosixPath('spiral-depth.mp4')]
    """
    request = Request(tuple(outputs), format, codec, mosaic, scale, still)
    require_trained(request.outputs, run.config, compact=run.path.is_file())
    plan = make_plan(path, request, output, run_digest(run.path, run.step), overwrite)
    with tqdm(total=len(path), desc="render", unit="frame", disable=None if progress else True) as bar:
        outcome = render_plan(lambda: run, plan, advance=bar.update)
    if outcome.failures:
        raise RunError(f"{output}: {outcome.describe()}")
    return outcome.files


def render_plan(
    open_run: Callable[[], Run], plan: Plan, shard: Shard | None = None, advance: Callable[[int], object] = _ignore
) -> Outcome:
    """Render the frames that are missing, and assemble the files once none is.

    An exception ends its frame alone, a full disk all. Of several processes, the one that finds all frames there
    assembles the files.

    Args:
        open_run: gives the run that `plan.job` stands for; called if anything is to be rendered.
        plan: from `make_plan`.
        shard: which of the frames; default: all.
        advance: called with 1 for each frame that is dealt with.
    Raises:
        RunError: a file cannot be written; what has been rendered is kept.
    """
    frames = (shard or Shard()).frames(len(plan.path))
    if not plan.unfinished():
        plan.work.remove()
        advance(len(frames))
        return Outcome(list(plan.files.values()))
    run = open_run()
    try:
        with plan.work.lock():
            if plan.work.job() != plan.job and plan.unfinished():
                plan.work.begin(plan.job, _depth_limits(run, plan))
            names, limits = plan.unfinished(), plan.work.limits()
        outcome = Outcome(failures=_render_frames(run, plan, names, limits, frames, advance))
        with plan.work.lock():
            if not outcome.failures:
                _finish(plan, outcome, frames)
    except OSError as error:
        raise unwritable(Path(error.filename or plan.work.path), error) from error
    return outcome


def _views(run: Run, plan: Plan) -> Callable[[int], View]:
    """Views by the number of the frame."""
    path, still = plan.path, plan.request.still
    stills = None if still is None else StillViews(run, path, still)
    return lambda frame: View(run, path.cameras, int(path.camera[frame]), float(path.time[frame]), stills)


def _depth_limits(run: Run, plan: Plan) -> DepthRange | None:
    """Limits of depth's colours: from the first frame, or the first that can be rendered; None if there are none."""
    if "depth" not in plan.request.outputs or plan.request.kind.numbers:
        return None
    view = _views(run, plan)
    for frame in range(len(plan.path)):
        try:
            return inverse_range(1.0 / OUTPUTS["depth"].values(view(frame)))
        except Exception:  # it is told when the frame's own turn comes
            continue
    return 0.0, 1.0


def _render_frames(
    run: Run, plan: Plan, names: list[str], limits: DepthRange | None, frames: range, advance: Callable[[int], object]
) -> dict[int, str]:
    """Render those of the frames that are missing; what went wrong, by frame."""
    failures: dict[int, str] = {}
    view_of = _views(run, plan)
    waiting: deque[tuple[int, Future[None]]] = deque()

    def settle(count: int) -> None:
        """Wait until at most `count` frames are being written."""
        while len(waiting) > count:
            frame, done = waiting.popleft()
            error = done.exception()
            if error is not None and getattr(error.__cause__ or error, "errno", None) in _FULL:
                raise error
            if error is not None:
                failures[frame] = reason_of(error)
            advance(1)

    with ThreadPoolExecutor(_WRITERS) as pool:
        for frame in frames:
            if all(is_whole(plan.frame(name, frame), plan.size(frame), plan.job) for name in names):
                advance(1)
                continue
            try:
                view = view_of(frame)
                values = {key: OUTPUTS[key].values(view) for key in dict.fromkeys(plan.request.outputs)}
            except Exception as error:  # whatever it is, the other frames may do without
                failures[frame] = reason_of(error)
                advance(1)
                continue
            waiting.append((frame, pool.submit(_save, plan, names, frame, values, limits)))
            settle(_WAITING)
        settle(0)
    return failures


def _save(plan: Plan, names: list[str], index: int, values: dict[str, np.ndarray], limits: DepthRange | None) -> None:
    request = plan.request
    images = values
    if not request.kind.numbers:
        images = {key: OUTPUTS[key].picture(numbers, limits) for key, numbers in values.items()}
    if request.mosaic or not request.kind.alpha:
        images = {key: over_black(image) for key, image in images.items()}
    if request.mosaic:
        images = {MOSAIC: mosaic(images)}
    for name in names:
        save_frame(plan.frame(name, index), images[name], plan.metadata(name, limits))


def reason_of(error: BaseException) -> str:
    """One line; of what was not raised on purpose with its kind."""
    text = " ".join(str(error).split())
    return text if isinstance(error, RunError) else f"{type(error).__name__}: {text}"


def _finish(plan: Plan, outcome: Outcome, own: range) -> None:
    """Assemble all files, unless frames of other processes are missing; called with the lock held."""
    names = plan.unfinished()
    if names and plan.work.job() != plan.job:
        return  # another job has begun in its place
    for name in names:
        for index in sorted(set(range(len(plan.path))) - set(own)):
            if not is_whole(plan.frame(name, index), plan.size(index), plan.job):
                return
    for name in names:
        _assemble(plan, name)
    plan.work.remove()
    outcome.files = list(plan.files.values())


def _assemble(plan: Plan, name: str) -> None:
    """One file or folder from its frames, under a name in the work folder first."""
    request, file, fps = plan.request, plan.files[name], plan.path.fps
    if not request.kind.suffix:
        move_frames(plan.work.folder(name), file, request.kind.frame)
        return
    made, metadata = plan.work.path / file.name, plan.metadata(name, plan.work.limits())
    try:
        if request.format == "mp4":
            write_video(made, _pictures(plan, name), fps, request.codec, metadata)
        else:
            write_animation(made, _pictures(plan, name), fps, metadata)
    except FFmpegError as error:
        raise unwritable(file, error) from error
    made.replace(file)


def _pictures(plan: Plan, name: str) -> Iterator[np.ndarray]:
    for index in range(len(plan.path)):
        yield load_frame(plan.frame(name, index))[0]
