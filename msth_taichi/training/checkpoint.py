"""Checkpoints: folders `checkpoints/step-00020000` with model and optimizer in safetensors and the rest in json.

A folder is written under a temporary name, flushed and renamed, so it is whole or not there. The newest two are
kept. Nothing is pickled: a stranger's run is safe to open.
"""

import json
import os
import re
import shutil
import sys
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from msth_taichi.errors import RunError
from msth_taichi.files import new_folder, remove_folder, replacing, unwritable, write_json
from msth_taichi.sampling import Sampler
from msth_taichi.training.grid_adam import GridAdam
from msth_taichi.training.segments import SHARED

KEPT = 2

_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


@dataclass
class State:
    """Where a training stands, beside its tensors.

    Args:
        step: steps done.
        since_update: steps since the proposals were last trained.
    """

    step: int = 0
    since_update: int = 1


def checkpoint_steps(run: Path) -> list[int]:
    """Steps of a run's checkpoints, in ascending order."""
    found = (re.fullmatch(r"step-(\d{8,})", entry.name) for entry in (run / "checkpoints").glob("step-*"))
    return sorted(int(match[1]) for match in found if match)


def checkpoint_path(run: Path, step: int | None = None) -> Path:
    """Folder of the checkpoint at `step`, or of the last one that is whole: of a damaged one a line is written.

    Raises:
        RunError: there is none.
    """
    steps = checkpoint_steps(run)
    if not steps:
        raise RunError(f"{run}/checkpoints: no checkpoint; train first, or give another run folder")
    if step is not None and step not in steps:
        raise RunError(f"{run}/checkpoints: no checkpoint of step {step}; there are {', '.join(map(str, steps))}")
    if step is not None:
        return _folder(run, step)
    for newest in map(partial(_folder, run), reversed(steps)):
        try:
            _require_whole(newest)
        except RunError as error:
            found = error
            continue
        if newest != _folder(run, steps[-1]):
            print(f"warning: {found}; going back to {newest}", file=sys.stderr)
        return newest
    return _folder(run, steps[-1])  # whoever reads it will say what is wrong


def steps_reached(run: Path) -> int:
    """Steps of the last checkpoint that is whole; 0 where there is no checkpoint."""
    return read_state(checkpoint_path(run)).step if checkpoint_steps(run) else 0


def _require_whole(folder: Path) -> None:
    """Raise RunError if a file is missing or cut: headers say how long they are, and nothing else is read."""
    read_state(folder)
    for name in ("model.safetensors", "optimizer.safetensors"):
        try:
            with safe_open(folder / name, "pt"):
                pass
        except (OSError, SafetensorError) as error:
            raise _damaged(folder / name, error) from error


def save_checkpoint(
    run: Path,
    model: nn.Module,
    optimizer: GridAdam,
    random_state: torch.Tensor,
    state: State,
    sampler: Sampler | None = None,
) -> Path:
    """Write a checkpoint and drop all but the newest two; what the run shares with others is not written again.

    Raises:
        RunError: the system refuses a write; earlier checkpoints stay.
    """
    shared = _names(run / SHARED) if (run / SHARED).is_file() else set()
    parameters = {name: p for name, p in model.named_parameters() if name not in shared}
    moments = {
        f"{key}/{name}": optimizer.state[parameter][key].detach().cpu().clone()
        for name, parameter in parameters.items()
        if parameter in optimizer.state
        for key in _MOMENTS
    }
    folder = _folder(run, state.step)
    try:
        with new_folder(folder) as temporary:
            save_file(
                {name: p.detach().cpu().clone() for name, p in parameters.items()},
                temporary / "model.safetensors",
            )
            others = {"generator": random_state.cpu(), "loss_scale": optimizer.loss_scale.cpu()}
            learnt = {} if sampler is None else sampler.state()
            others |= {f"sampler/{name}": tensor.cpu() for name, tensor in learnt.items()}
            save_file({**moments, **others}, temporary / "optimizer.safetensors")
            write_json(temporary / "state.json", asdict(state))
    except SafetensorError as error:  # not an OSError, whatever the system said
        raise unwritable(folder, error) from error
    for old in checkpoint_steps(run)[:-KEPT]:
        remove_folder(_folder(run, old))
    for unfinished in folder.parent.glob(".step-*"):  # of a process that was killed while it saved
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def load_model(folder: Path, model: nn.Module) -> None:
    """Copy a checkpoint's parameters into a model, with those that its run shares with others.

    Raises:
        RunError: a file is missing or truncated, or the model has other sizes.
    """
    path = folder / "model.safetensors"
    shared = folder.parents[1] / SHARED
    tensors = _load(shared) if shared.is_file() else {}
    load_parameters({**tensors, **_load(path)}, model, path)


def shared_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """What the segments of a long video have in common: static tables, colours and poses of cameras."""
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if name.endswith(".static_table") or name.startswith(("colors.", "poses."))
    }


def write_shared(path: Path, run: Path, model: nn.Module) -> None:
    """Write those of the last checkpoint of a run.

    Args:
        path: of the file.
        run: folder of the first segment.
        model: of its kind.
    Raises:
        RunError: no checkpoint, or the system refuses a write.
    """
    tensors = _load(checkpoint_path(run) / "model.safetensors")
    with replacing(path) as temporary:
        try:
            save_file({name: tensors[name] for name in shared_parameters(model)}, temporary)
        except SafetensorError as error:  # not an OSError, whatever the system said
            raise unwritable(path, error) from error


def link_shared(path: Path, run: Path) -> None:
    """Give a run folder the file at `path`: the same one under another name, or a copy where the disk has no such."""
    with replacing(run / SHARED) as temporary:
        try:
            os.link(path, temporary)
        except OSError:
            shutil.copyfile(path, temporary)


def load_parameters(tensors: dict[str, torch.Tensor], model: nn.Module, path: Path) -> None:
    """Copy tensors into the parameters of a model that have their names.

    Args:
        tensors: one for each parameter.
        model: changed in place.
        path: the file they are from, for errors.
    Raises:
        RunError: the model has other parameters, or of other sizes.
    """
    parameters = dict(model.named_parameters())
    different = sorted(tensors.keys() ^ parameters.keys())
    if different:
        raise RunError(f"{path}: of another model ('{different[0]}' is only in one); restore the run's own config.toml")
    for name, parameter in parameters.items():
        if tensors[name].shape != parameter.shape:
            raise RunError(
                f"{path}: of another model size ('{name}' is {tuple(tensors[name].shape)}, config.toml says "
                f"{tuple(parameter.shape)}); restore the run's own config.toml"
            )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[name])


def load_training(
    folder: Path, model: nn.Module, optimizer: GridAdam, generator: torch.Generator, sampler: Sampler | None = None
) -> State:
    """Bring model, optimizer and random numbers to where the checkpoint left them.

    Raises:
        RunError: as `load_model`.
    """
    load_model(folder, model)
    path = folder / "optimizer.safetensors"
    tensors = _load(path)
    state = read_state(folder)
    try:
        for name, parameter in model.named_parameters():
            if f"step/{name}" in tensors:  # a parameter that never had a gradient has no moments
                optimizer.load_moments(parameter, {key: tensors[f"{key}/{name}"] for key in _MOMENTS})
        if "loss_scale" in tensors:  # early runs have none
            optimizer.loss_scale.copy_(tensors["loss_scale"])
        if tensors["generator"].shape != generator.get_state().shape:  # those of CPUs and GPUs differ in length
            other = "cpu" if generator.device.type == "cuda" else "cuda"
            raise RunError(f"{path}: of a training on another kind of device; resume it with --arch {other}")
        generator.set_state(tensors["generator"])
        if sampler is not None:
            parts = ((name.split("/", 1), tensor) for name, tensor in tensors.items())
            sampler.load_state({name[1]: tensor for name, tensor in parts if name[0] == "sampler"})
    except (KeyError, TypeError, RuntimeError) as error:
        raise RunError(
            f"{path}: does not belong to this run or device ({error}); delete {folder} to use an older checkpoint"
        ) from error
    return state


def read_state(folder: Path) -> State:
    """A checkpoint's state.json.

    Raises:
        RunError: it is missing or damaged.
    """
    path = folder / "state.json"
    try:
        values = json.loads(path.read_text())
        values.pop("scaler", None)  # early runs have one
        if values.keys() != asdict(State()).keys():
            raise ValueError(f"expected the keys {', '.join(asdict(State()))}")
        if not all(type(values[key]) is int and values[key] >= 0 for key in ("step", "since_update")):
            raise ValueError("step and since_update are not whole numbers")
        return State(**values)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise _damaged(path, error) from error


def _load(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise _damaged(path, error) from error


def _names(path: Path) -> set[str]:
    try:
        with safe_open(path, "pt") as file:
            return set(file.keys())
    except (OSError, SafetensorError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> RunError:
    reason = " ".join(str(error).split())
    return RunError(f"{path}: missing or damaged ({reason}); delete {path.parent} to use an older checkpoint")


def _folder(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"step-{step:08d}"
