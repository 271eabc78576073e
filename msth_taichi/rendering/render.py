"""A run along a camera path, as videos or images."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import Full, Queue

import numpy as np
from tqdm import tqdm

from msth_taichi.errors import RunError
from msth_taichi.model.renderer import Mode, render_image
from msth_taichi.rendering.paths import CameraPath
from msth_taichi.rendering.pictures import as_array, depth_picture, depth_range
from msth_taichi.rendering.writers import write_images, write_video
from msth_taichi.training.run import Run

# output -> how it is rendered, and which of the renderer's images it is
OUTPUTS: dict[str, tuple[Mode, str]] = {
    "rgb": ("full", "rgb"),
    "depth": ("full", "depth"),
    "mask": ("full", "mask"),
    "accumulation": ("full", "accumulation"),
    "static": ("static", "rgb"),
    "dynamic": ("dynamic", "rgb"),
}
FORMATS = ("mp4", "png")

_LARGEST = 16384  # pixels along an edge
_WAITING = 4  # frames that a writer may lie behind the renderer

Write = Callable[[Iterator[np.ndarray]], object]


def render_path(
    run: Run,
    path: CameraPath,
    outputs: Sequence[str] = ("rgb",),
    *,
    output: Path,
    scale: float = 1.0,
    format: str = "mp4",
    overwrite: bool = False,
    progress: bool = True,
) -> list[Path]:
    """Render every view of a path and write one video, or one folder of images, per output.

    Depth is drawn by inverse depth, near red, far blue and nothing black, between the limits of the first frame.

    Args:
        run: a trained run; its data set is not needed.
        path: from `make_path`.
        outputs: names from `OUTPUTS`.
        output: of one output the very file (mp4) or folder (png); of several, -NAME goes before the suffix.
        scale: image size as a multiple of the path's cameras'.
        format: "mp4", or "png" for a folder of frame_00000.png, frame_00001.png, ...
        overwrite: replace what exists.
        progress: show a bar.
    Returns:
        What was written, in the order of `outputs`.
    Raises:
        RunError: unknown output or format, a bad scale, or a file that exists or cannot be written.

    Example:
        >>> render_path(run, make_path(run.scene, "spiral"), ["rgb", "depth"], output=Path("spiral.mp4"))
        [PosixPath('spiral-rgb.mp4'), PosixPath('spiral-depth.mp4')]
    """
    cameras = path.cameras
    largest = _LARGEST / int(cameras.sizes.max())
    if not 0 < scale <= largest:
        raise RunError(f"--scale {scale:g}: out of range; use a number above 0 and at most {largest:.3g}, such as 0.5")
    files = output_files(output, outputs, format, overwrite)
    cameras = cameras.scaled(scale)
    modes: set[Mode] = {OUTPUTS[name][0] for name in files}
    limits = None
    with ExitStack() as stack:
        writers = {name: stack.enter_context(_running(_writer(file, format, path.fps))) for name, file in files.items()}
        views = zip(path.camera.tolist(), path.time.tolist(), strict=True)
        bar = tqdm(views, total=len(path), desc="render", unit="frame", disable=None if progress else True)
        for camera, time in bar:
            images = {mode: render_image(run.model, cameras, camera, time, mode=mode) for mode in modes}
            for name, put in writers.items():
                mode, key = OUTPUTS[name]
                if name == "depth":
                    limits = limits or depth_range(images[mode])
                    put(depth_picture(images[mode], limits))
                else:
                    put(as_array(images[mode][key]))
    return list(files.values())


def output_files(output: Path, outputs: Sequence[str], format: str, overwrite: bool) -> dict[str, Path]:
    """The file or folder of each output.

    Raises:
        RunError: unknown output or format, or something is there already and `overwrite` is off.
    """
    if format not in FORMATS:
        raise RunError(f"--format {format}: unknown format; use mp4 or png")
    unknown = [name for name in outputs if name not in OUTPUTS]
    if unknown or not outputs:
        raise RunError(f"--outputs: unknown output '{', '.join(unknown)}'; choose from {', '.join(OUTPUTS)}")
    if format == "mp4" and output.suffix.lower() != ".mp4":
        raise RunError(f"--output {output}: a video's name ends in .mp4; use {output.name}.mp4 or --format png")
    names = list(dict.fromkeys(outputs))
    if len(names) == 1:
        files = {names[0]: output}
    else:
        files = {name: output.with_name(f"{output.stem}-{name}{output.suffix}") for name in names}
    for file in files.values():
        taken = any(file.iterdir()) if file.is_dir() and format == "png" else file.exists()
        if taken and not overwrite:
            raise RunError(f"{file}: already exists; pass --overwrite to replace it or choose another --output")
    return files


def _writer(file: Path, format: str, fps: float) -> Write:
    return lambda frames: write_video(file, frames, fps) if format == "mp4" else write_images(file, frames)


@contextmanager
def _running(write: Write) -> Iterator[Callable[[np.ndarray], None]]:
    """Run a writer, which takes frames from an iterator, beside the renderer, which hands them to a function.

    A failure on either side ends the other, so that no half-written file stays.
    """
    queue: Queue[np.ndarray | BaseException | None] = Queue(_WAITING)

    def frames() -> Iterator[np.ndarray]:
        while (item := queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    def put(item: np.ndarray | BaseException | None, done: Future) -> None:
        while not done.done():
            try:
                return queue.put(item, timeout=0.2)
            except Full:
                continue
        done.result()  # a writer that ends before its frames do has failed

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(write, frames())
        try:
            yield lambda frame: put(frame, done)
        except BaseException:
            if not done.done():
                put(RunError("rendering stopped"), done)
            raise
        put(None, done)
        done.result()
