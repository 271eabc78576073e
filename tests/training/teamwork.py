"""What each process of a team does in tests/training/test_team.py: `python -m tests.training.teamwork FOLDER [RAYS]`.

FOLDER holds config.toml; results are written beside it, by rank. With RAYS, the second process has memory for no more.
"""

import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from msth_taichi.config import load_config
from msth_taichi.kernels import runtime
from msth_taichi.scene.scene import load_scene
from msth_taichi.training import trainer as training
from msth_taichi.training.team import Team, join, leave
from msth_taichi.training.trainer import Trainer

SCENE = "synthetic:cameras=3,test_cameras=1,frames=4,width=24,height=18"
STEPS = 7


def gradients(trainer: Trainer) -> dict[str, torch.Tensor]:
    """Of the first batch, added up over the team; the parameters are left as they are."""
    optimizer, move = trainer.optimizer, trainer.optimizer.step
    optimizer.step = lambda: None  # type: ignore[method-assign]
    trainer.step()
    optimizer.step = move  # type: ignore[method-assign]
    found = {name: p.grad for name, p in trainer.model.named_parameters() if p.grad is not None}
    optimizer.add(found.values())
    return {name: gradient.clone() for name, gradient in found.items()}


def work(folder: Path, team: Team) -> None:
    device = runtime.device()
    trainer = Trainer(load_scene(SCENE), load_config(folder / "config.toml"), folder / "run", device, False, team=team)
    save_file(gradients(trainer), folder / f"gradients-{team.rank}-{team.size}.safetensors")
    trainer.state.step = trainer.state.since_update = 0
    while trainer.state.step < STEPS:
        trainer.step()
    parameters = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    save_file(parameters | trainer.sampler.state(), folder / f"parameters-{team.rank}-{team.size}.safetensors")


def work_with_memory_for(rays: int, folder: Path, team: Team) -> None:
    """A whole training, in which the second process runs out of memory; writes what it tried and did at last."""
    plain, sizes = training.losses, []

    def losses(model: Any, batch: Any, *arguments: Any, **options: Any) -> Any:
        sizes.append(len(batch))
        found = plain(model, batch, *arguments, **options)
        if team.rank == 1 and len(batch) > rays:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return found

    training.losses = losses  # type: ignore[assignment]
    config = load_config(folder / "config.toml")
    (folder / "run").mkdir(exist_ok=True)
    trainer = Trainer(load_scene(SCENE), config, folder / "run", runtime.device(), False, team=team)
    trainer.run()
    parameters = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    save_file(parameters | {"sizes": torch.tensor(sizes)}, folder / f"parameters-{team.rank}-{team.size}.safetensors")


if __name__ == "__main__":
    process = join(runtime.init("cpu", threads=1))
    if sys.argv[2:]:
        work_with_memory_for(int(sys.argv[2]), Path(sys.argv[1]), process)
    else:
        work(Path(sys.argv[1]), process)
    leave()
