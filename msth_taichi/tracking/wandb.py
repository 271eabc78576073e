"""Weights & Biases: runs in RUN/wandb, sent to its server only for who is logged in."""

import html
import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from msth_taichi.tracking.visualizer import Visualizer

_PATIENCE = 60.0  # seconds that a server may take when a run begins, and again when it ends

wandb: Any = import_module("wandb")  # an extra, which a type checker need not find


class WeightsAndBiases(Visualizer):
    """A run of the project "msth_taichi" or what WANDB_PROJECT says, named like the run folder.

    Args:
        run: folder of the run.
    """

    def __init__(self, run: Path):
        settings = wandb.Settings(console="off", silent=True, init_timeout=_PATIENCE, finish_timeout=_PATIENCE)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "msth_taichi"),
            name=run.name,
            dir=str(run),
            mode=_mode(),
            reinit="create_new",
            settings=settings,
        )

    def text(self, name: str, text: str) -> None:
        self._run.log({name: wandb.Html(f"<pre>{html.escape(text)}</pre>", inject=False)}, commit=False)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        self._run.log({name: wandb.Image(image) for name, image in images.items()}, step=step)

    def histogram(self, step: int, name: str, values: np.ndarray) -> None:
        self._run.log({name: wandb.Histogram(values)}, step=step)

    def close(self) -> None:
        self._run.finish()


def _mode() -> str:
    """What WANDB_MODE says; online needs a login that is there already, for nobody may be there to be asked."""
    mode = os.environ.get("WANDB_MODE", "online")
    if mode == "online" and not wandb.login(prompt=False, verify=False):
        return "offline"
    return mode
