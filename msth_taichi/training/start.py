"""From what a user asks for to a training that runs: what can be wrong is found before the first step."""

from pathlib import Path

from msth_taichi.config import Config, load_config, load_preset, preset_names
from msth_taichi.errors import ConfigError, RunError
from msth_taichi.kernels import runtime
from msth_taichi.scene.scene import load_scene
from msth_taichi.training.run import Run
from msth_taichi.training.trainer import train


def start_training(
    data: str,
    output: Path,
    *,
    preset: str | None = None,
    steps: int | None = None,
    settings: list[str] | None = None,
    arch: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
) -> Run:
    """Train `data` into the run folder `output`.

    Args:
        data: path of a data set, or "demo".
        preset: required unless resuming, when the settings come from the run folder.
        steps: replaces training.steps; the only setting that may change on resuming.
        settings: overrides such as "training.rays_per_step=512".
        arch: "auto", "cpu" or "cuda".
    Raises:
        MsthError: a wrong setting, data set, device or run folder; nothing has been written then.
    """
    overrides = (settings or []) + ([f"training.steps={steps}"] if steps is not None else [])
    if resume:
        if preset or settings:
            raise ConfigError(
                f"--resume takes its settings from {output}/config.toml; beside it only --steps may be given"
            )
        config = load_run_config(output, overrides)
    else:
        require_free(output, overwrite)
        if preset is None:
            raise ConfigError(f"--preset is missing; choose one of {', '.join(preset_names())}")
        config = load_preset(preset, overrides)
    # before the data: the built-in scene is made by kernels and would start Taichi on a device of its choice
    runtime.init(arch, threads=config.training.threads)  # pyright: ignore[reportArgumentType] init checks the name
    scene = load_scene(data, config.data)
    return train(scene, config, output, preset=preset, arch=arch, resume=resume, overwrite=overwrite)


def load_run_config(run: Path, settings: list[str] | None = None) -> Config:
    """Settings of an existing run folder."""
    if not (run / "config.toml").is_file():
        raise RunError(f"{run}: not a run folder (no config.toml); give the folder msth train wrote")
    return load_config(run / "config.toml", settings)


def require_free(output: Path, overwrite: bool) -> None:
    """Raise RunError if a run would replace what is at `output` without being told to."""
    if output.is_dir() and not any(output.iterdir()):
        return
    if output.exists() and not overwrite:
        raise RunError(f"{output}: already exists; pass --overwrite to replace it or choose another --output")
