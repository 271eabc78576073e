"""What each process of a team does in tests/training/test_team.py: `python -m tests.training.teamwork FOLDER WORK`.

FOLDER holds config.toml; results are written beside it, by rank. WORK is "floats" or "integers", as which gradients of
tables meet, or the number of rays that the second process has memory for.
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
    optimizer.step = optimizer.meet  # type: ignore[method-assign]
    trainer.step()
    optimizer.step = move  # type: ignore[method-assign]
    found = {name: p.grad.clone() for name, p in trainer.model.named_parameters() if p.grad is not None}
    for number, field in enumerate(trainer.model.fields()):
        if field.encoding.sums is not None and field.flat is not None:
            kept = (*field.encoding.sums.gradients(), field.flat.gradients.clone())
            found |= {f"{number}.{part}": gradient for part, gradient in enumerate(kept)}
    optimizer.forget()
    return found


def work(kind: str, folder: Path, team: Team) -> None:
    config, device = load_config(folder / "config.toml"), runtime.device()
    training._sums_integers = lambda device: kind == "integers"  # as on a GPU
    trainer = Trainer(load_scene(SCENE), config, folder / "run", device, False, team=team)
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
    path, kind = Path(sys.argv[1]), sys.argv[2]
    if kind.isdigit():
        work_with_memory_for(int(kind), path, process)
    else:
        work(kind, path, process)
    leave()
