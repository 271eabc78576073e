"""From what a user asks for to a training that runs: what can be wrong is found before the first step."""

from pathlib import Path

import msth_taichi
from msth_taichi.config import dump_config, load_config, load_preset, preset_names
from msth_taichi.errors import ConfigError, RunError
from msth_taichi.evaluation.evaluate import evaluate
from msth_taichi.files import write_text
from msth_taichi.kernels import runtime
from msth_taichi.scene.scene import load_scene
from msth_taichi.training.checkpoint import checkpoint_path
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
        checkpoint_path(output)
        config = load_config(output / "config.toml", overrides)
    else:
        require_free(output, overwrite)
        if preset is None:
            raise ConfigError(f"--preset is missing; choose one of {', '.join(preset_names())}")
        config = load_preset(preset, overrides)
    # before the data: the built-in scene is made by kernels and would start Taichi on a device of its choice
    runtime.init(arch, threads=config.training.threads)  # type: ignore[arg-type] init checks the name
    scene = load_scene(data, config.data)
    if resume and steps is not None:  # or a later --resume would stop where the first run did
        write_text(output / "config.toml", dump_config(config, msth_taichi.__version__))

    def compare(run: Run) -> None:
        evaluate(run, scene)

    return train(scene, config, output, arch=arch, resume=resume, overwrite=overwrite, on_evaluation=compare)


def require_free(output: Path, overwrite: bool) -> None:
    """Raise RunError if a run would replace what is at `output` without being told to."""
    if output.is_dir() and not any(output.iterdir()):
        return
    if output.exists() and not overwrite:
        raise RunError(f"{output}: already exists; pass --overwrite to replace it or choose another --output")
