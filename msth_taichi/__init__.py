"""Radiance fields of moving scenes, with masked space-time hash encoding.

    import msth_taichi as msth

    scene = msth.load_scene("demo")
    run = msth.train(scene, msth.load_preset("demo"), "runs/demo")
    image = run.render(scene.cameras, time=0.5)["rgb"]

Names load on first use: importing the package imports neither torch nor taichi.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from msth_taichi.errors import MsthError

if TYPE_CHECKING:
    from msth_taichi.config import Config, load_config, load_preset, preset_names
    from msth_taichi.evaluation.evaluate import evaluate
    from msth_taichi.model.renderer import render_image
    from msth_taichi.rendering.paths import make_path
    from msth_taichi.rendering.render import render_path
    from msth_taichi.scene.scene import Scene, load_scene
    from msth_taichi.training.run import Run, load_run
    from msth_taichi.training.trainer import train

__version__ = "0.1.0"

_HOMES = {
    "Config": "config",
    "Run": "training.run",
    "Scene": "scene.scene",
    "evaluate": "evaluation.evaluate",
    "load_config": "config",
    "load_preset": "config",
    "load_run": "training.run",
    "load_scene": "scene.scene",
    "make_path": "rendering.paths",
    "preset_names": "config",
    "render_image": "model.renderer",
    "render_path": "rendering.render",
    "train": "training.trainer",
}

__all__ = [
    "Config",
    "MsthError",
    "Run",
    "Scene",
    "__version__",
    "evaluate",
    "load_config",
    "load_preset",
    "load_run",
    "load_scene",
    "make_path",
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
