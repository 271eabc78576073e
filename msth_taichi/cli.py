"""The `msth` command: parses, calls the library, prints. Heavy imports wait until a verb needs them.

Exit status: 0 done (or stopped on request with a checkpoint), 1 `check` found errors in a data set or `render` could
not render all frames, 2 an error the user can mend, told in one line.
"""

import os
import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer

import msth_taichi
from msth_taichi.errors import MsthError

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Videos of moving scenes into radiance fields that render from any camera at any time.",
)

Arch = Annotated[str, typer.Option(help="auto, cpu or cuda; auto takes CUDA where torch sees a GPU.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is at --output.")]
Run = Annotated[Path, typer.Argument(help="A run folder of msth train, or a model file of msth export.")]
ViewerHost = Annotated[
    str, typer.Option(help="Address that the viewer listens on; whoever can reach it can look and save paths.")
]
ViewerPort = Annotated[int, typer.Option(min=0, max=65535, help="The viewer's port; 0 for any that is free.")]


# click's UsageError, wherever it lives: newer versions of typer carry a copy of click and do not import it
_USAGE_ERRORS: tuple[type[Exception], ...] = tuple(
    kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "UsageError"
)


def main() -> None:
    """Entry point of the console script."""
    # torch's CPU threads spin while they wait, which beside any other busy program costs a factor of two
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    arguments = sorted(sys.argv[1:], key=lambda argument: argument != "--debug")  # --debug may stand anywhere
    try:
        status = app(arguments or ["--help"], prog_name="msth", standalone_mode=False)
    except typer.Abort:
        sys.exit(130)
    except Exception as error:
        message = _remedy(error)
        if message is None:
            raise
        sys.stdout.flush()
        if "--debug" in arguments:
            traceback.print_exception(error)
        print("error:", " ".join(message.split()), file=sys.stderr)
        sys.exit(2)
    sys.exit(status if isinstance(status, int) else 0)


def _remedy(error: Exception) -> str | None:
    """What is wrong and how to mend it; None where the fault is the program's."""
    if isinstance(error, MsthError):
        return str(error)
    if isinstance(error, _USAGE_ERRORS):
        return getattr(error, "format_message", error.__str__)()
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}; check the path, its permissions and the space on the disk"
    if type(error).__name__ == "OutOfMemoryError":  # torch's, by name: a usage error must not import torch
        return "the GPU is out of memory; lower training.rays_per_step or data.gpu_memory, or raise data.downscale"
    return None


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"msth {msth_taichi.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    pass


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Run folder to create.")] = Path("runs/demo"),
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps; default: the preset's.")] = None,
    arch: Arch = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Train, evaluate and render the built-in scene."""
    from msth_taichi.demo import run_demo

    for line in run_demo(output, steps=steps, arch=arch, overwrite=overwrite):
        print(line)


@app.command()
def train(
    data: Annotated[str, typer.Argument(help="Folder or json of a data set, or 'demo' for the built-in scene.")],
    output: Annotated[Path, typer.Option(help="Run folder to create, or to continue with --resume.")],
    preset: Annotated[str | None, typer.Option(help="Settings to start from; `msth presets` lists them.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Short for --set training.steps=N.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change one setting; may be repeated."),
    ] = None,
    arch: Arch = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the last checkpoint.")] = False,
    overwrite: Overwrite = False,
    vis: Annotated[
        str,
        typer.Option(help="What shows the training: none, tensorboard, wandb, viewer, or several joined by commas."),
    ] = "none",
    host: ViewerHost = "127.0.0.1",
    port: ViewerPort = 8080,
    segment_frames: Annotated[
        int | None,
        typer.Option(min=2, help="Cut a longer video into segments of so many frames at most; docs/long_videos.md."),
    ] = None,
    parallel_segments: Annotated[
        bool,
        typer.Option(
            "--parallel-segments", help="Under torchrun, share out the segments after the first, not the rays."
        ),
    ] = False,
) -> None:
    """Train a data set into a run folder; RUN/report.html is the result to look at.

    Under torchrun all its processes train together, each with a GPU of its own.
    """
    from msth_taichi.rendering.shards import torchrun_shard

    part = torchrun_shard()  # chooses the GPU, so before torch is imported

    from msth_taichi.tracking.report import report_path
    from msth_taichi.training.start import start_training

    run = start_training(
        data,
        output,
        preset=preset,
        steps=steps,
        settings=settings or [],
        arch=arch,
        resume=resume,
        overwrite=overwrite,
        vis=vis,
        viewer_address=(host, port),
        segment_frames=segment_frames,
        parallel_segments=parallel_segments,
    )
    if part.index > 0:
        return
    if run.step < run.config.training.steps:
        print(f"stopped at step {run.step}; continue with: msth train {data} --output {output} --resume")
    else:
        if report_path(run).is_file():
            print(f"report {report_path(run)}")
        print(f"{run.path}: {run.step} steps; next: msth eval {run.path}")


@app.command("eval")
def eval_(
    run: Run,
    data: Annotated[Path | None, typer.Option(help="The data set, where it has moved since training.")] = None,
    split: Annotated[str | None, typer.Option(help="test, val or train; default: the run's setting.")] = None,
    every: Annotated[int | None, typer.Option(min=1, help="Every n-th frame; default: the run's setting.")] = None,
    step: Annotated[int | None, typer.Option(min=0, help="Checkpoint to load; default: the last.")] = None,
    lpips: Annotated[bool, typer.Option("--lpips", help="LPIPS too; needs the extra: msth_taichi[lpips].")] = False,
    arch: Arch = "auto",
) -> None:
    """Compare held-out views with the run's renders; a table here, all of it in RUN/eval and RUN/report.html."""
    from msth_taichi.evaluation.evaluate import evaluate, page_path, scene_of
    from msth_taichi.evaluation.report import evaluation_lines
    from msth_taichi.tracking.report import try_report
    from msth_taichi.training.run import load_run

    loaded = load_run(run, step=step, arch=arch)
    result = evaluate(loaded, scene_of(loaded, data), split=split, every=every, lpips=lpips)
    for line in evaluation_lines(result):
        print(line)
    print(f"report {page_path(loaded, split)}")
    if step is None and (report := try_report(loaded)):  # of the newest step, not of one in between
        print(f"report {report}")


@app.command()
def render(
    run: Annotated[
        Path | None, typer.Argument(help="A run folder, as written by msth train; with --job, of all jobs.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="File or folder to write; several outputs add -NAME. Default: RUN/renders/PATH-NAME."),
    ] = None,
    path: Annotated[
        str | None,
        typer.Option(
            help="spiral (the default), orbit, interpolate, stabilised, test, train, test:NAME, train:NAME or a .json "
            "file; docs/paths.md."
        ),
    ] = None,
    frames: Annotated[int | None, typer.Option(min=1, help="Frames; default: what --fps and --speed make.")] = None,
    time: Annotated[
        str | None,
        typer.Option(help="play (the default; a file's own times), freeze=T, sweep=A:B or ping-pong; 0 to 1."),
    ] = None,
    fps: Annotated[float | None, typer.Option(help="Frames per second; default: the scene's.")] = None,
    speed: Annotated[float | None, typer.Option(help="0.25 is four times slower, between the frames.")] = None,
    lens: Annotated[
        str | None,
        typer.Option(help="pinhole, fisheye, equirectangular, orthographic or stereo-360; default: the path's own."),
    ] = None,
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT; default: the path's own.")] = None,
    scale: Annotated[float | None, typer.Option(help="Image size as a multiple of the training images'.")] = None,
    outputs: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated: rgb (the default), depth, accumulation, mask, static, dynamic, uncertainty, normals."
        ),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(help="A file: mp4 (the default), webp, gif; a file per frame: png, or numbers as npz, exr."),
    ] = None,
    codec: Annotated[str | None, typer.Option(help="Of mp4: h264 (the default) or h265.")] = None,
    mosaic: Annotated[
        bool | None, typer.Option("--mosaic", help="One file with the outputs side by side under their names.")
    ] = None,
    still: Annotated[
        float | None,
        typer.Option(help="Of cameras that stand still, render again only what crosses masks below this; try 0.9."),
    ] = None,
    step: Annotated[int | None, typer.Option(min=0, help="Checkpoint to load; default: the last.")] = None,
    job: Annotated[
        Path | None, typer.Option(help="TOML file with a [[job]] table for each render; options here overrule it.")
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Render every N-th frame from I on; default: all, or by torchrun's rank."),
    ] = None,
    arch: Arch = "auto",
    overwrite: Overwrite = False,
) -> int:
    """Render a run along a camera path, or all jobs of a file; no data set is needed.

    A render that was stopped goes on where it was. Exit status 1: frames failed, which running it again renders.
    """
    from msth_taichi.rendering.shards import parse_shard, torchrun_shard

    part = torchrun_shard()  # chooses the GPU, so before torch is imported
    if shard is not None:
        part = parse_shard(shard)

    from msth_taichi.rendering.jobs import load_jobs, parse_job, render_jobs

    options = {
        "run": run,
        "output": output,
        "path": path,
        "frames": frames,
        "time": time,
        "fps": fps,
        "speed": speed,
        "lens": lens,
        "size": size,
        "scale": scale,
        "outputs": outputs,
        "format": format,
        "codec": codec,
        "mosaic": mosaic,
        "still": still,
        "step": step,
    }
    given = {name: value for name, value in options.items() if value is not None}
    if run is None and job is None:
        raise MsthError("Missing argument 'RUN': give a run folder, or a list of jobs with --job FILE")
    jobs = [parse_job(given, "msth render")] if job is None else load_jobs(job, given)
    report = render_jobs(jobs, shard=part, arch=arch, overwrite=overwrite)
    for line in report.lines():
        print(line)
    for failure in report.failures:
        print("error:", failure, file=sys.stderr)
    return 1 if report.failures else 0


@app.command()
def view(
    run: Run,
    host: ViewerHost = "127.0.0.1",
    port: ViewerPort = 8080,
    data: Annotated[
        Path | None, typer.Option(help="The data set, where it has moved, for the frames of the cameras.")
    ] = None,
    step: Annotated[int | None, typer.Option(min=0, help="Checkpoint to load; default: the last.")] = None,
    arch: Arch = "auto",
) -> None:
    """Show a run in browsers, from any camera at any time; needs the extra: msth_taichi[viewer]."""
    from msth_taichi.viewer.view import view as view_run

    view_run(run, host=host, port=port, data=data, step=step, arch=arch)


@app.command()
def export(
    run: Run,
    to: Annotated[str, typer.Option(help="points, mesh, cameras or compact.")],
    output: Annotated[Path, typer.Option(help="File to write (ply, json, safetensors), or folder with --times.")],
    time: Annotated[float, typer.Option(help="Time in [0, 1] of points and mesh.")] = 0.0,
    times: Annotated[int | None, typer.Option(help="Points or meshes of so many times, as a folder of files.")] = None,
    mode: Annotated[str, typer.Option(help="full, static or dynamic, for points and mesh.")] = "full",
    box: Annotated[
        str | None, typer.Option(help="x0,y0,z0,x1,y1,z1 kept of points and mesh; default: nearly all that is seen.")
    ] = None,
    points: Annotated[int, typer.Option(help="Points at most.")] = 1_000_000,
    resolution: Annotated[int, typer.Option(help="Voxels along the mesh's longest edge.")] = 256,
    bits: Annotated[int, typer.Option(help="Of a compact model's table values: 16 or 8.")] = 8,
    data: Annotated[Path | None, typer.Option(help="The data set, where it has moved, to measure the loss by.")] = None,
    step: Annotated[int | None, typer.Option(min=0, help="Checkpoint to load; default: the last.")] = None,
    arch: Arch = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Write a run as a point cloud, a mesh, cameras or one small model file, in your own coordinates."""
    from msth_taichi.exporting.export import export as export_to
    from msth_taichi.training.run import load_run

    lines = export_to(
        load_run(run, step=step, arch=arch),
        to,
        output,
        time=time,
        times=times,
        mode=mode,
        box=box,
        points=points,
        resolution=resolution,
        bits=bits,
        data=data,
        overwrite=overwrite,
    )
    for line in lines:
        print(line)


@app.command()
def info(
    target: Annotated[str, typer.Argument(metavar="DATA-or-RUN", help="A data set, a run folder or a model file.")],
) -> None:
    """Describe a data set or a run."""
    from msth_taichi.evaluation.report import info_lines

    for line in info_lines(target):
        print(line)


@app.command()
def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Remove them.")] = False,
    folder: Annotated[
        Path | None, typer.Option(help="Where they are; default: $MSTH_CACHE or ~/.cache/msth_taichi.")
    ] = None,
) -> None:
    """List the frames that were kept on disk, or remove them."""
    from msth_taichi.scene.frame_cache import cache_folder, caches
    from msth_taichi.scene.frame_cache import clear as clear_caches

    place = folder or cache_folder()
    if clear:
        print(f"{place}: {clear_caches(place) / 1e9:.2f} GB freed")
        return
    for path, size, origin in caches(place):
        print(f"{path}  {size / 1e9:.2f} GB  {origin}")


@app.command()
def check(
    data: Annotated[str, typer.Argument(help="Folder or json of a data set, or 'demo' for the built-in scene.")],
    output: Annotated[Path | None, typer.Option(help="HTML page to write: findings, cameras, sample frames.")] = None,
    preset: Annotated[str | None, typer.Option(help="Settings that sizes and memory are judged by.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change one setting; may be repeated."),
    ] = None,
) -> int:
    """Look a data set over before training: exit status 0 if nothing is an error, else 1."""
    from msth_taichi.checking.check import check as check_data

    report = check_data(data, preset=preset, settings=settings or [])
    for line in report.lines():
        print(line)
    if output is not None:
        report.write(output)
        print(output)
    return report.status


@app.command()
def presets() -> None:
    """List the presets."""
    from msth_taichi.config import preset_description, preset_names

    names = preset_names()
    for name in names:
        print(f"{name:<{max(map(len, names))}}  {preset_description(name)}")
