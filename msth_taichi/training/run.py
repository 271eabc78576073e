"""A run folder, opened: settings, scene and field, ready to render without the data set."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch

import msth_taichi
from msth_taichi.config import Config, dump_config, load_config
from msth_taichi.errors import ConfigError, RunError
from msth_taichi.files import write_json, write_text
from msth_taichi.kernels import runtime
from msth_taichi.model.renderer import Mode, RadianceField, render_image
from msth_taichi.scene.cameras import Cameras
from msth_taichi.scene.scene import Scene, describe, scene_from_description
from msth_taichi.training.checkpoint import checkpoint_path, load_model, read_state


@dataclass
class Run:
    """A trained field with what is needed to use it.

    Args:
        path: the run folder.
        config: its settings.
        scene: cameras, splits, normalisation and bounds; without frames.
        model: on the device, in evaluation mode.
        step: training steps done.
    """

    path: Path
    config: Config
    scene: Scene
    model: RadianceField
    step: int

    def render(self, cameras: Cameras, time: float, index: int = 0, mode: Mode = "full") -> dict[str, torch.Tensor]:
        """One frame: rgb (H, W, 3), depth, accumulation and mask (H, W); see `render_image`.

        Args:
            cameras: in scene units, such as `run.scene.cameras`.
            time: in [0, 1].
            index: which of the cameras.
            mode: "full", "static" or "dynamic".

        Example:
            >>> run = load_run("runs/demo")
            >>> image = run.render(run.scene.cameras, time=0.5)["rgb"]
        """
        return render_image(self.model, cameras, index, time, mode=mode)


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
    if not (path / "config.toml").is_file():
        raise RunError(f"{path}: not a run folder, so it is not overwritten; choose another --output")


def load_run(path: str | Path, step: int | None = None, arch: str = "auto") -> Run:
    """Open a run folder.

    Args:
        path: as `msth train --output` wrote it.
        step: checkpoint to load; default: the last.
        arch: "auto", "cpu" or "cuda".
    Raises:
        RunError: not a run folder, no checkpoint, or a damaged one.
        ConfigError, DataError: config.toml or scene.json is damaged.
        DeviceError: no such device.
    """
    path = Path(path)
    config = read_config(path)
    scene = read_scene(path)
    folder = checkpoint_path(path, step)
    device = runtime.init(arch, threads=config.training.threads)  # type: ignore[arg-type]
    model = RadianceField(config, scene.box, scene.images("train").camera.unique())
    load_model(folder, model)
    model.to(device).requires_grad_(False).eval()
    model.compute = compute_dtype(config, device)
    return Run(path, config, scene, model, read_state(folder).step)


def read_config(path: Path) -> Config:
    """The settings of a run folder."""
    if not (path / "config.toml").is_file():
        raise RunError(f"{path}: not a run folder (no config.toml); give the folder that msth train wrote")
    return load_config(path / "config.toml")


def read_scene(path: Path) -> Scene:
    """The scene of a run folder, without frames."""
    file = path / "scene.json"
    try:
        return scene_from_description(json.loads(file.read_text()))
    except (OSError, ValueError) as error:
        raise RunError(f"{file}: missing or damaged ({error}); restore it or train again") from error


def compute_dtype(config: Config, device: torch.device) -> torch.dtype:
    """dtype of features and MLPs on a device."""
    precision = config.training.precision
    if precision == "float16" and device.type == "cpu":
        raise ConfigError("training.precision = 'float16' needs a CUDA GPU; use 'auto' or 'float32'")
    return torch.float16 if device.type == "cuda" and precision != "float32" else torch.float32
