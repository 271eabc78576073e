"""What is to be rendered, checked before the first frame is."""

import hashlib
import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

import msth_taichi
from msth_taichi.errors import RunError
from msth_taichi.rendering.formats import FORMATS, Format
from msth_taichi.rendering.frame_files import is_whole, require_exr
from msth_taichi.rendering.outputs import OUTPUTS
from msth_taichi.rendering.paths import CameraPath
from msth_taichi.rendering.pictures import DepthRange
from msth_taichi.rendering.work import WorkFolder, frame_name
from msth_taichi.rendering.writers import CODECS, Metadata, mosaic, read_metadata, require_codec
from msth_taichi.training.run import run_files

MOSAIC = "mosaic"
WORK = ".work"

_LARGEST = 16384  # pixels along an edge


@dataclass(frozen=True)
class Request:
    """What is rendered of each frame, and how it is written.

    Args:
        outputs: names from `OUTPUTS`.
        format: a name from `FORMATS`.
        codec: of mp4: "h264" or "h265".
        mosaic: one file with the outputs side by side under their names, rather than one of each.
        scale: image size as a multiple of the path's cameras'.
        still: of cameras that stand still, render only what crosses masks below this again; None renders all.
    Raises:
        RunError: unknown output, format or codec, or one that cannot be written here.
    """

    outputs: tuple[str, ...] = ("rgb",)
    format: str = "mp4"
    codec: str = "h264"
    mosaic: bool = False
    scale: float = 1.0
    still: float | None = None

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise RunError(f"--format {self.format}: unknown format; use {', '.join(FORMATS)}")
        unknown = [name for name in self.outputs if name not in OUTPUTS]
        if unknown or not self.outputs:
            raise RunError(f"--outputs: unknown output '{', '.join(unknown)}'; choose from {', '.join(OUTPUTS)}")
        if self.still is not None and not 0 < self.still <= 1:
            raise RunError(f"--still {self.still:g}: out of range; use a mask above 0 and at most 1, such as 0.9")
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
        other = next((name for name, kind in FORMATS.items() if kind.suffix == output.suffix.lower() != ""), None)
        if not suffix and other is not None:
            raise RunError(
                f"--output {output}: is the name of {other}, but {self.format} is a folder of frames; use "
                f"{output.stem} or --format {other}"
            )
        if suffix and output.suffix.lower() != suffix:
            raise RunError(
                f"--output {output}: the name of {self.format} ends in {suffix}; use {output.stem}{suffix} or "
                f"--format {other or 'png'}"
            )
        if len(self.names) == 1:
            return {self.names[0]: output}
        stem, end = (output.stem, output.suffix) if suffix else (output.name, "")
        return {name: output.with_name(f"{stem}-{name}{end}") for name in self.names}


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


def run_digest(run: Path, step: int | None = None) -> str:
    """Hash of what a run's images depend on: parameters of checkpoints, settings, scene; or of a whole model file.

    Raises:
        RunError: no such checkpoint, or a file that cannot be read.
    """
    digest = hashlib.sha256(msth_taichi.__version__.encode())
    for file in run_files(run, step):
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
    if output.name in ("", ".."):  # to which no suffix can be added
        output = output.resolve()
    if not output.name:
        raise RunError(f"--output {output}: has no name; give that of a file or folder in it")
    files = request.files(output)
    if request.still is not None and len(np.unique(path.camera)) == len(path.camera) > 1:
        raise RunError("--still: no camera of this path stands still; leave it out, or use --path test:0 or the like")
    path = _scaled(path, request)
    plan = Plan(path, request, files, WorkFolder(output.with_name(output.name + WORK)), _job(path, request, digest))
    if request.format == "mp4" and min(plan.size(0)) < (least := CODECS[request.codec].least):
        width, height = plan.size(0)
        raise RunError(
            f"--codec {request.codec}: takes no images of {width}x{height}, only from {least}x{least} on; leave it "
            "out, or raise --scale or --size"
        )
    if (most := request.kind.most) is not None and max(plan.size(0)) > most:
        width, height = plan.size(0)
        raise RunError(
            f"--format {request.format}: holds no pictures of {width}x{height}, at most {most} pixels along an edge; "
            "use --format png, or lower --scale or --size"
        )
    unfinished = plan.unfinished()
    for name in unfinished:
        _require_place(files[name], folder=not request.kind.suffix)
    if unfinished:
        _require_place(plan.work.path, folder=True)
    if plan.work.job() not in (None, plan.job) and not overwrite:
        raise RunError(
            f"{plan.work.path}: frames of another render that was not finished; pass --overwrite to discard them or "
            "choose another --output"
        )
    if plan.work.job() is None and not overwrite:
        for name in unfinished:
            file = files[name]
            if any(file.iterdir()) if file.is_dir() and not request.kind.suffix else file.exists():
                raise RunError(f"{file}: already exists; pass --overwrite to replace it or choose another --output")
    return plan


def _require_place(place: Path, folder: bool) -> None:
    """Make sure that a file or a folder can have this name."""
    lowest = place.absolute() if folder else place.absolute().parent
    there = next(path for path in (lowest, *lowest.parents) if os.path.lexists(path))
    if not there.is_dir():
        raise RunError(f"{there}: is no folder; remove it or choose another --output")
    if not os.access(there, os.W_OK | os.X_OK):
        raise RunError(f"{there}: cannot be written; change its permissions or choose another --output")
    if not folder and place.is_dir():
        raise RunError(f"{place}: is a folder; remove it or choose another --output")


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
