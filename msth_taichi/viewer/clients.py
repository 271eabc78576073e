"""One browser: its controls, and what it asks for because of them.

Controls are called from viser's threads. They never render: they put the client's newest request into the schedule.
What a browser sends is not trusted to be within the limits of its controls.
"""

import io
import math
import threading
import time as clock
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import viser
import viser.transforms
from PIL import Image

from msth_taichi.rendering.pictures import DepthRange
from msth_taichi.rendering.rigs import focus_point, mean_up
from msth_taichi.scene.scene import Scene
from msth_taichi.viewer.frames import TrainingFrames
from msth_taichi.viewer.frusta import Frusta, user_poses, vertical_fov
from msth_taichi.viewer.path_panel import PathPanel
from msth_taichi.viewer.requests import (
    EDGES,
    FOVS,
    VIEWS,
    Request,
    bounded,
    from_browser,
    picture_size,
    to_browser,
    vector,
)
from msth_taichi.viewer.schedule import Schedule

_TICK = 1 / 30  # seconds between times while it plays
_SPEEDS = (0.05, 4.0)
_SCENE_COLOR, _CROP_COLOR = (150, 150, 150), (255, 112, 0)
_FRUSTUM = 0.08  # of the distance to what the cameras look at
_PLAIN = 2**16  # pixels up to which a draft is sent without loss: it is magnified, and so would be what jpeg leaves out


@dataclass(frozen=True, eq=False)
class Stage:
    """What all clients look at.

    Args:
        scene: cameras, times and coordinates.
        frames: what the cameras saw.
        paths: folder of saved camera paths.
        run: how a command line calls the run.
        edge: pixels along the longer edge of a picture, to begin with.
        may_crop: a part of the scene can be shown alone.
    """

    scene: Scene
    frames: TrainingFrames
    paths: Path
    run: str
    edge: int
    may_crop: bool

    def home(self) -> tuple[np.ndarray, float]:
        """Pose (3, 4) and field of view of the first camera that trains."""
        camera = self.frames.cameras[0]
        return user_poses(self.scene)[camera], vertical_fov(self.scene, camera)

    def up(self) -> np.ndarray:
        """(3,) what who walks around goes around."""
        return mean_up(user_poses(self.scene)[self.frames.cameras])

    def distance(self) -> float:
        """From the cameras to what they look at, the user's units."""
        poses = user_poses(self.scene)[self.frames.cameras]
        return float(np.median(np.linalg.norm(poses[:, :, 3] - focus_point(poses), axis=1))) or 1.0

    def box(self) -> np.ndarray:
        """(8, 3) corners of the scene box, the user's coordinates."""
        signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
        return self.scene.transform.invert_points(self.scene.box * signs)


class Client:
    """Controls and state of one browser.

    Args:
        handle: viser's.
        stage: what it looks at.
        schedule: that takes its requests.
    """

    def __init__(self, handle: viser.ClientHandle, stage: Stage, schedule: Schedule):
        self.handle, self._stage, self._schedule = handle, stage, schedule
        self._lock = threading.RLock()
        self._limits: DepthRange | None = None
        self._limits_of = ""
        self._asked: Request | None = None
        self._picture: np.ndarray | None = None  # the sharp one of what was asked for
        self._wants_file = False
        self._playing, self._ticked = False, 0.0
        self._distance, self._up = stage.distance(), stage.up()
        self._scale = _FRUSTUM * self._distance
        with self._lock:  # a browser may use a control before the last is there
            tabs = handle.gui.add_tab_group()
            with tabs.add_tab("View"):
                self._add_view()
            with tabs.add_tab("Scene"):
                self._add_scene()
            with tabs.add_tab("Path"):
                self._path = PathPanel(handle, stage.paths, stage.run, self._scale, self.place, self._go)
            self.frusta = Frusta(handle, stage.scene, stage.frames, self._scale, self._visit)
            self._go(*stage.home(), None)
            handle.camera.on_update(lambda _: self.ask())

    def ask(self) -> None:
        """Put what the controls say into the schedule."""
        with self._lock:
            request = self._request()
            if request is not None:
                self._asked, self._picture = request, None
                self.frusta.make_way(request.pose[:, 3])
                self._schedule.ask(self.handle.client_id, request, clock.monotonic())

    def place(self) -> tuple[np.ndarray, float, float] | None:
        """Pose, time and field of view, degrees; None before the browser has said where it is."""
        camera = self.handle.camera
        pose = from_browser(camera.wxyz, camera.position)
        if pose is None:
            return None
        limits = math.radians(FOVS[0]), math.radians(FOVS[1])
        return pose, self.time, math.degrees(bounded(camera.fov, limits, limits[0]))

    @property
    def time(self) -> float:
        """In [0, 1]."""
        return bounded(self._time.value, (0.0, 1.0), 0.0)

    def tick(self, now: float) -> None:
        """Move on in time, if it plays."""
        if not self._playing or now - self._ticked < _TICK:
            return
        scene = self._stage.scene
        passed, self._ticked = min(now - self._ticked, 1.0), now
        speed = bounded(self._speed.value, _SPEEDS, 1.0)
        self._time.value = (self.time + passed * speed * scene.fps / scene.num_frames) % 1.0
        self.ask()

    def show(self, picture: np.ndarray, request: Request, limits: DepthRange | None, sharp: bool) -> None:
        """Send a picture (H, W, 3) uint8 to the browser."""
        handle = self.handle
        height, width = picture.shape[:2]
        # what is to be looked at closely comes as it is
        plain = sharp or height * width <= _PLAIN
        handle.scene.set_background_image(picture, format="png" if plain else "jpeg", jpeg_quality=80)
        with self._lock:
            if request.output == self._limits_of:
                self._limits = limits
            if sharp and request is self._asked:
                self._picture = picture
                if self._wants_file:
                    self._send_picture()
        self._status.content = f"{width} x {height}{'' if sharp else ', sharpening'}"

    def notify(self, title: str, body: str) -> None:
        """Show a message in the browser."""
        self.handle.add_notification(title, body, auto_close_seconds=8.0)

    def refresh_frusta(self) -> bool:
        """Give one frustum its frame; False if all have theirs, or none is seen."""
        return not self._playing and self.frusta.visible and self.frusta.refresh(self.time)

    def _request(self) -> Request | None:
        place = self.place()
        output = self._output.value
        if place is None or output not in VIEWS:
            return None
        if output != self._limits_of:
            self._limits, self._limits_of = None, output
        pose, time, fov = place
        return Request(
            pose,
            fov,
            time,
            picture_size(self._edge.value, self._aspect()),
            output,
            bounded(self._threshold.value, (0.0, 1.0), 0.0),
            self._crop(),
            self._limits,
        )

    def _aspect(self) -> float:
        """Width over height of what the browser shows."""
        camera = self.handle.camera
        sides = vector((camera.image_width, camera.image_height), 2)
        return float(sides[0] / sides[1]) if sides is not None and (sides > 0).all() else 1.0

    def _add_view(self) -> None:
        gui, scene = self.handle.gui, self._stage.scene
        self._output = gui.add_dropdown("Output", VIEWS, initial_value="rgb")
        self._threshold = gui.add_slider(
            "Mask threshold", 0.0, 1.0, 0.01, 0.0, disabled=True, hint="output mask: orange where less is static"
        )
        self._time = gui.add_slider("Time", 0.0, 1.0, 0.001, 0.0)
        self._play = gui.add_button("Play", disabled=scene.num_frames < 2)
        self._speed = gui.add_slider("Speed", *_SPEEDS, 0.05, 1.0, hint=f"1: as it was, {scene.fps:g} frames a second")
        self._fov = gui.add_slider("Field of view", *FOVS, 0.5, 50.0, hint="vertical, degrees")
        self._edge = gui.add_slider("Resolution", *EDGES, 64, self._stage.edge, hint="longer edge at rest, pixels")
        file = gui.add_button("Screenshot")
        self._status = gui.add_markdown("")
        for control in (self._time, self._edge, self._threshold):
            control.on_update(self._of_browser(self.ask))
        self._output.on_update(self._of_browser(self._choose))
        self._fov.on_update(self._of_browser(self._zoom))
        self._play.on_click(self._of_browser(self._toggle))
        file.on_click(self._of_browser(self._take_file))

    def _add_scene(self) -> None:
        gui, stage = self.handle.gui, self._stage
        box = stage.box()
        low, high = box.min(0), box.max(0)
        step = float(f"{(high - low).max() / 200:.1g}")
        names = stage.scene.cameras.names
        self._camera = gui.add_dropdown("Camera", [names[camera] for camera in stage.frames.cameras])
        gui.add_button("Go to camera").on_click(self._of_browser(self._visit_chosen))
        self._cameras_shown = gui.add_checkbox("Show cameras", True)
        self._cameras_size = gui.add_slider("Size of cameras", 0.1, 5.0, 0.1, 1.0)
        self._box_shown = gui.add_checkbox("Show scene box", False)
        self._cropped = gui.add_checkbox(
            "Crop", False, disabled=not stage.may_crop, hint="show what is inside alone; the user's coordinates"
        )
        self._low = gui.add_vector3("Lower corner", tuple(low), step=step)
        self._high = gui.add_vector3("Upper corner", tuple(high), step=step)
        self._draw_box("/scene_box", box, _SCENE_COLOR, False)
        self._cameras_shown.on_update(self._of_browser(self._show_cameras))
        self._cameras_size.on_update(self._of_browser(self._size_cameras))
        for control in (self._box_shown, self._cropped, self._low, self._high):
            control.on_update(self._of_browser(self._box_changed))

    def _crop(self) -> np.ndarray | None:
        low, high = vector(self._low.value, 3), vector(self._high.value, 3)
        if not self._cropped.value or low is None or high is None:
            return None
        return np.stack([np.minimum(low, high), np.maximum(low, high)])

    def _box_changed(self) -> None:
        self._draw_box("/scene_box", self._stage.box(), _SCENE_COLOR, self._box_shown.value)
        crop = self._crop()
        corners = np.zeros((8, 3)) if crop is None else _corners(crop)
        self._draw_box("/crop", corners, _CROP_COLOR, crop is not None)
        self.ask()

    def _draw_box(self, name: str, corners: np.ndarray, color: tuple[int, int, int], visible: bool) -> None:
        """Corners (8, 3), numbered by the bits of x, y, z."""
        pairs = [(a, a | bit) for a in range(8) for bit in (1, 2, 4) if not a & bit]
        self.handle.scene.add_line_segments(
            name, corners[np.array(pairs)], color, thickness=1.5, thickness_units="screen", visible=visible
        )

    def _show_cameras(self) -> None:
        self.frusta.visible = self._cameras_shown.value

    def _size_cameras(self) -> None:
        self.frusta.resize(self._scale * bounded(self._cameras_size.value, (0.1, 5.0), 1.0))

    def _visit_chosen(self) -> None:
        names = list(self._stage.scene.cameras.names)
        if self._camera.value in names:
            self._visit(names.index(self._camera.value))

    def _visit(self, camera: int) -> None:
        self._go(user_poses(self._stage.scene)[camera], vertical_fov(self._stage.scene, camera), None)

    def _go(self, pose: np.ndarray, fov: float, time: float | None) -> None:
        """Stand at a pose, and a time where one is given."""
        rotation, position = to_browser(pose)
        camera = self.handle.camera
        with self._lock, self.handle.atomic():
            # of this camera, as setting wxyz leans on it: a browser that learns the scene's up later rolls the picture
            camera.up_direction = self._up
            camera.position = position
            camera.wxyz = viser.transforms.SO3.from_matrix(rotation).wxyz
            camera.look_at = position + rotation[:, 2] * self._distance
            camera.near, camera.far = 1e-3 * self._distance, 1e3 * self._distance
            camera.fov = math.radians(bounded(fov, FOVS, 50.0))
        self._fov.value = bounded(fov, FOVS, 50.0)
        if time is not None:
            self._time.value = time
        self.ask()

    def _of_browser(self, action: Callable[[], None]) -> Callable[[viser.GuiEvent], None]:
        """An event handler that does something when a browser, and not the program, changed a control."""

        def handler(event: viser.GuiEvent) -> None:
            if event.client is not None:
                with self._lock:
                    action()

        return handler

    def _choose(self) -> None:
        self._threshold.disabled = self._output.value != "mask"
        self.ask()

    def _zoom(self) -> None:
        self.handle.camera.fov = math.radians(bounded(self._fov.value, FOVS, 50.0))
        self.ask()

    def _toggle(self) -> None:
        self._playing, self._ticked = not self._playing, clock.monotonic()
        self._play.label = "Pause" if self._playing else "Play"

    def _take_file(self) -> None:
        self._wants_file = True
        if self._picture is not None:
            self._send_picture()

    def _send_picture(self) -> None:
        assert self._picture is not None
        self._wants_file = False
        stream = io.BytesIO()
        Image.fromarray(self._picture).save(stream, format="PNG")
        name = f"{self._output.value}-{self.time:.3f}.png"
        self.handle.send_file_download(name, stream.getvalue(), save_immediately=True)


def _corners(crop: np.ndarray) -> np.ndarray:
    """(8, 3) of a box by two of them, numbered by the bits of x, y, z."""
    return np.array([[crop[i, 0], crop[j, 1], crop[k, 2]] for i in (0, 1) for j in (0, 1) for k in (0, 1)])
