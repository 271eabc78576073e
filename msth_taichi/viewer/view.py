"""`msth view`: a trained run in a browser, until Ctrl-C."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from msth_taichi.errors import MsthError
from msth_taichi.evaluation.evaluate import scene_of
from msth_taichi.scene.scene import Scene
from msth_taichi.training.run import Run, load_run
from msth_taichi.training.trainer import stop_on_signal
from msth_taichi.viewer.extra import require_viser

_IDLE = 0.02  # seconds until time that plays is looked at again


def view(
    path: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    data: Path | None = None,
    step: int | None = None,
    arch: str = "auto",
    say: Callable[[str], None] = print,
) -> None:
    """Show a run to browsers until SIGINT or SIGTERM.

    Args:
        path: run folder or model file.
        host: address to listen on.
        port: to listen on.
        data: the data set, where it has moved, for the frames of the cameras.
        step: checkpoint; default: the last.
        arch: "auto", "cpu" or "cuda".
        say: is given lines for the user.
    Raises:
        MsthError: the run cannot be opened, the port is taken, or viser is not installed.
    """
    require_viser()
    from msth_taichi.viewer.server import Server

    run = load_run(path, step=step, arch=arch)
    scene = _with_frames(run, data, say)
    server = Server(host, port)
    try:
        server.open(run, scene, run.renderer)
        server.warm_up()
        say(f"{path}: {server.address}; Ctrl-C ends it")
        with stop_on_signal() as stopping:
            while not stopping.is_set():
                if server.turn() is None and not server.turn_frusta():
                    server.wait(_IDLE if server.clients() else 10 * _IDLE)
    finally:
        server.close()


def _with_frames(run: Run, data: Path | None, say: Callable[[str], None]) -> Scene:
    """The run's scene with the frames of its data set, where they are."""
    try:
        found = scene_of(run, data)
    except MsthError as error:
        if data is not None:
            raise
        say(f"cameras show renders, not frames: {error}")
        return run.scene
    return replace(run.scene, splits=found.splits)
