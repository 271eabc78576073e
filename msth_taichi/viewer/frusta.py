"""The cameras that train, as frustums in one client's view."""

import math
from collections.abc import Callable

import numpy as np
import viser
import viser.transforms

from msth_taichi.scene.scene import Scene
from msth_taichi.viewer.frames import TrainingFrames
from msth_taichi.viewer.requests import to_browser

_COLOR = (60, 130, 220)
_ROOM = 2.5  # lengths of a frustum from who looks
_WIDEST = math.radians(100)  # of a frustum that is drawn


class Frusta:
    """One frustum per camera, with its frame of the client's time.

    Args:
        client: whose view they are in.
        scene: the cameras.
        frames: what they saw.
        scale: length of a frustum, the user's units.
        on_click: called with the row of a camera.
    """

    def __init__(
        self,
        client: viser.ClientHandle,
        scene: Scene,
        frames: TrainingFrames,
        scale: float,
        on_click: Callable[[int], None],
    ):
        self._frames, self._scale = frames, scale
        self._root = client.scene.add_frame("/cameras", show_axes=False)
        self._handles: dict[int, viser.CameraFrustumHandle] = {}
        self._positions: dict[int, np.ndarray] = {}
        self._shown: dict[int, int] = {}
        poses = user_poses(scene)
        for camera in frames.cameras:
            width, height = scene.cameras.size(camera)
            rotation, position = to_browser(poses[camera])
            handle = client.scene.add_camera_frustum(
                f"/cameras/{camera}",
                fov=min(math.radians(vertical_fov(scene, camera)), _WIDEST),
                aspect=width / height,
                scale=scale,
                thickness=1.5,
                thickness_units="screen",
                color=_COLOR,
                wxyz=viser.transforms.SO3.from_matrix(rotation).wxyz,
                position=position,
            )
            handle.on_click(lambda _, camera=camera: on_click(camera))
            self._handles[camera], self._positions[camera] = handle, position

    @property
    def visible(self) -> bool:
        return self._root.visible

    @visible.setter
    def visible(self, visible: bool) -> None:
        self._root.visible = visible

    def resize(self, scale: float) -> None:
        """Change the length of all."""
        self._scale = scale
        for handle in self._handles.values():
            handle.scale = scale

    def make_way(self, position: np.ndarray) -> None:
        """Hide those that a client stands in or close to, for they would cover the picture."""
        for camera, handle in self._handles.items():
            visible = bool(np.linalg.norm(self._positions[camera] - position) > _ROOM * self._scale)
            if handle.visible != visible:
                handle.visible = visible

    def refresh(self, time: float) -> bool:
        """Give one of them its frame of a time; False if all have theirs."""
        for camera, handle in self._handles.items():
            image = self._frames.image_at(camera, time)
            if self._shown.get(camera) != image:
                handle.image = self._frames.picture(camera, image)
                self._shown[camera] = image
                return True
        return False


def user_poses(scene: Scene) -> np.ndarray:
    """(C, 3, 4) of all cameras, the user's coordinates."""
    return scene.transform.invert_poses(scene.cameras.camera_to_world.double().cpu().numpy())


def vertical_fov(scene: Scene, camera: int) -> float:
    """Degrees, as of a pinhole."""
    return math.degrees(2 * math.atan(0.5 * scene.cameras.size(camera)[1] / float(scene.cameras.intrinsics[camera, 1])))
