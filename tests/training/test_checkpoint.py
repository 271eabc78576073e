"""Checkpoints of any module: read back exactly, the newest two kept, and damage told by name."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import nn

from msth_taichi.errors import RunError
from msth_taichi.sampling import Sampler
from msth_taichi.training import checkpoint
from msth_taichi.training.checkpoint import (
    State,
    checkpoint_path,
    checkpoint_steps,
    load_model,
    load_training,
    read_state,
    save_checkpoint,
)
from msth_taichi.training.grid_adam import GridAdam

FILES = ("model.safetensors", "optimizer.safetensors", "state.json")


class Regression(nn.Linear):
    """A model without fields: torch's own optimiser moves all of it."""

    def fields(self) -> list:
        return []


class Training:
    """A small regression with its own random numbers."""

    def __init__(self, width: int = 4, device: str = "cpu", loss_scale: float | None = None):
        self.model = Regression(3, width, device=device)
        self.unused = nn.Parameter(torch.ones(2, device=device))  # no gradient, so no moments
        self.model.register_parameter("unused", self.unused)
        self.optimizer = GridAdam(self.model, 0.1, loss_scale)
        self.generator = torch.Generator(device).manual_seed(1)

    def step(self) -> None:
        x = torch.rand(8, 3, generator=self.generator, device=self.generator.device)
        self.optimizer.zero_grad()
        self.model(x).square().mean().backward(self.optimizer.loss_scale)
        self.optimizer.step()

    def save(self, run: Path, step: int, **values) -> Path:
        return save_checkpoint(run, self.model, self.optimizer, self.generator.get_state(), State(step, **values))

    def load(self, folder: Path) -> State:
        return load_training(folder, self.model, self.optimizer, self.generator)


@pytest.mark.parametrize("loss_scale", [None, 1024.0])
def test_a_training_goes_on_as_if_it_had_not_stopped(tmp_path, device, loss_scale):
    first = Training(device=device.type, loss_scale=loss_scale)
    for _ in range(3):
        first.step()
    if loss_scale:
        first.optimizer.loss_scale.fill_(300.0)  # as overflows and growth leave it
    folder = first.save(tmp_path, 3, since_update=2)
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    second = Training(device=device.type, loss_scale=loss_scale)
    state = second.load(folder)
    assert state == State(3, 2) == read_state(folder)
    assert second.optimizer.loss_scale.item() == (300.0 if loss_scale else 1.0)
    for _ in range(3):
        first.step()
        second.step()
    for a, b in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(first.optimizer.loss_scale, second.optimizer.loss_scale)
    assert torch.equal(first.generator.get_state(), second.generator.get_state())


def test_a_model_is_read_back_alone(tmp_path):
    first, second = Training(), Training()
    first.step()
    load_model(first.save(tmp_path, 1), second.model)
    assert torch.equal(first.model.weight, second.model.weight)


def test_the_newest_two_are_kept(tmp_path):
    training = Training()
    for step in (5, 10, 15, 100000000):
        training.save(tmp_path, step)
    assert checkpoint_steps(tmp_path) == [15, 100000000]
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-00000015", "step-100000000"]
    assert checkpoint_path(tmp_path).name == "step-100000000"
    assert checkpoint_path(tmp_path, 15).name == "step-00000015"


def test_a_missing_checkpoint_is_told_with_those_that_are_there(tmp_path):
    with pytest.raises(RunError, match="no checkpoint; train first"):
        checkpoint_path(tmp_path)
    Training().save(tmp_path, 5)
    with pytest.raises(RunError, match="no checkpoint of step 6; there are 5"):
        checkpoint_path(tmp_path, 6)


def test_what_a_killed_process_left_is_ignored_and_removed(tmp_path):
    unfinished = tmp_path / "checkpoints" / ".step-00000007.123"
    unfinished.mkdir(parents=True)
    (unfinished / "model.safetensors").write_bytes(b"half")
    assert checkpoint_steps(tmp_path) == []
    Training().save(tmp_path, 5)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000005"]


def test_a_refused_write_keeps_earlier_checkpoints(tmp_path, monkeypatch):
    training = Training()
    training.save(tmp_path, 5)

    def full(tensors, path):
        path.write_bytes(b"half")
        raise checkpoint.SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(RunError, match=r"step-00000006: cannot be written .*No space left.*free the disk"):
        training.save(tmp_path, 6)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000005"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["truncated", "empty", "missing", "garbage"])
def test_damaged_files_are_named_with_the_remedy(tmp_path, name, damage):
    training = Training()
    training.step()
    folder = training.save(tmp_path, 5)
    path = folder / name
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes({"truncated": content[:-9], "empty": b"", "garbage": b"\x00" * len(content)}[damage])
    with pytest.raises(RunError) as caught:
        Training().load(folder)
    assert str(path) in str(caught.value) and f"delete {folder} to use an older checkpoint" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    ["[]", "{}", '{"steps": 5}', "5", "null", '{"step": "x", "since_update": 1}', '{"step": 5, "since_update": -1}'],
)
def test_a_state_of_another_kind_is_named(tmp_path, content):
    folder = Training().save(tmp_path, 5)
    (folder / "state.json").write_text(content)
    with pytest.raises(RunError, match=r"state.json: missing or damaged"):
        read_state(folder)


def test_state_is_plain_json(tmp_path):
    text = (Training().save(tmp_path, 5) / "state.json").read_text()
    assert json.loads(text) == {"step": 5, "since_update": 1}


def test_an_early_checkpoint_is_read(tmp_path):
    """Its state.json held the state of a gradient scaler too, and there was no loss scale."""
    training = Training()
    training.step()
    folder = training.save(tmp_path, 5)
    (folder / "state.json").write_text('{"step": 5, "since_update": 2, "scaler": {"scale": 1024.0}}')
    assert read_state(folder) == State(5, 2)
    tensors = checkpoint.load_file(folder / "optimizer.safetensors")
    del tensors["loss_scale"]
    checkpoint.save_file(tensors, folder / "optimizer.safetensors")
    other = Training()
    other.load(folder)
    assert torch.equal(other.model.weight, training.model.weight)


def test_another_model_size_is_told_and_changes_nothing(tmp_path):
    folder = Training(width=4).save(tmp_path, 5)
    other = Training(width=6)
    before = other.model.weight.clone()
    with pytest.raises(
        RunError, match=r"model.safetensors: of another model size \('\w+' is \(4.*config.toml says \(6"
    ):
        other.load(folder)
    assert torch.equal(other.model.weight, before)


def test_another_model_is_told(tmp_path):
    folder = Training().save(tmp_path, 5)
    with pytest.raises(RunError, match=r"of another model \('unused' is only in one\)"):
        load_model(folder, nn.Linear(3, 4))


def test_random_numbers_of_another_kind_are_told(tmp_path):
    folder = Training().save(tmp_path, 5)
    training = Training()
    others = {"generator": torch.zeros(3, dtype=torch.uint8), "loss_scale": torch.ones(())}
    checkpoint.save_file(others, folder / "optimizer.safetensors")
    with pytest.raises(
        RunError, match=r"safetensors: of a training on another kind of device; resume it with --arch cuda"
    ):
        training.load(folder)


class Counting(Sampler):
    """A sampler whose state is what it was told."""

    learns = True

    def __init__(self, cells: int = 3):
        self.errors = torch.zeros(cells)

    def state(self) -> dict[str, torch.Tensor]:
        return {"errors": self.errors.clone(), "updates": torch.tensor(7)}

    def load_state(self, values: Mapping[str, torch.Tensor]) -> None:
        self.errors.copy_(values["errors"])
        assert values.keys() == {"errors", "updates"}


def save_with(sampler: Sampler, run: Path) -> Path:
    training = Training()
    training.step()
    return save_checkpoint(run, training.model, training.optimizer, training.generator.get_state(), State(5), sampler)


def load_with(sampler: Sampler, folder: Path) -> State:
    training = Training()
    return load_training(folder, training.model, training.optimizer, training.generator, sampler)


def test_what_a_sampler_has_learnt_is_kept(tmp_path):
    first, second = Counting(), Counting()
    first.errors.copy_(torch.tensor([0.5, -1.0, 3.0]))
    folder = save_with(first, tmp_path)
    first.errors.zero_()
    load_with(second, folder)
    assert second.errors.tolist() == [0.5, -1.0, 3.0]
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)


def test_a_sampler_that_learns_nothing_has_nothing_kept(tmp_path):
    folder = save_with(Sampler(), tmp_path)
    assert not [name for name in checkpoint.load_file(folder / "optimizer.safetensors") if name.startswith("sampler")]
    load_with(Sampler(), folder)


@pytest.mark.parametrize("of", ["another kind", "another size"])
def test_a_samplers_state_that_does_not_fit_is_told(tmp_path, of):
    folder = save_with(Sampler() if of == "another kind" else Counting(4), tmp_path)
    with pytest.raises(RunError, match=r"optimizer.safetensors: does not belong to this run or device"):
        load_with(Counting(3), folder)
