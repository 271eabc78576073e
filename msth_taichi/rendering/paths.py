"""Where the camera stands, and when, in each frame of a video.

Letters: C training cameras, K keys, F frames of the path.
All poses are camera-to-world, OpenGL axes, in scene units.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from msth_taichi.errors import RunError
from msth_taichi.lenses import DISTORTION, EQUIRECTANGULAR, LENS_NAMES, ORTHOGRAPHIC, PINHOLE, STEREO_360
from msth_taichi.rendering.path_files import PathFile, read_path
from msth_taichi.rendering.path_lenses import (
    EYE_DISTANCE,
    panorama_focals,
    parse_lens,
    parse_size,
    with_lens,
    with_size,
)
from msth_taichi.rendering.rigs import (
    focus_point,
    mean_up,
    orbit_poses,
    pose_distance,
    spiral_poses,
    surrounds,
    visiting_order,
)
from msth_taichi.rendering.splines import number_line, number_spline, pose_spline, smoothed_poses
from msth_taichi.rendering.timing import Timing, make_timing
from msth_taichi.scene.cameras import Cameras, make_cameras
from msth_taichi.scene.scene import Images, Scene

PATHS = ("test", "train", "spiral", "orbit", "interpolate", "stabilised")

_STEADY = 0.5  # seconds, standard deviation over which a path is smoothed
_NAMED = 5  # cameras that an error lists


@dataclass(frozen=True)
class CameraPath:
    """One view per frame of a video.

    Attributes:
        cameras: the poses and lenses the path uses, scene units.
        camera: (F,) int64, which of `cameras` each frame is seen through.
        time: (F,) float32.
        fps: frames per second.
    """

    cameras: Cameras
    camera: np.ndarray
    time: np.ndarray
    fps: float

    def __len__(self) -> int:
        return len(self.camera)


def make_path(
    scene: Scene,
    name: str = "spiral",
    frames: int | None = None,
    *,
    time: str = "play",
    fps: float | None = None,
    speed: float = 1.0,
    lens: str | None = None,
    size: str | tuple[int, int] | None = None,
) -> CameraPath:
    """The path called `name` through `scene`.

    Args:
        scene: cameras and times suffice; no frame is read.
        name: "spiral", "orbit", "interpolate" (through the training cameras), "stabilised" (what a moving camera
            did, without its shake); "test", "train" or "val" (all views of a split), "test:NAME" (the one called
            NAME, or the NAME-th, held still); or a .json file, see `path_files`.
        frames: F, evenly spaced over the whole path; of each camera for "test" and its like. Default: as many as
            `fps` and `speed` make of the scene's duration, or of the file's.
        time: "play" (the file's times, where it has some), "freeze=T", "sweep=A:B" or "ping-pong", in [0, 1].
        fps: frames per second; default: the file's, else the scene's.
        speed: 0.25 for four times slower, at times between the scene's.
        lens: one of `path_lenses.LENSES`; default: the path's own.
        size: width and height of the image, or a text such as "960x540"; default: the path's own.
    Raises:
        RunError: names the option or the file, what is wrong with it, and the remedy.

    Example:
        >>> len(make_path(load_scene("demo"), "orbit", time="freeze=0.5", fps=30.0, speed=0.5, size="320x180"))
        56
    """
    timing = make_timing(scene, time, frames, fps, speed)
    code = None if lens is None else parse_lens(lens)
    pixels = None if size is None else parse_size(size)
    split, colon, view = name.partition(":")
    if split in ("train", "test", "val"):
        path = _one_view(scene, split, view, timing) if colon else split_views(scene, split, timing)
    elif name.endswith(".json"):
        path = _along_file(scene, read_path(Path(name), scene), timing)
    elif name in PATHS:
        path = _along_rig(scene, name, timing)
    else:
        raise RunError(f"--path {name}: unknown path; use one of {', '.join(PATHS)}, test:NAME or a .json file")
    cameras = path.cameras.to("cpu")
    if code is not None:
        poses = _training_poses(scene)
        eyes = EYE_DISTANCE * scene.transform.scale
        cameras = with_lens(cameras, code, mean_up(poses), focus_point(poses), eyes)
    if pixels is not None:
        cameras = with_size(cameras, pixels)
    return replace(path, cameras=cameras)


def split_views(scene: Scene, split: str, timing: Timing) -> CameraPath:
    """Each camera of a split through all its frames, one camera after the other; where the cameras move, the
    split's images in the order of time, or for other times and frame rates the way through them."""
    images = _images(scene, split)
    views = view_rows(images, scene.static_cameras)
    if timing.plain or scene.num_frames == 1:
        rows = np.concatenate([rows[_spread(len(rows), timing.frames)] for rows in views.values()])
        return _path(scene.cameras, images.camera.numpy()[rows], images.time.numpy()[rows], timing)
    if not scene.static_cameras:
        return _follow(scene, split, timing)
    count = _still_count(timing)
    camera = np.repeat(np.array(list(views)), count)
    return _path(scene.cameras, camera, np.tile(timing.times(count), len(views)), timing)


def view_rows(images: Images, static_cameras: bool) -> dict[int, np.ndarray]:
    """Rows of `images` in the order of time, by camera; all under -1 where each image has its own camera."""
    camera = images.camera.numpy() if static_cameras else np.full(len(images), -1)
    order = np.lexsort((images.time.numpy(), camera))
    return {int(c): order[camera[order] == c] for c in np.unique(camera)}


def _one_view(scene: Scene, split: str, view: str, timing: Timing) -> CameraPath:
    """The view of a split that has this name, or this number in the order of the data set, held still."""
    cameras = torch.unique(_images(scene, split).camera).tolist()
    named = {scene.cameras.names[camera]: camera for camera in cameras}
    numbered = {str(number): camera for number, camera in enumerate(cameras)}
    camera = named.get(view, numbered.get(view))
    if camera is None:
        some = ", ".join(list(named)[:_NAMED]) + (", ..." if len(named) > _NAMED else "")
        raise RunError(
            f"--path {split}:{view}: no such view; use a number below {len(cameras)} or one of the names {some}"
        )
    count = _still_count(timing)
    return _path(scene.cameras.select([camera]), np.zeros(count, np.int64), timing.times(count), timing)


def _still_count(timing: Timing) -> int:
    """F of a camera that stands still: where time does too, one frame shows all."""
    return timing.count if timing.kind != "freeze" and timing.rate else timing.frames or 1


def _along_rig(scene: Scene, name: str, timing: Timing) -> CameraPath:
    poses, count = _training_poses(scene), timing.count
    moving = not scene.static_cameras and scene.num_frames > 1
    if name == "stabilised" and not moving:
        raise RunError("--path stabilised: the cameras of this scene stand still; use --path interpolate or orbit")
    if moving and name in ("interpolate", "stabilised"):
        return _follow(scene, "train", timing, steady=name == "stabilised")
    if name == "spiral":
        placed = spiral_poses(poses, count)
    elif name == "orbit":
        placed = orbit_poses(poses, count)
    else:
        placed = _tour(poses, count)
    return _path(_plain_cameras(scene, placed), np.arange(count), timing.times(count), timing)


def _tour(poses: np.ndarray, count: int) -> np.ndarray:
    """(F, 3, 4) smoothly through all poses (C, 3, 4), and back to the first where they surround what they look at."""
    closed = len(poses) > 2 and surrounds(poses, focus_point(poses))
    poses = poses[visiting_order(poses, closed)]
    way = pose_distance(poses, np.roll(poses, -1, axis=0)) + 1e-6
    knots = np.concatenate([[0.0], np.cumsum(way[:-1])])
    period = float(way.sum()) if closed else None
    return pose_spline(knots, poses, np.linspace(0, period or knots[-1], count, endpoint=not closed), period)


def _follow(scene: Scene, split: str, timing: Timing, steady: bool = False) -> CameraPath:
    """The way of a moving camera; through frozen time as it went through its own."""
    images = _images(scene, split)
    rows = view_rows(images, False)[-1]
    knots, first = np.unique(images.time.numpy()[rows].astype(np.float64), return_index=True)
    poses = scene.cameras.camera_to_world.double().cpu().numpy()[images.camera.numpy()[rows[first]]]
    count = timing.count
    at = np.linspace(knots[0], knots[-1], count) if timing.kind == "freeze" else timing.times(count)
    if steady:
        # at least over neighbouring keys
        spacing = float(np.diff(knots).mean()) if len(knots) > 1 else 1.0
        placed = smoothed_poses(knots, poses, at, max(_STEADY * scene.fps / timing.rate, spacing))
    else:
        placed = pose_spline(knots, poses, at)
    return _path(_plain_cameras(scene, placed), np.arange(count), timing.times(count), timing)


def _along_file(scene: Scene, file: PathFile, timing: Timing) -> CameraPath:
    """The path through a file's keys, at its pace and its times unless others are asked for."""
    fps = file.fps or scene.fps
    keys = len(file.keys)
    moments = [key.seconds for key in file.keys if key.seconds is not None]
    length = file.seconds or (moments[-1] if moments else timing.seconds)
    knots = np.array(moments or np.arange(keys) * length / max(keys - (not file.closed), 1))
    count = timing.count_of(length, file.closed, fps)
    period = length if file.closed else None
    at = np.linspace(0, length, count, endpoint=not file.closed)
    poses = pose_spline(knots, scene.transform.apply_poses(file.poses), at, period)
    cameras = _file_cameras(scene, file, poses, knots, at, period)
    times = timing.times(count)
    own = [key.time for key in file.keys if key.time is not None]
    if own and timing.kind == "play":
        times = number_line(knots, np.array(own), at, period)
    path = _path(cameras, np.arange(count), times, timing)
    return replace(path, fps=timing.fps or fps)


def _file_cameras(
    scene: Scene, file: PathFile, poses: np.ndarray, knots: np.ndarray, at: np.ndarray, period: float | None
) -> Cameras:
    """A file's lens at poses (F, 3, 4); what it leaves out is the first training camera's."""
    first, lens, scale = _first_camera(scene), LENS_NAMES.index(file.lens), scene.transform.scale
    width, height = first.size(0)
    if lens in (EQUIRECTANGULAR, STEREO_360):
        width, height = 2 * height, height * (2 if lens == STEREO_360 else 1)
    width, height = file.width or width, file.height or height
    if lens in (EQUIRECTANGULAR, STEREO_360):
        focals = panorama_focals(torch.tensor([[width, height]]), lens).numpy().repeat(len(at), axis=0)
    else:
        default = float(first.intrinsics[0, 1]) * height / first.size(0)[1]
        log_focals = np.log(file.focals(height, default))
        focals = np.exp(number_spline(knots, log_focals, at, period)) / (scale if lens == ORTHOGRAPHIC else 1)
    centre = (file.cx if file.cx is not None else width / 2, file.cy if file.cy is not None else height / 2)
    distortion = [file.distortion.get(name, 0.0) for name in DISTORTION]
    if lens == STEREO_360:
        distortion = [0.5 * file.eye_distance * scale, *[0.0] * 7]
    count = len(at)
    return make_cameras(
        poses,
        np.concatenate([focals, np.tile(centre, (count, 1))], axis=1),
        np.tile(distortion, (count, 1)),
        np.full(count, lens),
        np.tile([width, height], (count, 1)),
        _names(count),
    )


def _plain_cameras(scene: Scene, poses: np.ndarray) -> Cameras:
    """Pinhole cameras at poses (F, 3, 4), with the field of view of the first that trains."""
    first = _first_camera(scene)
    return replace(
        first.select([0] * len(poses)),
        camera_to_world=torch.from_numpy(poses).float(),
        names=_names(len(poses)),
    )


def _first_camera(scene: Scene) -> Cameras:
    """The first training camera, as a pinhole."""
    first = scene.cameras.select(scene.images("train").camera[:1]).to("cpu")
    return with_lens(first, PINHOLE, np.array([0.0, 0.0, 1.0]), np.zeros(3), 0.0)


def _training_poses(scene: Scene) -> np.ndarray:
    """(C, 3, 4) float64."""
    return scene.cameras.select(torch.unique(scene.images("train").camera)).camera_to_world.double().cpu().numpy()


def _images(scene: Scene, split: str) -> Images:
    images = scene.splits.get(split)
    if images is None or len(images) == 0:
        raise RunError(f"--path {split}: the run holds no {split} views; use --path spiral or --path orbit")
    return images


def _path(cameras: Cameras, camera: np.ndarray, times: np.ndarray, timing: Timing) -> CameraPath:
    return CameraPath(cameras, camera, times.astype(np.float32), timing.fps or timing.scene_fps)


def _names(count: int) -> tuple[str, ...]:
    return tuple(f"frame-{k:05d}" for k in range(count))


def _spread(total: int, count: int | None) -> np.ndarray:
    """`count` of `total` indices, evenly spaced from the first to the last."""
    if count is None or count >= total:
        return np.arange(total)
    return np.linspace(0, total - 1, count).round().astype(np.int64)
