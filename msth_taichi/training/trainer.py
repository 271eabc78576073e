"""The training loop.

One step: pixels, rays, samples, field, pixels again, losses, gradients, one step of Adam. The host never waits for
the device inside a step: losses are read when a line is logged.

Letters: N rays.
"""

import json
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from tqdm import tqdm

import msth_taichi
from msth_taichi.config import Config, dump_config
from msth_taichi.errors import ConfigError, DataError, DivergenceError, RunError
from msth_taichi.files import empty, unwritable, write_text
from msth_taichi.kernels import runtime
from msth_taichi.model.losses import losses, masked_fields
from msth_taichi.model.renderer import anneal_exponent
from msth_taichi.sampling import make_sampler, require_suited
from msth_taichi.scene.damage import warn_of_damage, without_damage
from msth_taichi.scene.depths import DepthStore
from msth_taichi.scene.frames import FrameStore
from msth_taichi.scene.scene import Scene
from msth_taichi.tracking.mask import mask_values
from msth_taichi.tracking.visualizer import Visualizers
from msth_taichi.training.batches import AHEAD, Batch, Batches
from msth_taichi.training.bounds import with_bounds
from msth_taichi.training.checkpoint import (
    State,
    checkpoint_path,
    checkpoint_steps,
    link_shared,
    load_model,
    load_training,
    save_checkpoint,
    shared_parameters,
)
from msth_taichi.training.collapse import CollapseWatch, explained
from msth_taichi.training.grid_adam import GridAdam
from msth_taichi.training.masks import begin_masks
from msth_taichi.training.meeting import note_writing
from msth_taichi.training.record import Record
from msth_taichi.training.run import Run, compute_dtype, make_model, require_free, write_run
from msth_taichi.training.schedules import learning_rate, proposals_are_due
from msth_taichi.training.segments import SHARED
from msth_taichi.training.team import Team, join

_FEWEST_RAYS = 128
"""Of a part of a batch: where even these do not fit into memory, something else is wrong."""


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
    visualizers: Visualizers | None = None,
    record: Record | None = None,
    team: Team | None = None,
    beginning: "Beginning | None" = None,
    on_begin: Callable[[], None] | None = None,
) -> Run:
    """Train a scene into a run folder.

    Stops early, with a checkpoint, on SIGINT or SIGTERM: `run.step` then is less than `training.steps`. Processes that
    torchrun started train together, see `training.team`; the first of them writes.

    Args:
        scene: with frames, from `load_scene`.
        config: all settings.
        output: run folder to create.
        arch: "auto", "cpu" or "cuda".
        resume: continue from the last checkpoint of `output`, exactly as if it had not stopped.
        overwrite: replace an existing run.
        progress: show bars.
        on_evaluation: called every `training.eval_every` steps.
        visualizers: what shows the training; opened here, and left open for what comes after.
        record: of the time spent before, written to training.json; default: a new one.
        team: the processes that train together; default: all that torchrun started.
        beginning: what a later segment of a long video starts from.
        on_begin: called once by the process that writes, when all that can be wrong has been found and nothing has
            been written yet.
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
    record = Record() if record is None else record  # its clock starts
    device = runtime.init(arch, threads=config.training.threads)  # type: ignore[arg-type]
    team = join(device) if team is None else team
    team.require_divisible(config.training.rays_per_step)
    if resume:
        checkpoint_path(path)
    elif team.leads:
        require_free(path, overwrite)
    require_trainable(scene, config)
    config = with_bounds(config, scene)
    trainer = Trainer(scene, config, path, device, progress and team.leads, visualizers, record, team)
    if resume:
        trainer.restore()
    elif beginning is not None:
        trainer.begin(beginning.run)
    team.wait()  # until all have read
    if team.leads:
        note_writing()
        if on_begin is not None:
            on_begin()
        if not resume:
            empty(path)
        write_run(path, config, trainer.scene)  # on resuming too: training.steps and the place of the data may be new
        if beginning is not None:
            link_shared(beginning.shared, path)
        trainer.visualizers.open(path)
        trainer.visualizers.text("config", dump_config(config, msth_taichi.__version__))
    trainer.run(on_evaluation)
    team.wait()  # until the last checkpoint is written
    return trainer.as_run()


@dataclass(frozen=True)
class Beginning:
    """What a segment of a long video starts from.

    Args:
        run: folder of the segment whose parameters it begins with.
        shared: file of the parameters that all segments have in common; it does not train them.
    """

    run: Path
    shared: Path


class Trainer:
    """State of one training on one device.

    Args:
        scene: with frames.
        config: all settings.
        path: run folder.
        device: that kernels run on.
        progress: show bars.
        visualizers: what shows the training; default: nothing.
        record: of where the time goes; default: a new one.
        team: the processes that train together; default: this one alone.
    """

    def __init__(
        self,
        scene: Scene,
        config: Config,
        path: Path,
        device: torch.device,
        progress: bool = True,
        visualizers: Visualizers | None = None,
        record: Record | None = None,
        team: Team | None = None,
    ):
        self.config, self.path, self.device = config, path, device
        self.progress, self.team = progress, team or Team()
        self.visualizers = Visualizers() if visualizers is None else visualizers
        self.record = Record() if record is None else record
        settings = config.training
        # before the model, whose cameras are those of frames that are there
        scene, self.store = self._frames(scene)
        self.scene = scene
        compute = compute_dtype(config, device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            self.model = make_model(config, scene).to(device)
        self.model.compute = compute
        self.optimizer = self._make_optimizer()
        self.generator = torch.Generator(device).manual_seed(settings.seed)
        self.state = State()
        self.images = scene.images("train")
        self.sampler = make_sampler(
            scene, self.store, config.sampler, device, self.generator, data=config.data, progress=progress
        )
        depths = None
        if config.loss.depth:
            depths = DepthStore.from_scene(scene, self.images, device, config.data, config.rays.near, progress)
        self.batches = Batches(
            self.model,
            config,
            scene.cameras.to(device),
            self.images,
            self.store,
            self.sampler,
            self.generator,
            depths,
            self.team,
        )
        # the first step whose loss was not finite, kept on the device so that no step waits for it
        self._bad_step = torch.full((), math.inf, device=device, dtype=torch.float64)
        self._watch = CollapseWatch()
        self._parts = 1
        self._shares = False
        # of the last step: errors, targets, background and what counts, for the log to look at
        self._seen: tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor | None] | None = None

    def _frames(self, scene: Scene) -> tuple[Scene, FrameStore]:
        """The frames to train on, and the scene without those that are damaged."""
        images = scene.images("train")
        store = FrameStore.from_images(images, scene.cameras, self.device, self.config.data, self.progress)
        if self.team.leads:
            warn_of_damage(store.damage)
        self.record.damaged["train"] = len(store.damage)
        return without_damage(scene, "train", store.damage), store.whole()

    def restore(self) -> None:
        """Continue where the last checkpoint of the run folder stands."""
        self.state = load_training(checkpoint_path(self.path), self.model, self.optimizer, self.generator, self.sampler)
        self._shares = (self.path / SHARED).is_file()
        self._be_trained()
        if self.team.leads:
            _forget_later_lines(self.path / "metrics.jsonl", self.state.step)
        self.record.resume(self.path)

    def begin(self, run: Path) -> None:
        """Start from the parameters of another run, on a time axis of its own; masks begin anew but where the stage has
        something, and what segments share stays as it is."""
        load_model(checkpoint_path(run), self.model)
        self._shares = True
        self._be_trained()
        begin_masks(self.model)
        for field in self.model.fields():  # GPUs of two kinds may not agree on what is empty
            logits = field.encoding.mask_logits.data
            logits.copy_(self.team.least(logits))

    def _be_trained(self) -> None:
        """Let all parameters be trained that are this run's own."""
        self.model.requires_grad_(True).train()
        if self._shares:
            for parameter in shared_parameters(self.model).values():
                parameter.requires_grad_(False)

    def as_run(self) -> Run:
        """The run, ready to render."""
        self.model.requires_grad_(False).eval()
        return Run(self.path, self.config, self.scene, self.model, self.state.step)

    def run(self, on_evaluation: Callable[[Run], None] | None = None) -> None:
        """Train to the last step, or until a signal asks to stop."""
        settings = self.config.training
        logged = saved = self.state.step
        self._agree_on_parts()
        self.record.lap("start")
        self._write_record()
        clock = time.perf_counter()
        bar = tqdm(
            total=settings.steps,
            initial=self.state.step,
            desc="training",
            unit="step",
            disable=not self.progress,
        )
        with bar, self._kept_on_failure(), stop_on_signal() as stopping:
            while self.state.step < settings.steps and not self._stops(stopping):
                terms = self.step()
                step = self.state.step
                bar.update()
                self.visualizers.after_step(self)
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
                    self.record.lap("training")
                    if saved < step:  # who stops a training may not wait for the comparison
                        self._save()
                        saved = step
                    if self.team.leads:
                        on_evaluation(self.as_run())
                    self.team.wait()
                    self.record.lap("evaluation")
                    self._be_trained()
                    clock, logged = time.perf_counter(), step  # evaluation is not training speed
            if saved < self.state.step:  # a signal can come at any line above
                self._save()
        self.record.lap("training")
        self._write_record()

    @contextmanager
    def _kept_on_failure(self) -> Iterator[None]:
        """Data that vanish within the block cost no step that was done, if the run folder can still be written."""
        try:
            yield
        except DataError as error:
            # several processes cannot agree on a checkpoint any more: some of them may be waiting in a step
            if self.team.size == 1 and self.state.step not in checkpoint_steps(self.path):
                with suppress(RunError):
                    self._save()
            steps = checkpoint_steps(self.path)
            rest = f"; continue from step {steps[-1]} with --resume" if steps else ""
            raise DataError(f"{error}{rest}") from error

    def step(self) -> dict[str, torch.Tensor]:
        """One step of optimisation; returns the loss terms, still on the device.

        Where the GPU has too little memory for the batch, it is cut in halves from then on, whose gradients are added.
        A team does so before its first step: within one, its processes cannot agree any more.
        """
        step = self.state.step
        due = proposals_are_due(step, self.state.since_update)
        batch = self.batches.at(step)
        self.optimizer.learning_rate = learning_rate(step, self.config.training)
        differentiate = self._fit if self.team.size == 1 else self._differentiate
        terms, errors = differentiate(batch, due)
        self.optimizer.step()
        self._seen = errors, batch.target, batch.background, batch.kept
        if self.sampler.learns:
            assert batch.drawn is not None
            image, row, column = batch.drawn
            self.sampler.update(image, row, column, self.team.gathered(errors))
        self.state.since_update = 1 if due else self.state.since_update + 1
        self.state.step = step + 1
        return terms

    def _agree_on_parts(self) -> None:
        """Try a batch, each process of a team for itself, and take as many parts as the one with the least memory."""
        if self.team.size == 1:
            return
        self.team.least(self._bad_step)  # NCCL takes its memory
        with self.team.apart():
            self._fit(self.batches.at(self.state.step), due=True)
        self.optimizer.forget()
        self._parts = self.team.most(self._parts)

    def _fit(self, batch: Batch, due: bool) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """See `_differentiate`; in smaller parts where the GPU has too little memory."""
        while True:
            try:
                return self._differentiate(batch, due)
            except torch.OutOfMemoryError:
                if len(batch.target) < 2 * _FEWEST_RAYS * self._parts:
                    raise
            self._make_room()

    def _differentiate(self, batch: Batch, due: bool) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Gradients of a batch; returns its loss terms, and the error of each ray.

        Args:
            batch: rays and what they should see.
            due: whether proposals are trained.
        """
        self.optimizer.zero_grad()
        config, step = self.config, self.state.step
        terms: dict[str, torch.Tensor] = {}
        errors = []
        for part in batch.split(self._parts):
            found = losses(
                self.model,
                self.batches.aimed(part),
                part.target,
                config.loss,
                jitter=part.jitter,
                anneal=anneal_exponent(step, config.rays.anneal_steps),
                train_proposals=due,
                background=part.background,
                kept=part.kept,
                depth=part.depth,
            )
            self._bad_step = torch.where(found.total.isfinite(), self._bad_step, self._bad_step.clamp(max=step + 1))
            # the mean over all rays is the sum of each part's share of it, and of every process's
            share = len(part.target) / len(batch.target)
            scale, factor = self.optimizer.loss_scale, share / self.team.size
            found.total.backward(scale if factor == 1 else factor * scale)
            errors.append(found.errors)
            if share == 1:
                return found.terms, found.errors
            terms = {name: share * term + terms.get(name, 0.0) for name, term in found.terms.items()}
        return terms, torch.cat(errors)

    def _make_room(self) -> None:
        """Cut batches in twice as many parts."""
        self._parts *= 2
        self.optimizer.forget()
        torch.cuda.empty_cache()
        tqdm.write(
            f"warning: step {self.state.step}: the GPU is out of memory; batches are trained on in {self._parts} parts "
            "from here on, which is slower; lower data.gpu_memory or training.rays_per_step",
            file=sys.stderr,
        )

    def _make_optimizer(self) -> GridAdam:
        settings, loss, learnt = self.config.training, self.config.loss, self.config.cameras
        kept = _sums_integers(self.device) and settings.deterministic
        if kept:
            for field in self.model.fields():
                field.keep_gradients(self.model.compute)
                assert field.encoding.sums is not None
                field.encoding.sums.add = self.team.add
        # the loss of a whole ray: its gradients suit float16 and fixed point, where those of the mean would vanish
        scaled = kept or self.model.compute == torch.float16
        loss_scale = float(settings.rays_per_step) if scaled else None
        optimizer = GridAdam(self.model, settings.learning_rate, loss_scale)
        optimizer.mask_weights = dict.fromkeys(masked_fields(self.model, loss), loss.mask)
        optimizer.decay = loss.decay
        optimizer.add = self.team.add
        for part, rate in (
            (self.model.colors, learnt.color_learning_rate),
            (self.model.poses, learnt.pose_learning_rate),
        ):
            if part is not None:
                optimizer.rates |= dict.fromkeys(part.parameters(), rate / settings.learning_rate)
        return optimizer

    @torch.no_grad()
    def _mask_term(self) -> float:
        """The mask loss of masks that the optimiser moves: read for the log alone."""
        masks = [
            field.encoding.mask_loss()
            for field in masked_fields(self.model, self.config.loss)
            if field.encoding.sums is not None
        ]
        return self.config.loss.mask * float(torch.stack(masks).sum()) if masks else 0.0

    def _write_record(self) -> None:
        if self.team.leads:
            self.record.write(self.path, self.device)

    def _stops(self, stopping: threading.Event) -> bool:
        """Whether to stop before the next step; processes agree on it when a block of batches ends."""
        if self.team.size == 1:
            return stopping.is_set()
        return self.state.step % AHEAD == 0 and self.team.any(stopping.is_set())

    def _log(self, terms: dict[str, torch.Tensor], rays_per_second: float, bar: tqdm) -> None:
        self._check_finite()
        found = torch.stack(list(terms.values())) / self.team.size
        self.team.add([found])
        if not self.team.leads:
            return
        values = dict(zip(terms, found.tolist(), strict=True))
        if mask := self._mask_term():
            values["mask"] = mask
        loss, psnr = sum(values.values()), -10 * math.log10(max(values["rgb"], 1e-12))
        bar.set_postfix(loss=f"{loss:.4f}", psnr=f"{psnr:.2f}", rays=f"{rays_per_second / 1e3:.0f}k/s")
        assert self._seen is not None
        share = explained(*self._seen)
        if self._watch.says(self.state.step, share):
            rate = self.config.training.learning_rate
            tqdm.write(
                f"warning: step {self.state.step}: all rays show one colour, and training may not find out of it; stop "
                f"and lower training.learning_rate ({rate:g}), such as to {rate / 3:.2g}; if that does not help, check "
                "cameras and bounds with `msth check`",
                file=sys.stderr,
            )
        line = {
            "step": self.state.step,
            "loss": loss,
            "psnr": psnr,
            "explained": share,
            **{f"loss_{name}": value for name, value in values.items()},
            "learning_rate": self.optimizer.learning_rate,
            "rays_per_second": round(rays_per_second),
        }
        file = self.path / "metrics.jsonl"
        try:
            with file.open("a") as stream:
                stream.write(json.dumps(line) + "\n")
        except OSError as error:
            raise unwritable(file, error) from error
        self.visualizers.scalars(self.state.step, {f"train/{name}": line[name] for name in line if name != "step"})

    def _save(self) -> None:
        self._check_finite()
        # a finite loss can still have had a gradient that was not
        if not all(parameter.isfinite().all() for parameter in self.model.parameters()):
            self._diverged(self.state.step, "a parameter")
        if not self.team.leads:
            return
        random_state = self.batches.random_state(self.state.step)
        save_checkpoint(self.path, self.model, self.optimizer, random_state, self.state, self.sampler)
        self.record.lap("training")
        self._write_record()
        if self.visualizers:
            self.visualizers.histogram(self.state.step, "mask", mask_values(self.model))

    def _check_finite(self) -> None:
        bad = self.team.least(self._bad_step).item()
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


def require_trainable(scene: Scene, config: Config) -> None:
    """Raise ConfigError if settings do not suit the images of a scene; needs no frames."""
    _check_transparency(scene, config)
    _check_depth(scene, config)
    require_suited(scene, config.sampler)


def _sums_integers(device: torch.device) -> bool:
    """On a GPU integers meet faster than floats, and in any order; on a CPU each table level has one owner anyway."""
    return device.type == "cuda"


def _check_transparency(scene: Scene, config: Config) -> None:
    if scene.images("train").channels == 4 and config.rays.background == "last_sample":
        raise ConfigError(
            "rays.background = 'last_sample' does not suit images with transparency; use white, black or random"
        )
    if scene.images("train").channels == 4 and config.cameras.colors != "none":
        raise ConfigError(
            "cameras.colors = 'affine' does not suit images with transparency: the background is ours; use 'none'"
        )


def _check_depth(scene: Scene, config: Config) -> None:
    if config.loss.depth and not scene.images("train").with_depth():
        raise ConfigError(
            f"loss.depth = {config.loss.depth:g}: no image of '{scene.name}' that is trained on has a depth map; "
            "name them by depth_file_path in transforms.json, or use loss.depth=0"
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
