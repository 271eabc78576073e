"""What shows a training while it runs, behind one interface: chosen by name, and none of them can stop it.

Letters: H, W image size.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from tqdm import tqdm

from msth_taichi.config import nearest
from msth_taichi.errors import ConfigError, RunError

if TYPE_CHECKING:
    from msth_taichi.training.trainer import Trainer


class Visualizer(Protocol):
    """Shows what it is given, while a training runs. Made with the path of the run folder."""

    def text(self, name: str, text: str) -> None:
        """Plain text, the settings for instance."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of a step, by name: "train/loss", "eval/psnr"."""

    def images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Pictures of a step, by name: (H, W, 3) uint8."""

    def histogram(self, step: int, name: str, values: np.ndarray) -> None:
        """How numbers of a step are spread."""

    def after_step(self, trainer: "Trainer") -> None:
        """After each training step, on the main thread; only called where it is overridden."""

    def close(self) -> None:
        """Nothing comes any more."""


class _Kind(NamedTuple):
    package: str  # that its extra brings
    module: str
    name: str


_KINDS = {
    "tensorboard": _Kind("tensorboard", "msth_taichi.tracking.tensorboard", "TensorBoard"),
    "wandb": _Kind("wandb", "msth_taichi.tracking.wandb", "WeightsAndBiases"),
    "viewer": _Kind("viser", "msth_taichi.viewer.live", "LiveViewer"),
}


def parse_names(text: str) -> list[str]:
    """The names of `--vis`, each once; "none" is an empty list.

    Raises:
        ConfigError: an unknown name, or "none" beside others.

    Example:
        >>> parse_names("tensorboard,wandb")
        ['tensorboard', 'wandb']
    """
    names = list(dict.fromkeys(name.strip() for name in text.split(",")))
    if names == ["none"]:
        return []
    for name in names:
        if name == "none":
            raise ConfigError(f"--vis {text}: none goes with no other; leave it out")
        if name not in _KINDS:
            raise ConfigError(f"--vis {text}: unknown visualizer '{name}'{nearest(name, ['none', *_KINDS])}")
    return names


class Visualizers:
    """All that were chosen. One that raises is told in one line and left out from then on.

    Args:
        names: from `parse_names`; their packages are imported here.
        given: further arguments of those that take some, by name.
    Raises:
        RunError: a package is missing; says what to install.

    Example:
        >>> visualizers = Visualizers(["tensorboard"])
        >>> run = train(scene, config, "runs/first", visualizers=visualizers)
        >>> visualizers.close()
    """

    def __init__(self, names: Sequence[str] = (), given: Mapping[str, Mapping[str, Any]] | None = None):
        self._makers = {name: partial(_load(name), **(given or {}).get(name, {})) for name in names}
        self._open: dict[str, Visualizer] = {}
        self._stepping: dict[str, Visualizer] = {}

    def __bool__(self) -> bool:
        """Whether anything is shown."""
        return bool(self._open)

    def open(self, run: Path) -> None:
        """Begin, in a run folder that exists."""
        for name, make in self._makers.items():
            try:
                self.add(name, make(run))
            except Exception as error:
                _tell(name, error)

    def add(self, name: str, visualizer: Visualizer) -> None:
        """Show everything in one more, under a name that warnings give."""
        self._open[name] = visualizer
        if getattr(type(visualizer), "after_step", None) is not Visualizer.after_step:
            self._stepping[name] = visualizer

    def text(self, name: str, text: str) -> None:
        """See `Visualizer`."""
        self._each(self._open, lambda visualizer: visualizer.text(name, text))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """See `Visualizer`."""
        self._each(self._open, lambda visualizer: visualizer.scalars(step, values))

    def images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """See `Visualizer`."""
        self._each(self._open, lambda visualizer: visualizer.images(step, images))

    def histogram(self, step: int, name: str, values: np.ndarray) -> None:
        """See `Visualizer`."""
        self._each(self._open, lambda visualizer: visualizer.histogram(step, name, values))

    def after_step(self, trainer: "Trainer") -> None:
        """See `Visualizer`; nothing at all where none wants to be called."""
        if self._stepping:
            self._each(self._stepping, lambda visualizer: visualizer.after_step(trainer))

    def close(self) -> None:
        """End all; may be called again."""
        self._each(self._open, lambda visualizer: visualizer.close())
        self._open.clear()
        self._stepping.clear()

    def _each(self, visualizers: Mapping[str, Visualizer], call: Callable[[Visualizer], None]) -> None:
        for name, visualizer in list(visualizers.items()):
            try:
                call(visualizer)
            except Exception as error:  # whatever it is: a full disk, a lost server, a fault of the package
                _tell(name, error)
                self._open.pop(name, None)
                self._stepping.pop(name, None)
                with suppress(Exception):
                    visualizer.close()


def _load(name: str) -> Callable[..., Visualizer]:
    kind = _KINDS[name]
    try:
        import_module(kind.package)
    except Exception as error:  # packages that do not fit each other raise all sorts of errors
        raise RunError(
            f"--vis {name}: the package {kind.package} is not installed or cannot be loaded ({error}); "
            f"run: pip install 'msth_taichi[{name}]'"
        ) from error
    maker: Any = getattr(import_module(kind.module), kind.name)
    return maker


def _tell(name: str, error: Exception) -> None:
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    tqdm.write(f"warning: --vis {name} failed and is left out from here on ({reason}); training goes on", sys.stderr)
