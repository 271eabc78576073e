"""Small pictures of what the cameras of a scene saw."""

from collections import OrderedDict
from collections.abc import Callable

import numpy as np
from PIL import Image

from msth_taichi.errors import MsthError
from msth_taichi.rendering.writers import over_black, to_uint8
from msth_taichi.scene.scene import Images, Scene

_EDGE = 128  # pixels
_KEPT = 2000  # pictures of at most 48 kB each


class TrainingFrames:
    """The frames of the cameras that train, made small and kept as long as there is room.

    Args:
        scene: with frames, or without; then `render` stands in for them.
        render: (row of a camera, time, width and height) -> picture (H, W, 3) uint8.
        most: cameras that are shown; of more, so many evenly spread ones.

    Attributes:
        cameras: rows of the scene's cameras, each of which has a frame.

    Example:
        >>> frames = TrainingFrames(load_scene("demo"), render)
        >>> frames.picture(0, frames.image_at(0, time=0.5)).shape
        (96, 128, 3)
    """

    def __init__(
        self, scene: Scene, render: Callable[[int, float, tuple[int, int]], np.ndarray], most: int = 100
    ) -> None:
        self._images: Images = scene.images("train")
        self._scene, self._render = scene, render
        cameras = np.unique(self._images.camera.numpy())
        chosen = np.linspace(0, len(cameras) - 1, min(most, len(cameras))).round().astype(int)
        self.cameras: list[int] = cameras[chosen].tolist()
        rows = {camera: np.flatnonzero(self._images.camera.numpy() == camera) for camera in self.cameras}
        self._rows = {
            camera: found[np.argsort(self._images.time.numpy()[found], kind="stable")] for camera, found in rows.items()
        }
        self._kept: OrderedDict[int, np.ndarray] = OrderedDict()
        self._readable = self._images.source is not None

    def image_at(self, camera: int, time: float) -> int:
        """The row of the image that a camera shows at a time: the last that is not later, or its first."""
        rows = self._rows[camera]
        times = self._images.time.numpy()[rows]
        return int(rows[max(0, np.searchsorted(times, time + 1e-6, side="right") - 1)])

    def picture(self, camera: int, image: int) -> np.ndarray:
        """(H, W, 3) uint8 of an image, by its row; frames that cannot be read are rendered instead."""
        if image not in self._kept:
            self._kept[image] = self._read(image) if self._readable else self._rendered(camera, image)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(image)
        return self._kept[image]

    def _read(self, image: int) -> np.ndarray:
        images = self._images.select([image])
        try:
            frame = next(images.read())
        except MsthError:
            self._readable = False
            return self._rendered(int(images.camera[0]), image)
        frame = over_black(to_uint8(frame[..., : images.channels - images.masked]))
        return np.array(Image.fromarray(frame).resize(_small(frame.shape[1], frame.shape[0]), Image.Resampling.BOX))

    def _rendered(self, camera: int, image: int) -> np.ndarray:
        return self._render(camera, float(self._images.time[image]), _small(*self._scene.cameras.size(camera)))


def _small(width: int, height: int) -> tuple[int, int]:
    factor = min(1.0, _EDGE / max(width, height))
    return max(1, round(width * factor)), max(1, round(height * factor))
