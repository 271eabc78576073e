"""The editor of a camera path in one client's browser."""

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import viser
import viser.transforms

from msth_taichi.errors import MsthError
from msth_taichi.viewer.keys import Keys, save_path
from msth_taichi.viewer.requests import bounded, to_browser

_COLOR = (220, 60, 130)
_DRAWN = 20  # line segments from key to key
_STEPS = (0.05, 60.0)
_NONE = "none"

Place = Callable[[], tuple[np.ndarray, float, float] | None]
Go = Callable[[np.ndarray, float, float | None], None]


class PathPanel:
    """Controls of the keys, and the path drawn in the scene.

    Args:
        client: whose editor it is.
        folder: that paths are written to; the browser gives no more than a name.
        run: how a command line calls the run.
        scale: length of a key's frustum, the user's units.
        place: pose, time and field of view of the client.
        go: sends the client there.
    """

    def __init__(self, client: viser.ClientHandle, folder: Path, run: str, scale: float, place: Place, go: Go):
        self._client, self._folder, self._run, self._scale = client, folder, run, scale
        self._place, self._go = place, go
        self._lock = threading.Lock()
        self._keys = Keys()
        self._actions = {"Go to": self._visit, "Replace": self._replace, "Remove": self._remove}
        self._drawn: list[viser.SceneNodeHandle] = []
        gui = client.gui
        gui.add_button("Add key").on_click(self._safely(self._add))
        self._number = gui.add_dropdown("Key", [_NONE])
        self._action = gui.add_button_group("This key", tuple(self._actions))
        self._action.on_click(self._safely(self._act))
        self._step = gui.add_number("Seconds per key", 2.0, min=_STEPS[0], max=_STEPS[1], step=0.05)
        self._closed = gui.add_checkbox("Closed", False, hint="goes on from the last key to the first")
        self._name = gui.add_text("Name", "path")
        gui.add_button("Save path").on_click(self._safely(self._save))
        self._status = gui.add_markdown("Keys hold where the camera stands, its field of view and the time.")
        self._closed.on_update(self._safely(self._draw))

    def _safely(self, action: Callable[[], None]) -> Callable[[viser.GuiEvent], None]:
        """An event handler that shows the browser what a user can mend."""

        def handler(event: viser.GuiEvent) -> None:
            if event.client is None:
                return
            try:
                with self._lock:  # viser has many threads
                    action()
            except MsthError as error:
                self._client.add_notification("Path", str(error), auto_close_seconds=8.0, color="red")

        return handler

    def _chosen(self) -> int | None:
        names = self._names()
        return names.index(self._number.value) if self._number.value in names else None

    def _names(self) -> list[str]:
        return [f"{k + 1}: time {key.time:.3f}" for k, key in enumerate(self._keys)]

    def _act(self) -> None:
        self._actions.get(str(self._action.value), lambda: None)()

    def _add(self) -> None:
        place = self._place()
        if place is not None:
            self._keys.add(*place)
            self._changed(len(self._keys) - 1)

    def _replace(self) -> None:
        number, place = self._chosen(), self._place()
        if number is not None and place is not None:
            self._keys.replace(number, *place)
            self._changed(number)

    def _remove(self) -> None:
        number = self._chosen()
        if number is not None:
            self._keys.remove(number)
            self._changed(number)

    def _visit(self) -> None:
        number = self._chosen()
        if number is not None:
            key = self._keys[number]
            assert key.fov is not None
            self._go(np.array(key.pose), key.fov, key.time)

    def _save(self) -> None:
        path = self._keys.path(bounded(self._step.value, _STEPS, 2.0), self._closed.value)
        file = save_path(self._folder, str(self._name.value), path)
        self._client.send_file_download(file.name, file.read_bytes(), save_immediately=True)
        self._status.content = f"Saved. Render it with\n\n`msth render {self._run} --path {file}`"

    def _changed(self, number: int) -> None:
        names = self._names() or [_NONE]
        self._number.options = names
        self._number.value = names[min(number, len(names) - 1)]
        self._status.content = f"{len(self._keys)} keys"
        self._draw()

    def _draw(self) -> None:
        for handle in self._drawn:
            handle.remove()
        self._drawn = []
        scene = self._client.scene
        for k, key in enumerate(self._keys):
            rotation, position = to_browser(np.array(key.pose))
            self._drawn.append(
                scene.add_frame(
                    f"/path/{k}",
                    axes_length=self._scale,
                    axes_radius=0.04 * self._scale,
                    wxyz=viser.transforms.SO3.from_matrix(rotation).wxyz,
                    position=position,
                )
            )
        way = self._keys.poses(_DRAWN, self._closed.value)[:, :, 3]
        if len(way) > 1:
            segments = np.stack([way[:-1], way[1:]], axis=1)
            self._drawn.append(
                scene.add_line_segments("/path/way", segments, _COLOR, thickness=2.0, thickness_units="screen")
            )
