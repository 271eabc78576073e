"""The segments of a long video as one run: each moment is rendered by the one or two fields that know it."""

from dataclasses import replace
from pathlib import Path

import torch

from msth_taichi.config import Config
from msth_taichi.errors import RunError
from msth_taichi.kernels import runtime
from msth_taichi.model.rays import Rays
from msth_taichi.model.renderer import Mode
from msth_taichi.rendering.fast import FastRenderer, Shortcuts
from msth_taichi.scene.scene import Scene
from msth_taichi.training.checkpoint import checkpoint_steps, shared_parameters, steps_reached
from msth_taichi.training.run import Moment, Run, blended, load_run, read_config, read_scene
from msth_taichi.training.segments import Cut, read_cut, segment_path

_LOADED = 2  # segments: as many as show one moment


class Chain(Run):
    """A run whose video was cut into segments; used like any other.

    `model` is that of a segment that was used last; settings, cameras and what is learnt of cameras are the same in
    all. At most two segments are loaded at a time, and what all have in common is loaded once.

    Args:
        path: the run folder.
        config: settings of all segments.
        scene: of the whole video; without frames.
        cut: the segments.
        arch: that runtime was started on.

    Example:
        >>> chain = load_run("runs/long")
        >>> chain.render("cam00", time=0.5)["rgb"].shape
        torch.Size([96, 128, 3])
    """

    def __init__(self, path: Path, config: Config, scene: Scene, cut: Cut, arch: str = "auto"):
        self.cut, self._arch = cut, arch
        self._runs: dict[int, Run] = {}
        self._shared: dict[str, torch.Tensor] = {}
        self.path = path
        reached = min(steps_reached(segment_path(path, k)) for k in range(len(cut.segments)))
        super().__init__(path, config, scene, self.segment(0).model, reached)

    def at(self, time: float) -> list[Moment]:
        """See `Run.at`."""
        moments = []
        for number, weight in self.cut.weights(time):
            run = self.segment(number)
            moments.append(Moment(run, self.cut.segments[number].local(time), weight))
        self.model = moments[-1].run.model
        return moments

    def segment(self, number: int) -> Run:
        """A segment's own run, loaded if it is not."""
        run = self._runs.pop(number, None)
        if run is None:
            while len(self._runs) >= _LOADED:
                self._runs.pop(next(iter(self._runs)))
            run = load_run(segment_path(self.path, number), arch=self._arch)
            for name, parameter in shared_parameters(run.model).items():
                parameter.data = self._shared.setdefault(name, parameter.data)
        self._runs[number] = run  # the last of them was used last
        return run

    @property
    def renderer(self) -> "ChainRenderer":  # type: ignore[override] made anew: it keeps nothing
        """What renders frames of this run."""
        return ChainRenderer(self)


class ChainRenderer(FastRenderer):
    """Frames of all segments: rays are handed to the fields of their time.

    Args:
        chain: the run.
    """

    def __init__(self, chain: Chain):
        super().__init__(chain.model, Shortcuts(cells=0, sure=1.0))
        self._chain = chain

    @torch.no_grad()
    def rays(
        self, rays: Rays, time: float, *, mode: Mode = "full", behind: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """See `FastRenderer.rays`."""

        def seen(at: Moment) -> dict[str, torch.Tensor]:
            here = replace(rays, times=torch.full_like(rays.times, at.time))
            return at.run.renderer.rays(here, at.time, mode=mode, behind=behind)

        moments = self._chain.at(time)
        self.model = self._chain.model  # else it would hold a segment that is not loaded any more
        return blended(moments, seen)


def load_chain(path: Path, step: int | None = None, arch: str = "auto", unfinished: bool = False) -> Chain:
    """Open the folder of a run of segments; see `load_run`.

    Args:
        path: the run folder.
        step: must be None: segments are used as they were trained last.
        arch: "auto", "cpu" or "cuda".
        unfinished: whether all but the first segment may lack a checkpoint; their times then cannot be rendered.
    Raises:
        MsthError: as `load_run`.
    """
    if step is not None:
        raise RunError(f"--step {step}: {path} has several segments; leave it out, or give {segment_path(path, 0)}")
    config, cut = read_config(path), read_cut(path)
    missing = [k for k in range(len(cut.segments)) if not checkpoint_steps(segment_path(path, k))]
    if missing and not unfinished:
        raise RunError(
            f"{path}: segment {missing[0]:03d} of {len(cut.segments)} is not trained yet; go on with msth train "
            f"--output {path} --resume"
        )
    runtime.init(arch, threads=config.training.threads)  # type: ignore[arg-type] init checks the name
    return Chain(path, config, read_scene(path), cut, arch)
