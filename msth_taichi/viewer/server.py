"""The viewer's server: who is connected, and one picture after the other on the thread that calls `turn`."""

import contextlib
import errno
import gc
import io
import socket
import sys
import threading
import time as clock
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import viser
from viser.infra import WebsockClientConnection

from msth_taichi.errors import RunError
from msth_taichi.rendering.fast import FastRenderer
from msth_taichi.scene.scene import Scene
from msth_taichi.training.run import Run, results_folder
from msth_taichi.viewer.clients import Client, Stage
from msth_taichi.viewer.frames import TrainingFrames
from msth_taichi.viewer.pictures import Outdated, render_request
from msth_taichi.viewer.schedule import Schedule, Task

_EDGES = {"cpu": 256, "cuda": 1024}  # pixels along the longer edge, to begin with


class Server:
    """Pages at a host and port; they show a scene once there is one.

    Kernels run on one thread alone, so nothing is rendered but in `turn`, which that thread calls.

    Args:
        host: address to listen on.
        port: to listen on; 0 for any that is free.
    Raises:
        RunError: they cannot be listened on.

    Example:
        >>> server = Server("127.0.0.1", 8080)
        >>> server.open(run, run.scene, run.renderer)
        >>> while True:
        ...     if server.turn() is None:
        ...         server.wait(0.02)
    """

    def __init__(self, host: str, port: int):
        _require_free(host, port)
        with contextlib.redirect_stdout(io.StringIO()):  # viser's own greeting
            self.viser = _ViserServer(host, port, label="msth view", verbose=False)
        if port and self.viser.get_port() != port:  # taken a moment ago
            self.viser.stop()
            raise _taken(host, port)
        shown = f"[{host}]" if ":" in host else host
        self.address = f"http://{shown}:{self.viser.get_port()}"
        self.viser.gui.configure_theme(show_logo=False, show_share_button=False)
        self.schedule = Schedule()
        self._clients: dict[int, Client] = {}
        self._lock = threading.Lock()
        self._run: Run | None = None
        self._renderer: FastRenderer | None = None

    def open(self, run: Run, scene: Scene, renderer: FastRenderer) -> None:
        """Show a run to all who are and will be connected.

        Args:
            run: what is rendered.
            scene: of the run, with frames where there are some.
            renderer: of its field.
        """
        self._run, self._renderer = run, renderer
        frames = TrainingFrames(scene, self._small)
        edge = _EDGES.get(renderer.device.type, _EDGES["cpu"])
        may_crop = not run.config.rays.ndc  # where distances are no distances
        stage = Stage(scene, frames, results_folder(run.path) / "paths", str(run.path), edge, may_crop)

        def enter(handle: viser.ClientHandle) -> None:
            client = Client(handle, stage, self.schedule)
            with self._lock:
                if handle.client_id in self.viser.get_clients():  # it may have left meanwhile
                    self._clients[handle.client_id] = client
            client.ask()

        self.viser.on_client_disconnect(lambda handle: self._leave(handle.client_id))
        self.viser.on_client_connect(enter)

    def warm_up(self) -> None:
        """Compile what the first picture needs, so that nobody has to wait for it."""
        self._small(0, 0.0, (8, 6))

    def turn(self, may: Callable[[Task], bool] = lambda task: True) -> Task | None:
        """Render what is most needed, if anything is, and show it.

        Args:
            may: whether a picture can be afforded now.
        Returns:
            What was rendered; None if there was nothing to do.
        """
        now = clock.monotonic()
        clients = self._present()
        for number, client in clients.items():
            try:
                client.tick(now)
            except (TypeError, ValueError):  # of values that no control of ours sends
                self._leave(number)
        self.schedule.changed.clear()
        task = self.schedule.next(now)
        if task is None or not may(task):
            return None
        if task.client not in clients:
            self.schedule.forget(task.client)
            return None
        self._serve(task, clients[task.client])
        return task

    def turn_frusta(self) -> bool:
        """Give one frustum of a client that rests its frame; False if there was none to give."""
        now = clock.monotonic()
        for number, client in self._present().items():
            if self.schedule.settled(number, now) and client.refresh_frusta():
                return True
        return False

    def wait(self, seconds: float) -> None:
        """Return after so long, or when somebody asks for something."""
        self.schedule.changed.wait(seconds)

    def clients(self) -> int:
        """How many are connected."""
        return len(self._present())

    def close(self) -> None:
        """Stop listening."""
        with contextlib.redirect_stdout(io.StringIO()):
            self.viser.stop()

    def _present(self) -> dict[int, Client]:
        with self._lock:
            return dict(self._clients)

    def _leave(self, number: int) -> None:
        with self._lock:
            self._clients.pop(number, None)
        self.schedule.forget(number)
        gc.collect()  # a client is a large web of cycles, which otherwise waits for long

    def _serve(self, task: Task, client: Client) -> None:
        assert self._run is not None and self._renderer is not None
        start = clock.perf_counter()
        try:
            picture, limits = render_request(
                self._run, self._renderer, task.request, task.size, lambda: self.schedule.wanted(task)
            )
        except Outdated:
            return
        except RuntimeError as error:  # such as a GPU without memory left: the others go on
            print(f"viewer: a picture of {task.size} failed: {error}", file=sys.stderr)
            client.notify("Not rendered", "try a lower resolution")
            self.schedule.done(task, clock.perf_counter() - start, clock.monotonic())
            return
        self.schedule.done(task, clock.perf_counter() - start, clock.monotonic())
        if task.client in self._present():  # it may have left meanwhile
            client.show(picture, task.request, limits, task.sharp)

    def _small(self, camera: int, time: float, size: tuple[int, int]) -> np.ndarray:
        """What stands in for a frame that is not there."""
        assert self._run is not None and self._renderer is not None
        cameras = self._run.scene.cameras.select([camera])
        small = cameras.scaled(size[0] / cameras.size(0)[0])
        rgb = self._renderer.image(small, 0, time)["rgb"]
        return (rgb.clamp(0, 1) * 255 + 0.5).byte().cpu().numpy()


class _ViserServer(viser.ViserServer):
    """viser's server, for no page but its own and without its tunnel to the internet, which any client could open."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._websock_server.on_client_connect(self._refuse_foreign)

    async def _refuse_foreign(self, client: WebsockClientConnection) -> None:
        """Browsers let the page of any web site connect to this machine; but they say whose page it is."""
        connection = self._websock_server._live_connections[client.client_id]
        assert connection.request is not None
        origin, host = (connection.request.headers.get(name) for name in ("Origin", "Host"))
        if origin is not None and urlsplit(origin).netloc != host:
            await connection.close(1008, "this page is not the viewer's own")

    def request_share_url(self, verbose: bool = True) -> str | None:
        return None


def _require_free(host: str, port: int) -> None:
    """viser takes the next free port where one is taken, and waits forever where the host is none."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise _taken(host, port) from None
        raise RunError(
            f"--host {host} --port {port}: cannot be listened on ({error.strerror}); use an address of this machine, "
            "such as 127.0.0.1, or 0.0.0.0 for all of them, and a port above 1023"
        ) from None


def _taken(host: str, port: int) -> RunError:
    return RunError(f"--port {port}: something else listens on {host}:{port}; stop it or choose another --port")
