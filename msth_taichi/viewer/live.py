"""A training in a browser: `msth train --vis viewer`.

Pictures are rendered between training steps. Somebody who moves gets up to half of the time, somebody who only watches
a twentieth, and a new picture every few seconds.
"""

import math
import signal
import threading
import time as clock
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm import tqdm

from msth_taichi.rendering.fast import FastRenderer, Shortcuts
from msth_taichi.training.run import Run
from msth_taichi.viewer.extra import require_viser
from msth_taichi.viewer.schedule import Pace, Task

if TYPE_CHECKING:
    from msth_taichi.training.trainer import Trainer

_MOVING, _STILL = 0.5, 0.05  # shares of the time
_REFRESH = 5.0  # seconds after which a still picture is rendered again
_LONGEST = 0.5  # seconds that training waits for one picture
_PLOTTED = {"loss": "loss", "psnr": "PSNR"}  # names of metrics.jsonl, and what the page calls them
_EVERY = 1.0  # seconds between two looks at plots and rates
_MOST_POINTS = 1000
_IDLE = 0.02


class LiveViewer:
    """Shows a training; its methods are called on the thread that trains.

    Args:
        run_path: run folder of the training.
        host: address to listen on.
        port: to listen on.
    Raises:
        RunError: the port is taken, or viser is not installed.

    Example:
        >>> viewer = LiveViewer(Path("runs/first"), "127.0.0.1", 8080)
        >>> for _ in range(steps):
        ...     trainer.step()
        ...     viewer.after_step(trainer)
        >>> viewer.close()
    """

    def __init__(self, run_path: Path, host: str = "127.0.0.1", port: int = 8080):
        require_viser()
        from msth_taichi.viewer.server import Server

        self._path = Path(run_path)
        self._server = Server(host, port)
        self.address = self._server.address
        self._moving, self._still = Pace(_MOVING), Pace(_STILL)
        self._going = threading.Event()  # cleared while the training pauses
        self._going.set()
        self._opened = False
        self._curves = {name: Curve(_MOST_POINTS) for name in _PLOTTED}
        self._steps: deque[tuple[float, int]] = deque(maxlen=16)
        self._looked = -math.inf
        self._add_controls()
        self._busy(True)
        tqdm.write(f"viewer: {self.address}")

    def text(self, name: str, text: str) -> None:
        """Not shown."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Remember loss and PSNR for the plots; names may have a prefix that ends with a slash."""
        for name, value in values.items():
            curve = self._curves.get(name.rpartition("/")[2])
            if curve is not None and math.isfinite(value):
                curve.add(step, value)

    def images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Not shown: the browser has pictures of its own."""

    def histogram(self, step: int, name: str, values: np.ndarray) -> None:
        """Not shown."""

    def after_step(self, trainer: "Trainer") -> None:
        """Render what somebody waits for, if there is time; while paused, until somebody resumes."""
        if not self._opened:
            self._open(trainer)
        now = clock.monotonic()
        if now - self._looked >= _EVERY:
            self._look(trainer.state.step, now)
        if self._server.clients():
            self._serve(trainer.device)
        if not self._going.is_set():
            self._pause(trainer)

    def close(self) -> None:
        """Stop listening."""
        self._going.set()
        self._server.close()

    def _open(self, trainer: "Trainer") -> None:
        self._opened = True
        run = Run(self._path, trainer.config, trainer.scene, trainer.model, trainer.state.step)
        # no copies and no cells: the field changes with every step
        renderer = FastRenderer(trainer.model, Shortcuts(cells=0, sure=1.0))
        self._server.open(run, trainer.scene, renderer)

    def _serve(self, device: torch.device) -> None:
        start = clock.monotonic()
        if not self._still.allows(start) and not self._moving.allows(start):
            return

        def may(task: Task) -> bool:
            allowed = (self._moving if task.draft else self._still).allows(clock.monotonic())
            if allowed and device.type == "cuda":
                torch.cuda.synchronize(device)  # steps that still run are not what the picture takes
            return allowed

        task = self._server.turn(may)
        if task is None and not (self._still.allows(start) and self._server.turn_frusta()):
            return
        end = clock.monotonic()
        pace = self._moving if task is not None and task.draft else self._still
        pace.spent(end - start, end)

    def _pause(self, trainer: "Trainer") -> None:
        tqdm.write(f"viewer: training pauses at step {trainer.state.step}; resume it in the browser")
        self._busy(False)
        self._status.content = f"Step {trainer.state.step}, paused"
        with _ended_by_signal(self._going):
            while not self._going.is_set():
                if self._server.turn() is None and not self._server.turn_frusta():
                    self._server.wait(_IDLE)
        self._busy(True)
        self._steps.clear()
        tqdm.write("viewer: training goes on")

    def _busy(self, trains: bool) -> None:
        """Set what pictures may cost, and whether they grow old."""
        schedule = self._server.schedule
        schedule.longest, schedule.stale_after = (_LONGEST, _REFRESH) if trains else (None, None)

    def _add_controls(self) -> None:
        gui = self._server.viser.gui
        with gui.add_folder("Training", order=-1):
            self._status = gui.add_markdown("Starts")
            self._button = gui.add_button("Pause training")
            self._plots = {name: self._add_plot(gui, name) for name in _PLOTTED}
        self._button.on_click(lambda event: self._toggle() if event.client is not None else None)

    def _add_plot(self, gui: Any, name: str) -> Any:
        label = _PLOTTED[name] + (", dB" if name == "psnr" else "")
        return gui.add_uplot(
            (np.array([0.0]), np.array([np.nan])),
            ({"label": "step"}, {"label": label, "stroke": "#3c82dc", "width": 1.5}),
            scales={"x": {"time": False, "auto": True}, "y": {"auto": True}},
            title=label,
            legend={"show": False},  # it would say the title again, and push controls off the screen
            height=110,
            visible=False,
        )

    def _toggle(self) -> None:
        going = not self._going.is_set()
        self._button.label = "Pause training" if going else "Resume training"
        (self._going.set if going else self._going.clear)()

    def _look(self, step: int, now: float) -> None:
        """Bring what the browsers read up to date."""
        self._looked = now
        self._steps.append((now, step))
        then, before = self._steps[0]
        rate = f", {(step - before) / (now - then):.1f} steps/s" if now > then else ""
        logged = [(_PLOTTED[name], curve.last) for name, curve in self._curves.items()]
        last = "".join(f", {label} {value:.4g}" for label, value in logged if value is not None)
        self._status.content = f"Step {step}{rate}{last}"
        for name, curve in self._curves.items():
            if curve.changed:
                self._plots[name].data = curve.arrays()
                self._plots[name].visible = True


class Curve:
    """Numbers over steps, evenly thinned so that there are never too many.

    Example:
        >>> curve = Curve(most=100)
        >>> curve.add(1, 0.5)
        >>> curve.arrays()
        (array([1.]), array([0.5]))
    """

    def __init__(self, most: int):
        self._most, self._every, self._count = most, 1, 0
        self._points: list[tuple[float, float]] = []
        self.last: float | None = None
        self.changed = False

    def add(self, step: int, value: float) -> None:
        self.last = value
        if self._count % self._every == 0:
            self._points.append((float(step), value))
            self.changed = True
        self._count += 1
        if len(self._points) >= self._most:
            self._points = self._points[::2]
            self._every *= 2

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Steps and values, (K,) float64 each; `changed` is False until the next is added."""
        self.changed = False
        points = np.array(self._points).reshape(-1, 2)
        return points[:, 0].copy(), points[:, 1].copy()


@contextmanager
def _ended_by_signal(event: threading.Event) -> Iterator[None]:
    """Within it, SIGINT and SIGTERM set an event too, before they do what they always do."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def stop(number: int, frame: Any) -> None:
        event.set()
        signal.signal(number, before[number])
        if callable(before[number]):
            before[number](number, frame)
        else:  # what the system does with it
            signal.raise_signal(number)

    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is stop:
                signal.signal(number, handler)
