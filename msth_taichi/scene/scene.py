"""What a data set is to the rest of the program: cameras, times and frames of each split.

Letters: C cameras, K images, T times, H image height, W image width.
"""

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from msth_taichi.config import Config, DataConfig
from msth_taichi.errors import ConfigError, DataError, FrameError
from msth_taichi.scene.cameras import Cameras
from msth_taichi.scene.normalize import SceneTransform


class FrameSource(Protocol):
    """Where frames come from. A key is a row of the source; reading in ascending keys is fastest."""

    @property
    def channels(self) -> int:
        """3 for RGB, 4 for RGB and straight alpha; one more, the last, where `masked`."""
        ...

    @property
    def masked(self) -> bool:
        """Whether the last channel is 255 where a pixel counts and 0 where it is to be ignored."""
        ...

    def fingerprint(self) -> list[Any]:
        """Plain values that change when the frames do."""
        ...

    def read(self, keys: np.ndarray) -> Iterator[np.ndarray | FrameError]:
        """Frames (H, W, channels) uint8 in the order of `keys`, or what is wrong with one alone; DataError names a
        file that fails."""
        ...

    def parts(self, keys: np.ndarray) -> list[np.ndarray]:
        """Positions in `keys` of frames that are best read one after the other; parts may be read at once."""
        ...


class Truth(Protocol):
    """A source that knows its scene exactly, not only its pictures."""

    def depth(self, key: int) -> np.ndarray:
        """(H, W) float32, distance along the unit ray through the pixel centre, scene units."""
        ...

    def moving(self, key: int) -> np.ndarray:
        """(H, W) bool, the pixel centre sees something that moves."""
        ...


def _sound(frame: np.ndarray | FrameError) -> np.ndarray:
    if isinstance(frame, FrameError):
        raise frame
    return frame


@dataclass(frozen=True, eq=False)
class Images:
    """A table of K images: who took them, and when.

    Args:
        camera: (K,) int64, row of the scene's cameras.
        time: (K,) float32 in [0, 1].
        frame: (K,) int64, number of the time among the scene's distinct times.
        keys: (K,) int64, rows of the source.
        source: where frames come from; None in a scene made from its description.
    """

    camera: torch.Tensor
    time: torch.Tensor
    frame: torch.Tensor
    keys: np.ndarray
    source: FrameSource | None

    def __len__(self) -> int:
        return len(self.camera)

    def select(self, indices: Sequence[int] | torch.Tensor) -> "Images":
        """The rows at `indices`, in that order, of the same source."""
        rows = torch.as_tensor(indices, dtype=torch.int64)
        return replace(
            self,
            camera=self.camera[rows],
            time=self.time[rows],
            frame=self.frame[rows],
            keys=self.keys[rows.numpy()],
        )

    @property
    def channels(self) -> int:
        return self._source().channels

    @property
    def masked(self) -> bool:
        """Whether the last channel of a frame says which pixels count."""
        return self._source().masked

    @property
    def origin(self) -> str:
        """A file that frames come from, or what makes them."""
        files = getattr(self.source, "files", None)
        return str(files[0].resolve()) if files else type(self.source).__name__

    def fingerprint(self) -> list[Any]:
        """Plain values that change when the frames do."""
        return [self.keys.tolist(), *self._source().fingerprint()]

    def read(self) -> Iterator[np.ndarray]:
        """Frames (H, W, channels) uint8, in the order of the table.

        Raises:
            DataError: one cannot be decoded.
        """
        return map(_sound, self.attempt())

    def attempt(self) -> Iterator[np.ndarray | FrameError]:
        """As `read`, with what is wrong in place of a frame that cannot be decoded while others can."""
        return self._source().read(self.keys)

    def parts(self) -> list[np.ndarray]:
        """Rows that are best read one after the other, such as those of one video."""
        return self._source().parts(self.keys)

    @property
    def has_truth(self) -> bool:
        """Whether `depth` and `moving` are known: only of the built-in scene."""
        return hasattr(self.source, "depth") and hasattr(self.source, "moving")

    def with_depth(self) -> list[int]:
        """Rows of images whose distances are known: exactly, or from depth maps."""
        if self.has_truth:
            return list(range(len(self)))
        maps = getattr(self.source, "depths", ())
        return [row for row, key in enumerate(self.keys.tolist()) if maps and maps[key] is not None]

    def depth_map(self, row: int) -> np.ndarray | None:
        """(H, W) float32 as the lens measures it, the user's units, 0 where unknown; None of an image without."""
        return getattr(self.source, "depth_map", lambda key: None)(int(self.keys[row]))

    def depth(self, row: int) -> np.ndarray:
        """(H, W) float32 exact distance along the unit ray through the pixel centre, scene units."""
        return self._truth().depth(int(self.keys[row]))

    def moving(self, row: int) -> np.ndarray:
        """(H, W) bool, exactly where the pixel centre sees something that moves."""
        return self._truth().moving(int(self.keys[row]))

    def _source(self) -> FrameSource:
        if self.source is None:
            raise DataError("scene.json of a run has no frames; give the path of the data set")
        return self.source

    def _truth(self) -> Any:
        if not self.has_truth:
            raise DataError("depth and motion are known of the built-in scene only; use the data set 'synthetic'")
        return self.source


@dataclass(frozen=True, eq=False)
class Scene:
    """A data set in normalised coordinates, z up.

    Args:
        name: what to call it.
        path: where it was read from; None for the built-in scene.
        cameras: C cameras of all splits together.
        splits: images of "train" and, where the data set has them, "test" and "val".
        transform: from the user's coordinates to the scene's.
        box: half edge of the scene box, scene units.
        num_frames: T, distinct times of all splits.
        fps: frames per second.
        format: name of the module in `scene/formats`, or "synthetic".
        static_cameras: the cameras stand still, and each sees many times.
        bounds: nearest and farthest distance of what is seen, scene units, where the data set says.
    """

    name: str
    path: Path | None
    cameras: Cameras
    splits: dict[str, Images]
    transform: SceneTransform
    box: float
    num_frames: int
    fps: float
    format: str
    static_cameras: bool
    bounds: tuple[float, float] | None = None

    def images(self, split: str) -> Images:
        """The images of one split.

        Raises:
            DataError: the scene has no such split.
        """
        if split not in self.splits:
            raise DataError(f"scene '{self.name}' has no '{split}' split; choose from {', '.join(self.splits)}")
        return self.splits[split]


def load_scene(path: str | Path, config: DataConfig | None = None) -> Scene:
    """Read a data set: its format is recognised, its files are checked, its cameras normalised.

    Args:
        path: a folder with transforms_train.json and transforms_test.json or one transforms.json, whose
            entries are videos, images with a time, or D-NeRF images; or "synthetic" (also "demo"), the
            built-in scene, with options as in "synthetic:cameras=12,frames=30,width=320,height=180".
        config: orientation, centring, scaling, and what is loaded; default: every setting's default.
    Raises:
        DataError: names the file that is missing, unreadable or contradicts another, and the remedy.
        ConfigError: an option of the built-in scene is unknown or out of range.

    Example:
        >>> scene = load_scene("synthetic:cameras=4,test_cameras=1,frames=3")
        >>> len(scene.cameras), len(scene.images("train"))
        (5, 12)
    """
    config = config or Config().data
    kind, _, options = str(path).partition(":")
    if kind in ("synthetic", "demo"):
        # imports Taichi, which files on disk do not need
        from msth_taichi.scene.synthetic import synthetic_scene

        return synthetic_scene(**_parse_options(str(path), options), config=config)
    from msth_taichi.scene.formats import FORMATS

    folder = Path(path)
    if not folder.exists():
        raise DataError(f"{folder}: no such data set; give a folder with transforms.json, or 'synthetic'")
    if not folder.is_dir():
        raise DataError(f"{folder}: not a folder; give the folder that contains transforms.json")
    for module in FORMATS:
        if module.detects(folder):
            return module.load(folder, config)
    raise DataError(
        f"{folder}: unknown format; give a folder with transforms.json, or transforms_train.json and "
        "transforms_test.json, that name videos (.mp4), images (.png, .jpg) or D-NeRF images without suffix"
    )


def describe(scene: Scene) -> dict[str, Any]:
    """Everything about a scene but its frames, as plain values that `scene_from_description` reads."""
    return {
        "name": scene.name,
        "path": None if scene.path is None else str(scene.path.resolve()),
        "format": scene.format,
        "num_frames": scene.num_frames,
        "fps": scene.fps,
        "box": scene.box,
        "static_cameras": scene.static_cameras,
        "bounds": scene.bounds,
        "transform": scene.transform.describe(),
        "cameras": scene.cameras.describe(),
        "splits": {
            name: {
                "camera": images.camera.tolist(),
                "time": images.time.tolist(),
                "frame": images.frame.tolist(),
                "keys": images.keys.tolist(),
            }
            for name, images in scene.splits.items()
        },
    }


def scene_from_description(values: dict[str, Any], file: Path = Path("scene.json")) -> Scene:
    """The scene that `describe` described; reading its frames is a DataError.

    Args:
        values: from `describe`.
        file: where they are from, for errors.
    Raises:
        DataError: the description is incomplete or not of the right shape.
    """
    try:
        count = len(values["cameras"]["names"])
        if any(not 0 <= camera < count for table in values["splits"].values() for camera in table["camera"]):
            raise ValueError("an image of a camera that is not there")
        return Scene(
            name=values["name"],
            path=None if values["path"] is None else Path(values["path"]),
            cameras=Cameras.from_description(values["cameras"]),
            splits={
                name: make_images(table["camera"], table["time"], table["frame"], table["keys"], None)
                for name, table in values["splits"].items()
            },
            transform=SceneTransform.from_description(values["transform"]),
            box=float(values["box"]),
            num_frames=int(values["num_frames"]),
            fps=float(values["fps"]),
            format=values["format"],
            static_cameras=bool(values["static_cameras"]),
            bounds=None if values["bounds"] is None else (float(values["bounds"][0]), float(values["bounds"][1])),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{file}: damaged ({type(error).__name__}: {error}); restore it or train again") from error


def make_images(camera: Any, time: Any, frame: Any, keys: Any, source: FrameSource | None) -> Images:
    """Images from sequences or numpy arrays of length K."""
    return Images(
        torch.from_numpy(np.asarray(camera, np.int64)),
        torch.from_numpy(np.asarray(time, np.float32)),
        torch.from_numpy(np.asarray(frame, np.int64)),
        np.asarray(keys, np.int64),
        source,
    )


def rig_images(cameras: np.ndarray, num_frames: int, source: FrameSource) -> Images:
    """Images of static cameras, camera-major: every camera at every time frame / num_frames."""
    camera = np.repeat(cameras, num_frames)
    frame = np.tile(np.arange(num_frames), len(cameras))
    return make_images(camera, frame / num_frames, frame, camera * num_frames + frame, source)


def _parse_options(path: str, options: str) -> dict[str, int]:
    known = ("cameras", "test_cameras", "frames", "width", "height")
    values = {}
    for option in filter(None, options.split(",")):
        name, _, text = (part.strip() for part in option.partition("="))
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
            hint = f"did you mean '{nearest[0]}'?" if nearest else f"known: {', '.join(known)}"
            raise ConfigError(f"{path}: unknown option '{name}' ({hint})")
        try:
            values[name] = int(text)
        except ValueError:
            raise ConfigError(f"{path}: {name}='{text}' is not a whole number; write {name}=8") from None
    return values
