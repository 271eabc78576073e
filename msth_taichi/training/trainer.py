"""The training loop.

One step: pixels, rays, samples, field, pixels again, losses, gradients, one step of Adam. The host never waits for
the device inside a step: losses are read when a line is logged.

Letters: N rays.
"""

import json
import math
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import torch
from tqdm import tqdm

from msth_taichi.config import Config
from msth_taichi.errors import ConfigError, DivergenceError
from msth_taichi.files import unwritable, write_text
from msth_taichi.kernels import runtime
from msth_taichi.model.losses import losses
from msth_taichi.model.renderer import RadianceField, anneal_exponent
from msth_taichi.sampling import make_sampler, require_suited
from msth_taichi.scene.frames import FrameStore
from msth_taichi.scene.scene import Scene
from msth_taichi.training.checkpoint import State, checkpoint_path, checkpoint_steps, load_training, save_checkpoint
from msth_taichi.training.run import Run, compute_dtype, require_free, write_run
from msth_taichi.training.schedules import learning_rate, proposals_are_due

ADAM_EPSILON = 1e-15
"""Makes Adam blind to the scale of a gradient, however small: the mask loss relies on it (released MSTH code)."""

_FIRST_LOSS_SCALE = 2.0**10


def train(
    scene: Scene,
    config: Config,
    output: str | Path,
    *,
    arch: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    on_evaluation: Callable[[Run], None] | None = None,
) -> Run:
    """Train a scene into a run folder.

    Stops early, with a checkpoint, on SIGINT or SIGTERM: `run.step` then is less than `training.steps`.

    Args:
        scene: with frames, from `load_scene`.
        config: all settings.
        output: run folder to create.
        arch: "auto", "cpu" or "cuda".
        resume: continue from the last checkpoint of `output`, exactly as if it had not stopped.
        overwrite: replace an existing run.
        progress: show bars.
        on_evaluation: called every `training.eval_every` steps.
    Returns:
        The run, loaded.
    Raises:
        RunError: `output` exists, or cannot be resumed.
        DivergenceError: the loss became NaN or infinite; the last good checkpoint stays.
        ConfigError: settings that do not fit the scene or the device.

    Example:
        >>> run = train(load_scene("demo"), load_preset("demo"), "runs/mine")
    """
    path = Path(output)
    device = runtime.init(arch, threads=config.training.threads)  # type: ignore[arg-type]
    if resume:
        checkpoint_path(path)
    else:
        require_free(path, overwrite)
    _check_transparency(scene, config)
    require_suited(scene, config.sampler)
    trainer = Trainer(scene, config, path, device, progress)
    if resume:
        trainer.restore()
    elif path.exists():
        shutil.rmtree(path)
    write_run(path, config, scene)  # on resuming too: training.steps and the place of the data may be new
    trainer.run(on_evaluation)
    return trainer.as_run()


class Trainer:
    """State of one training on one device.

    Args:
        scene: with frames.
        config: all settings.
        path: run folder.
        device: that kernels run on.
        progress: show bars.
    """

    def __init__(self, scene: Scene, config: Config, path: Path, device: torch.device, progress: bool = True):
        self.scene, self.config, self.path, self.device = scene, config, path, device
        self.progress = progress
        settings = config.training
        compute = compute_dtype(config, device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            self.model = RadianceField(config, scene.box).to(device)
        self.model.compute = compute
        self.optimizer = torch.optim.Adam(
            self.model.parameters(), lr=settings.learning_rate, eps=ADAM_EPSILON, fused=True
        )
        self.scaler = torch.amp.GradScaler(device.type, init_scale=_FIRST_LOSS_SCALE, enabled=compute == torch.float16)
        self.generator = torch.Generator(device).manual_seed(settings.seed)
        self.state = State()
        self.images = scene.images("train")
        self.store = FrameStore.from_images(
            self.images, scene.cameras, device, config.data.gpu_memory, progress=progress
        )
        self.sampler = make_sampler(scene, self.store, config.sampler, device, self.generator)
        self.cameras = scene.cameras.to(device)
        self.image_camera = self.images.camera.to(device)
        self.image_time = self.images.time.to(device)
        # the first step whose loss was not finite, kept on the device so that no step waits for it
        self._bad_step = torch.full((), math.inf, device=device, dtype=torch.float64)

    def restore(self) -> None:
        """Continue where the last checkpoint of the run folder stands."""
        self.state = load_training(checkpoint_path(self.path), self.model, self.optimizer, self.generator)
        if self.state.scaler:
            self.scaler.load_state_dict(self.state.scaler)
        _forget_later_lines(self.path / "metrics.jsonl", self.state.step)

    def as_run(self) -> Run:
        """The run, ready to render."""
        self.model.requires_grad_(False).eval()
        return Run(self.path, self.config, self.scene, self.model, self.state.step)

    def run(self, on_evaluation: Callable[[Run], None] | None = None) -> None:
        """Train to the last step, or until a signal asks to stop."""
        settings = self.config.training
        logged = saved = self.state.step
        clock = time.perf_counter()
        bar = tqdm(
            total=settings.steps,
            initial=self.state.step,
            desc="training",
            unit="step",
            disable=not self.progress,
        )
        with bar, stop_on_signal() as stopping:
            while self.state.step < settings.steps and not stopping.is_set():
                terms = self.step()
                step = self.state.step
                bar.update()
                last = step == settings.steps
                if step % settings.log_every == 0 or last:
                    now = time.perf_counter()
                    rate = (step - logged) * settings.rays_per_step / (now - clock)
                    self._log(terms, rate, bar)
                    clock, logged = now, step
                if step % settings.checkpoint_every == 0 or last:
                    self._save()
                    saved = step
                if on_evaluation and settings.eval_every and step % settings.eval_every == 0:
                    on_evaluation(self.as_run())
                    self.model.requires_grad_(True).train()
                    clock, logged = time.perf_counter(), step  # evaluation is not training speed
            if saved < self.state.step:  # a signal can come at any line above
                self._save()

    def step(self) -> dict[str, torch.Tensor]:
        """One step of optimisation; returns the loss terms, still on the device."""
        config, count = self.config, self.config.training.rays_per_step
        step = self.state.step
        due = proposals_are_due(step, self.state.since_update)
        pixels = self.sampler.sample(step, count)
        rays = self.model.rays(
            self.cameras,
            self.image_camera[pixels.image],
            pixels.row,
            pixels.column,
            self.image_time[pixels.image],
        )
        jitter = self._random(len(self.model.proposals) + 1, count)
        background = self.model.background(
            count, self._random(count, 3) if config.rays.background == "random" else None
        )
        target = self.store.gather(pixels.image, pixels.row, pixels.column)
        if target.shape[1] == 4:
            alpha = target[:, 3:]
            target = target[:, :3] * alpha + (1 - alpha) * background  # type: ignore[operator] checked at the start
        rendering = self.model(
            rays,
            jitter=jitter,
            anneal=anneal_exponent(step, config.rays.anneal_steps),
            train_proposals=due,
            background=background,
        )
        terms = losses(self.model, rendering, target, config.loss, due)
        loss = torch.stack(list(terms.values())).sum()
        self._bad_step = torch.where(loss.isfinite(), self._bad_step, self._bad_step.clamp(max=step + 1))
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step, config.training)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.state.since_update = 1 if due else self.state.since_update + 1
        self.state.step = step + 1
        return terms

    def _random(self, *shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=self.generator, device=self.device)

    def _log(self, terms: dict[str, torch.Tensor], rays_per_second: float, bar: tqdm) -> None:
        self._check_finite()
        values = dict(zip(terms, torch.stack(list(terms.values())).tolist(), strict=True))
        loss, psnr = sum(values.values()), -10 * math.log10(max(values["rgb"], 1e-12))
        bar.set_postfix(loss=f"{loss:.4f}", psnr=f"{psnr:.2f}", rays=f"{rays_per_second / 1e3:.0f}k/s")
        line = {
            "step": self.state.step,
            "loss": loss,
            "psnr": psnr,
            **{f"loss_{name}": value for name, value in values.items()},
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "rays_per_second": round(rays_per_second),
        }
        file = self.path / "metrics.jsonl"
        try:
            with file.open("a") as stream:
                stream.write(json.dumps(line) + "\n")
        except OSError as error:
            raise unwritable(file, error) from error

    def _save(self) -> None:
        self._check_finite()
        # a finite loss can still have had a gradient that was not
        if not all(parameter.isfinite().all() for parameter in self.model.parameters()):
            self._diverged(self.state.step, "a parameter")
        self.state.scaler = self.scaler.state_dict() if self.scaler.is_enabled() else None
        save_checkpoint(self.path, self.model, self.optimizer, self.generator, self.state)

    def _check_finite(self) -> None:
        bad = self._bad_step.item()
        if bad < math.inf:
            self._diverged(int(bad), "the loss")

    def _diverged(self, step: int, what: str) -> NoReturn:
        kept = checkpoint_steps(self.path)
        rest = f"the last good checkpoint is {checkpoint_path(self.path)}" if kept else "no checkpoint was written yet"
        raise DivergenceError(
            f"{what} is not a finite number at step {step}; {rest}; try a lower training.learning_rate"
        )


@contextmanager
def stop_on_signal() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set; a second signal does what it always does."""
    stopping = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopping  # only the main thread may handle signals
        return
    before: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def stop(number: int, _frame: Any) -> None:
        stopping.set()
        signal.signal(number, before[number])

    for number in before:
        signal.signal(number, stop)
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _check_transparency(scene: Scene, config: Config) -> None:
    if scene.images("train").channels == 4 and config.rays.background == "last_sample":
        raise ConfigError(
            "rays.background = 'last_sample' does not suit images with transparency; use white, black or random"
        )


def _forget_later_lines(path: Path, step: int) -> None:
    """Drop lines of steps that a resumed run does again, and one that a crash cut short."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (ValueError, KeyError, TypeError):
            continue
    write_text(path, "".join(kept))
