"""A trained run, opened: settings, scene and field, ready to render without the data set."""

import difflib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, TypedDict

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

import msth_taichi
from msth_taichi.config import Config, dump_config, load_config
from msth_taichi.errors import ConfigError, RunError
from msth_taichi.exporting.model_file import read_model_file
from msth_taichi.files import write_json, write_text
from msth_taichi.kernels import runtime
from msth_taichi.model.renderer import MODES, Mode, RadianceField, render_image
from msth_taichi.rendering.fast import FastRenderer
from msth_taichi.rendering.rigs import look_at
from msth_taichi.scene.cameras import Cameras, perspective_camera
from msth_taichi.scene.scene import Scene, describe, scene_from_description
from msth_taichi.training.checkpoint import checkpoint_path, load_model, load_parameters, read_state
from msth_taichi.training.segments import RECORD, SHARED, is_chain, read_cut, segment_path

_NAMED = 5  # cameras that an error lists


class RenderedImage(TypedDict):
    """One frame, on the run's device: rgb (H, W, 3) in [0, 1]; depth (H, W), median distance along the ray, scene
    units; accumulation (H, W), how much of a ray is absorbed; mask (H, W), 1 where what it sees is static."""

    rgb: torch.Tensor
    depth: torch.Tensor
    accumulation: torch.Tensor
    mask: torch.Tensor


class Moment(NamedTuple):
    """A run of one field that shows a time, when that is on its own axis, and its share of what is seen."""

    run: "Run"
    time: float
    weight: float


@dataclass
class Run:
    """A trained field with what is needed to use it.

    Args:
        path: the run folder, or the model file that was opened.
        config: its settings.
        scene: cameras, splits, normalisation and bounds; without frames.
        model: on the device, in evaluation mode.
        step: training steps done.

    Example:
        >>> run = load_run("runs/demo")
        >>> image = run.render("cam00", time=0.5)["rgb"]
    """

    path: Path
    config: Config
    scene: Scene
    model: RadianceField
    step: int

    @property
    def results(self) -> Path:
        """Folder of evaluations: the run folder; of a model file NAME.safetensors, NAME.results beside it."""
        return results_folder(self.path)

    @cached_property
    def renderer(self) -> FastRenderer:
        """What renders frames of this run."""
        return FastRenderer(self.model)

    def at(self, time: float) -> list[Moment]:
        """The fields whose renders, added up by their weights, show a time: one; two where segments of a long video
        overlap."""
        return [Moment(self, time, 1.0)]

    def render(self, camera: str | int | Cameras, time: float, *, mode: Mode = "full") -> RenderedImage:
        """One frame.

        Args:
            camera: name or row of a camera of the scene; or one of your own, see `look_at`.
            time: in [0, 1]: frame / number of frames.
            mode: "full"; "static" without what moves, or "dynamic", what moves alone.
        Raises:
            RunError: no such camera, a time out of range or an unknown mode.

        Example:
            >>> run.render("cam00", time=0.5)["depth"].shape
            torch.Size([96, 128])
        """
        if not 0 <= time <= 1:
            raise RunError(f"time {time}: outside of the scene; use a number from 0 (first frame) to 1")
        if mode not in MODES:
            raise RunError(f"mode '{mode}': unknown; use one of {', '.join(MODES)}")
        return self.renderer.image(self.camera(camera), 0, time, mode=mode)  # type: ignore[return-value]

    def camera(self, which: str | int | Cameras) -> Cameras:
        """One camera of the scene by name or row, in scene units; one `Cameras` as it is.

        Raises:
            RunError: none of that name or number, or not one.

        Example:
            >>> run.render(run.camera("cam00").scaled(0.5), time=0.5)["rgb"].shape
            torch.Size([48, 64, 3])
        """
        cameras = self.scene.cameras
        if isinstance(which, Cameras):
            if len(which) != 1:
                raise RunError(f"{len(which)} cameras given where one is seen through; choose by cameras.select([0])")
            return which
        if isinstance(which, str):
            if which not in cameras.names:
                near = difflib.get_close_matches(which, cameras.names, n=_NAMED, cutoff=0.6) or cameras.names[:_NAMED]
                raise RunError(f"camera '{which}': none of the {len(cameras)} of the scene; such are {', '.join(near)}")
            return cameras.select([cameras.names.index(which)])
        if not 0 <= which < len(cameras):
            raise RunError(f"camera {which}: the scene has cameras 0 to {len(cameras) - 1}")
        return cameras.select([which])

    def look_at(
        self,
        position: Sequence[float],
        target: Sequence[float],
        *,
        fov: float = 50.0,
        size: tuple[int, int] | None = None,
    ) -> Cameras:
        """A new camera, the mean up axis of the scene's pointing up in its image.

        Args:
            position: (3,) where it stands, the user's coordinates.
            target: (3,) what is in the middle of its image, the user's coordinates.
            fov: vertical field of view, degrees.
            size: width and height of its image, pixels; default: those of the scene's first camera.
        Raises:
            DataError: a field of view or size of no camera.

        Example:
            >>> camera = run.look_at(position=(0.0, -0.9, 0.3), target=(0.0, 0.0, 0.0), fov=70)
            >>> image = run.render(camera, time=0.5)["rgb"]
        """
        ends = self.scene.transform.apply_points(np.stack([position, target]))
        up = self.scene.cameras.camera_to_world[:, :, 1].double().mean(0).numpy()
        return perspective_camera(look_at(ends[0], ends[1], up), fov, size or self.scene.cameras.size(0))


def blended(moments: list[Moment], render: Callable[[Moment], dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """What the fields of a time show together.

    Args:
        moments: from `Run.at`.
        render: what one of them shows, by name.

    Example:
        >>> blended(run.at(0.5), lambda at: render_image(at.run.model, run.scene.cameras, 0, at.time))["rgb"].shape
        torch.Size([96, 128, 3])
    """
    if len(moments) == 1:
        return render(moments[0])
    parts = [(moment.weight, render(moment)) for moment in moments]
    return {name: sum(weight * part[name] for weight, part in parts) for name in parts[0][1]}  # type: ignore[misc]


def run_image(run: Run, cameras: Cameras, index: int, time: float) -> dict[str, torch.Tensor]:
    """A frame as training samples rays, without the shortcuts of `Run.render`; see `render_image`.

    Example:
        >>> run_image(run, run.scene.cameras, 0, time=0.5)["rgb"].shape
        torch.Size([96, 128, 3])
    """
    return blended(run.at(time), lambda at: render_image(at.run.model, cameras, index, at.time))


def write_run(path: Path, config: Config, scene: Scene) -> None:
    """Create the part of a run folder that does not change: config.toml and scene.json."""
    write_text(path / "config.toml", dump_config(config, msth_taichi.__version__))
    write_json(path / "scene.json", describe(scene))


def require_free(path: Path, overwrite: bool) -> None:
    """Make sure that a new run may be written to `path`.

    Raises:
        RunError: there is a run and `overwrite` is not set, or anything else, which is never overwritten.
    """
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not overwrite:
        raise RunError(f"{path}: already exists; pass --overwrite to replace it or choose another --output")
    if not ((path / "config.toml").is_file() and (path / "scene.json").is_file()):
        raise RunError(f"{path}: not a run folder, so it is not overwritten; choose another --output")


def load_run(path: str | Path, step: int | None = None, arch: str = "auto") -> Run:
    """Open a run folder, of one field or of the segments of a long video, or the model file that `msth export --to
    compact` made of one.

    Args:
        path: as `msth train --output` or `msth export --output` wrote it.
        step: checkpoint to load; default: the last. A model file has one, and of segments the last are used.
        arch: "auto", "cpu" or "cuda".
    Raises:
        RunError: not a run, no checkpoint, or a damaged one.
        ConfigError, DataError: config.toml or scene.json is damaged.
        DeviceError: no such device.

    Example:
        >>> run = load_run("runs/demo")
        >>> image = run.render("cam00", time=0.5)["rgb"]
    """
    path = Path(path)
    if path.is_file():
        return _load_file(path, step, arch)
    if is_chain(path):
        from msth_taichi.training.chain import load_chain  # it is made of runs

        return load_chain(path, step, arch)
    config = read_config(path)
    scene = read_scene(path)
    folder = checkpoint_path(path, step)
    device = runtime.init(arch, threads=config.training.threads)  # type: ignore[arg-type]
    with _Unfilled():
        model = make_model(config, scene)
    load_model(folder, model)
    return Run(path, config, scene, ready(model, device), read_state(folder).step)


def _load_file(path: Path, step: int | None, arch: str) -> Run:
    file = read_model_file(path)
    if step not in (None, file.step):
        raise RunError(f"{path}: holds step {file.step} alone, not {step}; leave --step out or give the run folder")
    device = runtime.init(arch, threads=file.config.training.threads)  # type: ignore[arg-type]
    with _Unfilled():
        model = make_model(file.config, file.scene, for_training=False)
    load_parameters(file.parameters, model, path)
    return Run(path, file.config, file.scene, ready(model, device), file.step)


class _Unfilled(TorchFunctionMode):
    """Leaves new parameters as their memory is: random numbers take a second, and a checkpoint overwrites them."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return args[0] if func is torch.Tensor.uniform_ else func(*args, **(kwargs or {}))


def make_model(config: Config, scene: Scene, for_training: bool = True) -> RadianceField:
    """A new model for a scene; without what only training reads, if it is not for that."""
    model = RadianceField(config, scene.box, scene.images("train").camera.unique())
    if not for_training:
        model.uncertainty = None
    return model


def ready(model: RadianceField, device: torch.device) -> RadianceField:
    """The same model on a device, to be used and no longer trained."""
    model.to(device).requires_grad_(False).eval()
    model.compute = compute_dtype(model.config, device)
    return model


def read_description(path: Path) -> tuple[Config, Scene]:
    """Settings and scene of a run folder or model file.

    Raises:
        RunError, ConfigError, DataError: as `load_run`.
    """
    if path.is_file():
        file = read_model_file(path)
        return file.config, file.scene
    return read_config(path), read_scene(path)


def run_files(path: Path, step: int | None = None) -> list[Path]:
    """The files that the images of a run folder or model file depend on; of segments those of the last step.

    Raises:
        RunError: no such checkpoint.
    """
    if path.is_file():
        return [path]
    own = [path / "config.toml", path / "scene.json"]
    if is_chain(path):
        count = len(read_cut(path).segments)
        return [*own, path / RECORD, *(file for k in range(count) for file in run_files(segment_path(path, k)))]
    shared = [path / SHARED] if (path / SHARED).is_file() else []
    return [checkpoint_path(path, step) / "model.safetensors", *own, *shared]


def last_step(path: Path) -> int | None:
    """The checkpoint of a run folder that is opened if none is named; None of a model file and of segments, for which
    none can be.

    Raises:
        RunError: no checkpoint, or a damaged one.
    """
    return None if path.is_file() or is_chain(path) else read_state(checkpoint_path(path)).step


def results_folder(path: Path) -> Path:
    """Where what is made of a run goes: the run folder; of a model file NAME.safetensors, NAME.results beside it."""
    return path.with_suffix(".results") if path.is_file() else path


def read_config(path: Path) -> Config:
    """The settings of a run folder."""
    if not (path / "config.toml").is_file():
        raise RunError(f"{path}: not a run folder (no config.toml); give the folder that msth train wrote")
    return load_config(path / "config.toml")


def read_scene(path: Path) -> Scene:
    """The scene of a run folder, without frames."""
    file = path / "scene.json"
    try:
        return scene_from_description(json.loads(file.read_text()), file)
    except (OSError, ValueError) as error:
        raise RunError(f"{file}: missing or damaged ({error}); restore it or train again") from error


def compute_dtype(config: Config, device: torch.device) -> torch.dtype:
    """dtype of features and MLPs on a device."""
    precision = config.training.precision
    if precision == "float16" and device.type == "cpu":
        raise ConfigError("training.precision = 'float16' needs a CUDA GPU; use 'auto' or 'float32'")
    return torch.float16 if device.type == "cuda" and precision != "float32" else torch.float32
