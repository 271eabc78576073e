"""TensorBoard event files in RUN/tensorboard; no network is needed."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from msth_taichi.tracking.visualizer import Visualizer
from msth_taichi.training.checkpoint import checkpoint_steps


class TensorBoard(Visualizer):
    """Look at it with `tensorboard --logdir RUN`.

    Args:
        run: folder of the run.
    """

    def __init__(self, run: Path):
        steps = checkpoint_steps(run)
        # a resumed run does the steps after its checkpoint again
        self._writer = SummaryWriter(str(run / "tensorboard"), purge_step=steps[-1] + 1 if steps else None)

    def text(self, name: str, text: str) -> None:
        self._writer.add_text(name, "    " + text.replace("\n", "\n    "))  # Markdown for "as it stands"

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        for name, image in images.items():
            self._writer.add_image(name, image, step, dataformats="HWC")

    def histogram(self, step: int, name: str, values: np.ndarray) -> None:
        self._writer.add_histogram(name, values, step)

    def close(self) -> None:
        self._writer.close()
