"""Radiance fields of moving scenes, with masked space-time hash encoding.

    import msth_taichi as msth

    run = msth.load_run("runs/demo")
    image = run.render("cam00", time=0.5)["rgb"]

Names load on first use: importing the package imports neither torch nor taichi.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from msth_taichi.errors import MsthError

if TYPE_CHECKING:
    from msth_taichi.config import Config, load_config, load_preset, preset_names
    from msth_taichi.evaluation.evaluate import evaluate
    from msth_taichi.exporting.cameras import export_cameras
    from msth_taichi.exporting.compact import export_compact
    from msth_taichi.exporting.mesh import export_mesh
    from msth_taichi.exporting.points import export_points
    from msth_taichi.model.renderer import render_image
    from msth_taichi.rendering.paths import make_path
    from msth_taichi.rendering.render import render_path
    from msth_taichi.scene.cameras import Cameras, perspective_camera
    from msth_taichi.scene.scene import Scene, load_scene
    from msth_taichi.training.run import RenderedImage, Run, load_run
    from msth_taichi.training.trainer import train

__version__ = "0.1.0"

_HOMES = {
    "Cameras": "scene.cameras",
    "Config": "config",
    "RenderedImage": "training.run",
    "Run": "training.run",
    "Scene": "scene.scene",
    "evaluate": "evaluation.evaluate",
    "export_cameras": "exporting.cameras",
    "export_compact": "exporting.compact",
    "export_mesh": "exporting.mesh",
    "export_points": "exporting.points",
    "load_config": "config",
    "load_preset": "config",
    "load_run": "training.run",
    "load_scene": "scene.scene",
    "make_path": "rendering.paths",
    "perspective_camera": "scene.cameras",
    "preset_names": "config",
    "render_image": "model.renderer",
    "render_path": "rendering.render",
    "train": "training.trainer",
}

__all__ = [
    "Cameras",
    "Config",
    "MsthError",
    "RenderedImage",
    "Run",
    "Scene",
    "__version__",
    "evaluate",
    "export_cameras",
    "export_compact",
    "export_mesh",
    "export_points",
    "load_config",
    "load_preset",
    "load_run",
    "load_scene",
    "make_path",
    "perspective_camera",
    "preset_names",
    "render_image",
    "render_path",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'msth_taichi' has no attribute '{name}'")
    value = getattr(import_module(f"msth_taichi.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
