"""A run along a camera path, as videos, previews, images or numbers.

Each frame is rendered for itself and kept in a work folder beside the output (`rendering.work`); files are assembled
once all frames are there. So a render that was stopped goes on where it was, and several processes can share it.

Letters: F frames of the path.
"""

import errno
import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
from av.error import FFmpegError
from tqdm import tqdm

import msth_taichi
from msth_taichi.errors import RunError
from msth_taichi.files import unwritable
from msth_taichi.rendering.formats import FORMATS, Format
from msth_taichi.rendering.frame_files import is_whole, load_frame, require_exr, save_frame
from msth_taichi.rendering.outputs import OUTPUTS, require_trained
from msth_taichi.rendering.paths import CameraPath
from msth_taichi.rendering.pictures import DepthRange, inverse_range
from msth_taichi.rendering.shards import Shard
from msth_taichi.rendering.view import View
from msth_taichi.rendering.work import WorkFolder, frame_name, move_frames
from msth_taichi.rendering.writers import (
    Metadata,
    mosaic,
    over_black,
    read_metadata,
    require_codec,
    write_animation,
    write_video,
)
from msth_taichi.training.checkpoint import checkpoint_path
from msth_taichi.training.run import Run

MOSAIC = "mosaic"
WORK = ".work"

_LARGEST = 16384  # pixels along an edge
_WRITERS = 4  # threads that encode frames while the next is rendered
_WAITING = 8  # frames that writers may lie behind the renderer
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}  # after which no other frame can be written either


def _ignore(frames: int) -> None:
    pass


@dataclass(frozen=True)
class Request:
    """What is rendered of each frame, and how it is written.

    Args:
        outputs: names from `OUTPUTS`.
        format: a name from `FORMATS`.
        codec: of mp4: "h264" or "h265".
        mosaic: one file with the outputs side by side under their names, rather than one of each.
        scale: image size as a multiple of the path's cameras'.
    Raises:
        RunError: unknown output, format or codec, or one that cannot be written here.
    """

    outputs: tuple[str, ...] = ("rgb",)
    format: str = "mp4"
    codec: str = "h264"
    mosaic: bool = False
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise RunError(f"--format {self.format}: unknown format; use {', '.join(FORMATS)}")
        unknown = [name for name in self.outputs if name not in OUTPUTS]
        if unknown or not self.outputs:
            raise RunError(f"--outputs: unknown output '{', '.join(unknown)}'; choose from {', '.join(OUTPUTS)}")
        if self.format == "mp4":
            require_codec(self.codec)
        elif self.codec != "h264":
            raise RunError(f"--codec {self.codec}: is for --format mp4, not {self.format}; leave it out")
        if self.format == "exr":
            require_exr()
        if self.mosaic and self.kind.numbers:
            raise RunError(
                f"--mosaic: pictures side by side, not numbers; leave it out or replace --format {self.format}"
            )

    @property
    def kind(self) -> Format:
        """The format."""
        return FORMATS[self.format]

    @property
    def names(self) -> list[str]:
        """Of the files: the outputs, each once, or "mosaic"."""
        return [MOSAIC] if self.mosaic else list(dict.fromkeys(self.outputs))

    def files(self, output: Path) -> dict[str, Path]:
        """File or folder by name: of one the path itself, of several with -NAME before the suffix.

        Raises:
            RunError: the suffix is not the format's.
        """
        suffix = self.kind.suffix
        if suffix and output.suffix.lower() != suffix:
            other = next((name for name, kind in FORMATS.items() if kind.suffix == output.suffix.lower() != ""), "png")
            raise RunError(
                f"--output {output}: the name of {self.format} ends in {suffix}; use {output.stem}{suffix} or "
                f"--format {other}"
            )
        if len(self.names) == 1:
            return {self.names[0]: output}
        return {name: output.with_name(f"{output.stem}-{name}{output.suffix}") for name in self.names}


@dataclass(frozen=True)
class Plan:
    """A render that has been checked and can begin.

    Attributes:
        path: its cameras have the size of the images.
        request: what is rendered.
        files: by name; see `Request.files`.
        work: where frames wait.
        job: stands for the run and all settings: frames and files that carry it need not be rendered again.
    """

    path: CameraPath
    request: Request
    files: dict[str, Path]
    work: WorkFolder
    job: str

    def size(self, frame: int) -> tuple[int, int]:
        """Width and height of a frame's files."""
        width, height = self.path.cameras.size(int(self.path.camera[frame]))
        if not self.request.mosaic:
            return width, height
        blank = np.zeros((height, width, 3), np.uint8)
        return mosaic(dict.fromkeys(self.request.outputs, blank)).shape[1::-1]

    def frame(self, name: str, index: int) -> Path:
        """The file in which a frame waits."""
        return self.work.folder(name) / frame_name(index, self.request.kind.frame)

    def metadata(self, name: str, limits: DepthRange | None) -> Metadata:
        """What the files of a name say of themselves."""
        outputs = self.request.outputs if name == MOSAIC else (name,)
        if self.request.kind.numbers:
            found = {key: {"values": OUTPUTS[key].meaning} for key in outputs}
        else:
            found = {key: OUTPUTS[key].describe(limits if key == "depth" else None) for key in outputs}
        described = found.get(name, {"panels": found})
        return {"output": name, **described, "job": self.job}

    def unfinished(self) -> list[str]:
        """Names whose file or folder is not there, or not of this job."""
        return [name for name, file in self.files.items() if not self._is_finished(file)]

    def _is_finished(self, file: Path) -> bool:
        kind = self.request.kind
        if not kind.suffix:
            frames = range(len(self.path))
            return all(is_whole(file / frame_name(k, kind.frame), self.size(k), self.job) for k in frames)
        return file.is_file() and read_metadata(file).get("job") == self.job


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
    request = Request(tuple(outputs), format, codec, mosaic, scale)
    require_trained(request.outputs, run.config)
    plan = make_plan(path, request, output, run_digest(run.path, run.step), overwrite)
    with tqdm(total=len(path), desc="render", unit="frame", disable=None if progress else True) as bar:
        outcome = render_plan(lambda: run, plan, advance=bar.update)
    if outcome.failures:
        raise RunError(f"{output}: {outcome.describe()}")
    return outcome.files


def run_digest(run: Path, step: int | None = None) -> str:
    """Hash of what a run's images depend on: parameters of a checkpoint, settings, scene.

    Raises:
        RunError: no such checkpoint, or a file that cannot be read.
    """
    digest = hashlib.sha256(msth_taichi.__version__.encode())
    for file in (checkpoint_path(run, step) / "model.safetensors", run / "config.toml", run / "scene.json"):
        try:
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        except OSError as error:
            raise RunError(f"{file}: cannot be read ({error.strerror}); restore it or train again") from error
    return digest.hexdigest()


def make_plan(path: CameraPath, request: Request, output: Path, digest: str, overwrite: bool = False) -> Plan:
    """Check all that can be known before the first frame is rendered.

    Args:
        path: from `make_path`.
        request: what is rendered.
        output: see `render_path`.
        digest: from `run_digest`.
        overwrite: replace what exists.
    Raises:
        RunError: a scale or sizes that cannot be written, or something else is where a file belongs.
    """
    files = request.files(output)
    path = _scaled(path, request)
    plan = Plan(path, request, files, WorkFolder(output.with_name(output.name + WORK)), _job(path, request, digest))
    if plan.work.job() not in (None, plan.job) and not overwrite:
        raise RunError(
            f"{plan.work.path}: frames of another render that was not finished; pass --overwrite to discard them or "
            "choose another --output"
        )
    if plan.work.job() is None and not overwrite:
        for name in plan.unfinished():
            file = files[name]
            if any(file.iterdir()) if file.is_dir() and not request.kind.suffix else file.exists():
                raise RunError(f"{file}: already exists; pass --overwrite to replace it or choose another --output")
    return plan


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


def _scaled(path: CameraPath, request: Request) -> CameraPath:
    """The path with cameras of the size of the images."""
    scale, kind = request.scale, request.kind
    used = path.cameras.sizes[np.unique(path.camera)]
    panels = len(request.outputs) if request.mosaic else 1
    largest = _LARGEST / max(int(used[:, 0].max()) * panels, int(used[:, 1].max()))
    if not 0 < scale <= largest:
        raise RunError(f"--scale {scale:g}: out of range; use a number above 0 and at most {largest:.3g}, such as 0.5")
    cameras = path.cameras.scaled(scale)
    sizes = sorted({cameras.size(k) for k in np.unique(path.camera).tolist()})
    if kind.suffix and len(sizes) > 1:
        found = ", ".join(f"{width}x{height}" for width, height in sizes)
        raise RunError(f"--format {request.format}: the path's cameras have sizes {found}; use --format png")
    return replace(path, cameras=cameras)


def _job(path: CameraPath, request: Request, digest: str) -> str:
    """Hash of all that decides what the files hold."""
    cameras = path.cameras
    job = hashlib.sha256(digest.encode())
    for tensor in (cameras.camera_to_world, cameras.intrinsics, cameras.distortion, cameras.lens, cameras.sizes):
        job.update(tensor.cpu().contiguous().numpy().tobytes())
    job.update(path.camera.tobytes() + path.time.tobytes())
    job.update(json.dumps([path.fps, asdict(request)]).encode())
    return job.hexdigest()


def _view(run: Run, plan: Plan, frame: int) -> View:
    path = plan.path
    return View(run, path.cameras, int(path.camera[frame]), float(path.time[frame]))


def _depth_limits(run: Run, plan: Plan) -> DepthRange | None:
    """Limits of depth's colours: from the first frame, or the first that can be rendered; None if there are none."""
    if "depth" not in plan.request.outputs or plan.request.kind.numbers:
        return None
    for frame in range(len(plan.path)):
        try:
            return inverse_range(1.0 / OUTPUTS["depth"].values(_view(run, plan, frame)))
        except Exception:  # it is told when the frame's own turn comes
            continue
    return 0.0, 1.0


def _render_frames(
    run: Run, plan: Plan, names: list[str], limits: DepthRange | None, frames: range, advance: Callable[[int], object]
) -> dict[int, str]:
    """Render those of the frames that are missing; what went wrong, by frame."""
    failures: dict[int, str] = {}
    waiting: deque[tuple[int, Future[None]]] = deque()

    def settle(count: int) -> None:
        """Wait until at most `count` frames are being written."""
        while len(waiting) > count:
            frame, done = waiting.popleft()
            error = done.exception()
            if error is not None and getattr(error.__cause__ or error, "errno", None) in _FULL:
                raise error
            if error is not None:
                failures[frame] = _reason(error)
            advance(1)

    with ThreadPoolExecutor(_WRITERS) as pool:
        for frame in frames:
            if all(is_whole(plan.frame(name, frame), plan.size(frame), plan.job) for name in names):
                advance(1)
                continue
            try:
                view = _view(run, plan, frame)
                values = {key: OUTPUTS[key].values(view) for key in dict.fromkeys(plan.request.outputs)}
            except Exception as error:  # whatever it is, the other frames may do without
                failures[frame] = _reason(error)
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


def _reason(error: BaseException) -> str:
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
    if file.is_dir():
        raise RunError(f"{file}: is a folder; remove it or choose another --output")
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
