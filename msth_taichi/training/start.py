"""From what a user asks for to a training that runs: what can be wrong is found before the first step."""

import os
from pathlib import Path

from msth_taichi.config import load_config, load_preset, preset_names
from msth_taichi.errors import ConfigError, RunError
from msth_taichi.evaluation.evaluate import evaluate, require_same_cameras
from msth_taichi.kernels import runtime
from msth_taichi.scene.decoding import decode
from msth_taichi.scene.scene import Scene, load_scene
from msth_taichi.training.checkpoint import checkpoint_path, checkpoint_steps
from msth_taichi.training.run import Run, read_scene, require_free
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
    if restarted() and checkpoint_steps(output):
        # torchrun began again after a process had died: from the last checkpoint, with the settings of the run
        preset, settings, resume, overwrite = None, None, True, False
    elif restarted():
        overwrite = True
    leads = int(os.environ.get("RANK", "0")) == 0
    overrides = (settings or []) + ([f"training.steps={steps}"] if steps is not None else [])
    if resume:
        if preset or settings:
            raise ConfigError(
                f"--resume takes its settings from {output}/config.toml; beside it only --steps may be given"
            )
        if overwrite:
            raise ConfigError("--resume continues what is at --output and --overwrite replaces it; give one of them")
        checkpoint_path(output)
        config = load_config(output / "config.toml", overrides)
        if config.training.steps < (reached := checkpoint_steps(output)[-1]):
            raise ConfigError(
                f"training.steps={config.training.steps}: {output} is at step {reached}; give --steps more"
            )
    else:
        if leads:
            require_free(output, overwrite)
            _require_writable(output)
        if preset is None:
            raise ConfigError(f"--preset is missing; choose one of {', '.join(preset_names())}")
        config = load_preset(preset, overrides)
    # before the data: the built-in scene is made by kernels and would start Taichi on a device of its choice
    runtime.init(arch, threads=config.training.threads)  # type: ignore[arg-type] init checks the name
    scene = load_scene(data, config.data)
    if resume:
        require_same_cameras(scene, read_scene(output), output)
    if leads:
        _check_held_out(scene)

    def compare(run: Run) -> None:
        evaluate(run, scene)

    return train(scene, config, output, arch=arch, resume=resume, overwrite=overwrite, on_evaluation=compare)


def restarted() -> bool:
    """Whether torchrun started this process in place of one that had failed."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def _require_writable(output: Path) -> None:
    """Raise RunError if the folder that `output` will be in is none, or is closed to us."""
    parent = next(folder for folder in output.absolute().parents if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise RunError(f"{output}: {parent} is not a folder that can be written to; choose another --output")


def _check_held_out(scene: Scene) -> None:
    """Decode the frames that training does not read: a damaged one is better found now than by the evaluation."""
    if scene.path is None:
        return
    for split, images in scene.splits.items():
        if split != "train":
            decode(images, lambda row, frame: None, f"checking {split}")
