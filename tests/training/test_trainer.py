"""The training loop: it learns, it writes down what it did, and it stops before it does harm."""

import dataclasses
import json
import math
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from msth_taichi.config import load_preset
from msth_taichi.errors import ConfigError, DivergenceError, RunError
from msth_taichi.evaluation.evaluate import evaluate
from msth_taichi.evaluation.metrics import psnr
from msth_taichi.kernels.launch import Launcher
from msth_taichi.model.corrections import rotation_matrices
from msth_taichi.model.rays import camera_rays
from msth_taichi.scene.scene import Scene, load_scene
from msth_taichi.training.checkpoint import checkpoint_steps
from msth_taichi.training.run import load_run
from msth_taichi.training.start import start_training
from msth_taichi.training.trainer import Trainer, train
from tests.comparison import assert_close
from tests.settings import changed


@pytest.fixture
def train_tiny(tiny_scene, tiny_config, tmp_path):
    """train_tiny("training.steps=20") -> the Run in tmp_path/run."""

    def run(*settings: str, scene: Scene = tiny_scene, **options):
        return train(scene, changed(tiny_config, *settings), tmp_path / "run", progress=False, **options)

    return run


def lines(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("sampler", "background"), [("uniform", "last_sample"), ("static_dynamic", "random")])
def test_the_loss_falls(train_tiny, tmp_path, sampler, background):
    train_tiny(
        "training.steps=60", "training.log_every=1", "training.learning_rate=0.03", "training.rays_per_step=128",
        f"sampler.kind={sampler}", f"rays.background={background}",
    )  # fmt: skip
    rgb = [line["loss_rgb"] for line in lines(tmp_path / "run")]
    assert np.mean(rgb[-10:]) < 0.8 * np.mean(rgb[:5])


def test_two_trainings_are_equal_to_the_last_bit(tiny_scene, tiny_config, tmp_path):
    """With all threads: what many of them add to is added in one order."""
    config = changed(
        tiny_config, "training.steps=15", "training.rays_per_step=256", "training.threads=0",
        "training.deterministic=true", "sampler.kind=static_dynamic", "rays.background=random",
    )  # fmt: skip
    first, second, other = (
        train(tiny_scene, changed(config, f"training.seed={seed}"), tmp_path / name, progress=False).path
        for name, seed in (("first", 1), ("second", 1), ("other", 2))
    )
    for name in ("model.safetensors", "optimizer.safetensors"):
        file = f"checkpoints/step-00000015/{name}"
        assert (first / file).read_bytes() == (second / file).read_bytes(), name
        assert (first / file).read_bytes() != (other / file).read_bytes(), name


@pytest.mark.parametrize("sampler", ["uniform", "static_dynamic"])
def test_a_step_is_few_launches(tiny_scene, tiny_config, tmp_path, device, monkeypatch, sampler):
    """Each costs the host some ten microseconds, and the host must not be what a step waits for."""
    trainer = Trainer(tiny_scene, changed(tiny_config, f"sampler.kind={sampler}"), tmp_path, device, progress=False)
    launch, counts = Launcher.__call__, []

    def counted(self, *values):
        counts[-1] += 1
        launch(self, *values)

    monkeypatch.setattr(Launcher, "__call__", counted)
    for _ in range(14):  # from the tenth on proposals are trained every other step
        counts.append(0)
        trainer.step()
    assert 5 < min(counts[10:]) < max(counts[10:]) <= max(counts) <= 20


class Operations(TorchDispatchMode):
    """Counts what torch is asked for."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


def test_guidance_adds_few_operations_to_a_step(tiny_scene, tiny_config, tmp_path, device, monkeypatch):
    """It looks at a few rays only, but each operation costs the host as much as one over all rays."""
    launch, launches = Launcher.__call__, []

    def counted(self, *values):
        launches.append(self)
        launch(self, *values)

    def cost(objective: str) -> tuple[int, int]:
        config = changed(tiny_config, "cameras.colors=affine", f"mask.objective={objective}")
        trainer = Trainer(tiny_scene, config, tmp_path, device, progress=False)
        trainer.step()
        launches.clear()
        with Operations() as operations:
            trainer.step()
        return operations.count, len(launches)

    monkeypatch.setattr(Launcher, "__call__", counted)
    (plain, plain_launches), (guided, guided_launches) = cost("sparsity"), cost("uncertainty")
    assert 150 < plain < guided <= plain + 80
    # on a GPU integers are made floats
    assert plain_launches < guided_launches <= plain_launches + (6 if device.type == "cuda" else 5)


def test_metrics_have_a_line_per_interval_and_one_at_the_end(train_tiny, tmp_path):
    run = train_tiny("training.steps=11", "training.log_every=3")
    assert run.step == 11
    rows = lines(tmp_path / "run")
    assert [row["step"] for row in rows] == [3, 6, 9, 11]
    for row in rows:
        parts = [value for name, value in row.items() if name.startswith("loss_")]
        assert {"loss_rgb", "loss_distortion", "loss_mask"} <= row.keys()
        assert row["loss"] == pytest.approx(sum(parts), rel=1e-6)
        assert row["psnr"] == pytest.approx(-10 * np.log10(row["loss_rgb"]), rel=1e-6)
        assert row["rays_per_second"] > 0
    assert rows[0]["learning_rate"] > rows[-1]["learning_rate"] > 0


def test_the_newest_two_checkpoints_are_kept(train_tiny, tmp_path):
    train_tiny("training.steps=11", "training.checkpoint_every=3")
    assert checkpoint_steps(tmp_path / "run") == [9, 11]
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "checkpoints", "config.toml", "metrics.jsonl", "scene.json", "training.json",
    ]  # fmt: skip


def test_evaluation_is_called_at_its_steps_and_leaves_no_trace(train_tiny, tmp_path):
    seen = []

    def look(run):
        assert not run.model.training and not any(p.requires_grad for p in run.model.parameters())
        seen.append(run.step)
        run.render(0, 0.5)

    run = train_tiny("training.steps=10", "training.eval_every=4", "training.log_every=1", on_evaluation=look)
    assert seen == [4, 8] and run.step == 10
    rgb = [line["loss_rgb"] for line in lines(tmp_path / "run")]
    assert len(rgb) == 10 and len(set(rgb)) == 10


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_with_a_checkpoint_of_that_very_step(train_tiny, tmp_path, number):
    """Even one that comes when the step's log line and checkpoint were due already."""
    before = signal.getsignal(number)
    settings = ("training.steps=20", "training.eval_every=7", "training.checkpoint_every=5")
    run = train_tiny(*settings, on_evaluation=lambda run: os.kill(os.getpid(), number))
    assert run.step == 7 and load_run(tmp_path / "run").step == 7
    assert checkpoint_steps(tmp_path / "run") == [5, 7]
    assert signal.getsignal(number) == before
    assert train_tiny(*settings, resume=True).step == 20


def test_a_second_signal_does_not_wait(train_tiny):
    def insist(run):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train_tiny("training.eval_every=2", on_evaluation=insist)


def test_a_failed_evaluation_of_the_last_step_costs_nothing(train_tiny, tmp_path):
    def fail(run):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train_tiny("training.steps=4", "training.eval_every=4", on_evaluation=fail)
    assert load_run(tmp_path / "run").step == 4


def test_no_evaluation_unless_asked_for(train_tiny):
    train_tiny("training.steps=2", on_evaluation=lambda run: pytest.fail("called"))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_with_the_last_good_checkpoint(train_tiny, tmp_path, value):
    def poison(run):
        run.model.field.color_mlp.weights[0].fill_(value)

    with pytest.raises(DivergenceError) as caught:
        train_tiny(
            "training.steps=40", "training.eval_every=7", "training.checkpoint_every=3", "training.log_every=20",
            on_evaluation=poison,
        )  # fmt: skip
    message = str(caught.value)
    assert "not a finite number at step 8;" in message
    assert f"last good checkpoint is {tmp_path}/run/checkpoints/step-00000007" in message
    assert "training.learning_rate" in message
    assert checkpoint_steps(tmp_path / "run") == [6, 7]
    assert all(parameter.isfinite().all() for parameter in load_run(tmp_path / "run").model.parameters())


def test_a_gradient_that_is_not_finite_is_not_saved(train_tiny, tmp_path):
    def poison(run):
        run.model.requires_grad_(True)
        run.model.field.color_mlp.weights[0].register_hook(lambda gradient: gradient * float("nan"))

    with pytest.raises(DivergenceError, match=r"a parameter is not a finite number at step 6; .*step-00000005"):
        train_tiny("training.eval_every=5", "training.checkpoint_every=2", on_evaluation=poison)
    assert checkpoint_steps(tmp_path / "run") == [4, 5], "one before each comparison too"


def test_an_absurd_learning_rate_is_told(train_tiny):
    with pytest.raises(DivergenceError, match=r"finite number at step \d+; no checkpoint .*training.learning_rate"):
        train_tiny("training.learning_rate=1e30", "training.learning_rate_end=1e30")


def test_an_existing_run_is_kept_unless_told(train_tiny, tmp_path):
    train_tiny("training.steps=2")
    before = tree(tmp_path / "run")
    with pytest.raises(RunError, match="already exists; pass --overwrite"):
        train_tiny("training.steps=3")
    assert tree(tmp_path / "run") == before
    assert train_tiny("training.steps=3", overwrite=True).step == 3
    assert checkpoint_steps(tmp_path / "run") == [3]
    assert [line["step"] for line in lines(tmp_path / "run")] == [3]


def test_what_is_not_a_run_is_never_overwritten(train_tiny, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("years of work")
    with pytest.raises(RunError, match="not a run folder, so it is not overwritten"):
        train_tiny(overwrite=True)
    assert tree(tmp_path / "run") == {"thesis.tex": b"years of work"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_float16_needs_a_gpu(train_tiny, tmp_path):
    with pytest.raises(ConfigError, match=r"training.precision = 'float16' needs a CUDA GPU"):
        train_tiny("training.precision=float16")
    assert not (tmp_path / "run").exists()


class Transparent:
    """Frames of another source with an alpha channel: the left half opaque, the right half clear and black."""

    channels = 4
    masked = False

    def __init__(self, source):
        self.source, self.parts = source, source.parts

    def read(self, keys):
        for frame in self.source.read(keys):
            alpha = np.zeros_like(frame[..., :1])
            alpha[:, : frame.shape[1] // 2] = 255
            yield np.concatenate([frame * (alpha > 0), alpha], axis=2)


@pytest.fixture
def transparent_scene(tiny_scene) -> Scene:
    splits = {
        name: dataclasses.replace(images, source=Transparent(images.source))
        for name, images in tiny_scene.splits.items()
    }
    return dataclasses.replace(tiny_scene, splits=splits)


def test_transparent_images_need_a_background(train_tiny, transparent_scene, tmp_path):
    with pytest.raises(ConfigError, match=r"rays.background = 'last_sample' does not suit.*white, black or random"):
        train_tiny(scene=transparent_scene)
    assert not (tmp_path / "run").exists()


def test_transparent_pixels_become_the_background(train_tiny, transparent_scene):
    run = train_tiny(
        "rays.background=white", "training.steps=60", "training.learning_rate=0.05", scene=transparent_scene
    )
    left, right = run.render(0, 0.0)["rgb"].split(12, dim=1)
    assert right.mean() > left.mean() + 0.1
    assert right[:, 3:].mean() > 0.75


def test_a_random_background_is_compared_on_the_one_it_is_rendered_with(train_tiny, transparent_scene):
    """White behind the clear half of the frames, and behind what the field does not fill."""
    settings = ("rays.background=random", "rays.background_render=white", "rays.contraction=none", "training.steps=2")
    run = train_tiny(*settings, scene=transparent_scene)
    result = evaluate(run, transparent_scene, progress=False)
    assert result["protocol"]["background"] == "white"
    images = transparent_scene.images("test")
    expected = []
    for row, frame in enumerate(images.read()):
        pixels = torch.from_numpy(frame.copy()).float() / 255
        alpha = pixels[..., 3:]
        image = run.render(int(images.camera[row]), float(images.time[row]))["rgb"]
        expected.append(psnr(image, pixels[..., :3] * alpha + 1 - alpha))
    assert result["psnr"] == pytest.approx(np.mean(expected), rel=1e-5)


def test_gains_of_cameras_do_not_suit_transparent_images(train_tiny, transparent_scene, tmp_path):
    with pytest.raises(ConfigError, match=r"cameras.colors = 'affine' does not suit images with transparency"):
        train_tiny("rays.background=white", "cameras.colors=affine", scene=transparent_scene)
    assert not (tmp_path / "run").exists()


class Tinted:
    """Frames of another source as cameras of other exposures would store them."""

    channels = 3
    masked = False

    def __init__(self, source, gains: np.ndarray, biases: np.ndarray, frames: int):
        self.source, self.parts, self.gains, self.biases, self.frames = source, source.parts, gains, biases, frames

    def read(self, keys):
        for key, frame in zip(keys, self.source.read(keys), strict=True):
            camera = int(key) // self.frames
            colors = frame / 255 * self.gains[camera] + self.biases[camera]
            yield (colors.clip(0, 1) * 255).round().astype(np.uint8)


GRIDS = ("base_resolution=[8,8,8,2]", "mask_resolution=8")
SMALL = (  # a built-in scene of 48 x 36 is learnt in seconds
    *(f"{part}.{value}" for part in ("field", "proposals.0") for value in GRIDS),
    "field.levels=4", "field.max_resolution=[64,64,64,4]", "field.hidden=16", "field.hidden_color=16",
    "field.log2_static=13", "field.log2_dynamic=13",
    "proposals.0.levels=2", "proposals.0.max_resolution=[32,32,32,4]", "proposals.0.hidden=8",
    "proposals.0.log2_static=12", "proposals.0.log2_dynamic=12", "proposals.0.samples=16",
    "rays.samples=12", "rays.anneal_steps=50", "rays.background=last_sample", "training.rays_per_step=256",
)  # fmt: skip


def trained(scene: Scene, folder: Path, steps: int, *settings: str) -> Trainer:
    config = load_preset("demo", [*SMALL, f"training.steps={steps}", *settings])
    trainer = Trainer(scene, config, folder, torch.device("cpu"), progress=False)
    for _ in range(steps):
        trainer.step()
    return trainer


def test_colours_of_cameras_are_found_and_kept_from_the_scene(tmp_path):
    """Exposures that differ by a quarter, and black levels: with gains and biases of cameras, a held-out camera,
    whose frames were left as they are, is rendered better than without."""
    cameras, frames = 5, 3
    scene = load_scene(f"synthetic:cameras={cameras},test_cameras=1,frames={frames},width=48,height=36")
    generator = np.random.default_rng(0)
    gains, biases = (generator.uniform(-size, size, (cameras, 3)) for size in (0.25, 0.1))
    gains, biases = 1 + gains - gains.mean(0), biases - biases.mean(0)
    images = scene.images("train")
    tinted = dataclasses.replace(images, source=Tinted(images.source, gains, biases, frames))
    spoilt = dataclasses.replace(scene, splits={**scene.splits, "train": tinted})
    held_out = scene.images("test")
    truth = [torch.from_numpy(frame.copy()).float() / 255 for frame in held_out.read()]

    def quality(trainer: Trainer) -> float:
        renders = (
            trainer.model.render_image(scene.cameras, int(camera), float(time))["rgb"]
            for camera, time in zip(held_out.camera, held_out.time, strict=True)
        )
        return float(np.mean([psnr(render, frame) for render, frame in zip(renders, truth, strict=True)]))

    ways = ("cameras.colors=none", "cameras.colors=affine")
    without, beside = (trained(spoilt, tmp_path, 220, way, "cameras.color_learning_rate=1e-2") for way in ways)
    found = beside.model.colors.centred().detach().numpy()
    at_grey = found[:, :3] * 0.5 + found[:, 3:], (gains - 1) * 0.5 + biases
    assert np.corrcoef(at_grey[0].ravel(), at_grey[1].ravel())[0, 1] > 0.9
    assert np.corrcoef(found[:, :3].ravel(), gains.ravel())[0, 1] > 0.85
    assert quality(beside) > quality(without) + 0.5


def test_cameras_that_stand_elsewhere_find_back(tmp_path):
    """Turned by 1.5 degrees and shifted by 0.02: what their pixels see is taken to be nearer to where it is."""
    count = 10
    scene = load_scene(f"synthetic:cameras={count},test_cameras=1,frames=3,width=48,height=36")
    generator = torch.Generator().manual_seed(0)
    offsets = torch.zeros(count + 1, 6)
    for part, size in ((slice(3), math.radians(1.5)), (slice(3, 6), 0.02)):
        drawn = torch.randn(count, 3, generator=generator)
        drawn *= size / drawn.norm(dim=1, keepdim=True)
        offsets[:count, part] = drawn - drawn.mean(0)
    truth = scene.cameras.camera_to_world
    turned = rotation_matrices(offsets[:, :3]) @ truth[:, :, :3]
    spoilt = torch.cat([turned, truth[:, :, 3:] + offsets[:, 3:, None]], dim=2)
    wrong = dataclasses.replace(scene, cameras=scene.cameras.with_poses(spoilt))

    images, pixel = scene.images("train"), torch.arange(48 * 36)
    firsts = [int((images.camera == camera).nonzero()[0]) for camera in range(count)]
    depths = [torch.from_numpy(images.depth(row)).flatten() for row in firsts]

    def seen(poses: torch.Tensor) -> torch.Tensor:
        """(C, 48 * 36, 3) surface points as cameras at these poses would place them."""
        cameras = scene.cameras.with_poses(poses.detach().contiguous())
        points = []
        for camera, depth in enumerate(depths):
            chosen = torch.full_like(pixel, camera)
            rays = camera_rays(cameras, chosen, pixel // 48, pixel % 48, torch.zeros(len(pixel)), 0.05, 9.0)
            points.append(rays.origins + rays.directions * depth[:, None])
        return torch.stack(points)

    def error(poses: torch.Tensor) -> float:
        return (seen(poses) - seen(truth)).norm(dim=2).mean().item()

    trainer = trained(wrong, tmp_path, 200, "cameras.poses=refine", "cameras.pose_learning_rate=1e-3")
    refined = trainer.model.refined(wrong.cameras).camera_to_world
    assert error(spoilt) > 0.03
    assert error(refined) < 0.7 * error(spoilt)
    assert torch.equal(refined[count], truth[count]), "the held-out camera stays where it stands"


def test_parts_that_are_learnt_of_cameras_have_their_own_rates(tiny_scene, tiny_config, tmp_path):
    """The first step of Adam moves by the rate, whatever the gradient is."""
    config = changed(
        tiny_config, "cameras.colors=affine", "cameras.poses=refine", "cameras.color_learning_rate=3e-3",
        "cameras.pose_learning_rate=2e-4", "training.learning_rate=1e-2",
    )  # fmt: skip
    trainer = Trainer(tiny_scene, config, tmp_path, torch.device("cpu"), progress=False)
    trainer.step()
    for part, rate in ((trainer.model.colors, 3e-3), (trainer.model.poses, 2e-4)):
        moved = part.values.abs()
        assert moved.max().item() == pytest.approx(rate, rel=1e-3) and moved.median() > 0.5 * rate


def test_uncertainty_guides_the_mask_in_every_step(tiny_scene, tiny_config, tmp_path):
    config = changed(tiny_config, "mask.objective=uncertainty")
    trainer = Trainer(tiny_scene, config, tmp_path, torch.device("cpu"), progress=False)
    assert all({"uncertainty", "information"} < trainer.step().keys() for _ in range(3))


def test_tables_decay_as_the_settings_say(tiny_scene, tiny_config, tmp_path):
    config = changed(tiny_config, "loss.decay=0.25")
    assert Trainer(tiny_scene, config, tmp_path, torch.device("cpu"), progress=False).optimizer.decay == 0.25


def test_static_dynamic_sampling_needs_cameras_that_stand(train_tiny, tiny_scene, tmp_path):
    with pytest.raises(ConfigError, match=r"sampler.kind='static_dynamic' needs cameras that stand still"):
        train_tiny("sampler.kind=static_dynamic", scene=dataclasses.replace(tiny_scene, static_cameras=False))
    assert not (tmp_path / "run").exists()


def test_resuming_nothing_is_told(train_tiny, tmp_path):
    with pytest.raises(RunError, match="no checkpoint; train first"):
        train_tiny(resume=True)
    assert not (tmp_path / "run").exists()


def test_resuming_goes_on_from_the_checkpoint_and_keeps_the_log(train_tiny, tmp_path):
    train_tiny("training.steps=6", "training.log_every=1", "training.checkpoint_every=4")
    run = tmp_path / "run"
    # as a kill between a log line and a checkpoint leaves it
    rows = (run / "metrics.jsonl").read_text().splitlines()
    (run / "metrics.jsonl").write_text("\n".join([*rows, '{"step": 7, "loss": 9.0}', '{"step": 8, "lo']))
    resumed = train_tiny("training.steps=9", "training.log_every=1", resume=True)
    assert resumed.step == 9
    assert [line["step"] for line in lines(run)] == list(range(1, 10))
    assert (run / "metrics.jsonl").read_text().splitlines()[:6] == rows
    assert lines(run)[6]["loss"] != 9.0


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_resuming_from_a_truncated_checkpoint_is_told_and_the_older_one_works(
    tiny_scene, tiny_config, tiny_run_copy, name, capsys
):
    folder = tiny_run_copy / "checkpoints" / "step-00000010"
    (folder / name).write_bytes((folder / name).read_bytes()[:-7])
    assert train(tiny_scene, tiny_config, tiny_run_copy, resume=True, progress=False).step == 10
    told = capsys.readouterr().err
    assert f"{folder / name}: missing or damaged" in told and "going back to" in told and "step-00000005" in told
    older = tiny_run_copy / "checkpoints" / "step-00000005"
    for spoilt in (folder, older):
        (spoilt / name).write_bytes((spoilt / name).read_bytes()[:-7])
    before = tree(tiny_run_copy)
    with pytest.raises(RunError, match=rf"{name}: missing or damaged .*; delete {folder} to use an older checkpoint"):
        train(tiny_scene, tiny_config, tiny_run_copy, resume=True, progress=False)
    assert tree(tiny_run_copy) == before


def test_resuming_another_model_size_is_told(tiny_scene, tiny_config, tiny_run_copy):
    before = tree(tiny_run_copy)
    with pytest.raises(RunError, match=r"model.safetensors: of another model size"):
        train(tiny_scene, changed(tiny_config, "field.log2_static=9"), tiny_run_copy, resume=True, progress=False)
    assert tree(tiny_run_copy) == before


def test_a_run_is_written_through_a_link(tiny_scene, tiny_config, tmp_path):
    place = tmp_path / "disk"
    place.mkdir()
    (tmp_path / "run").symlink_to(place)
    config = changed(tiny_config, "training.steps=1")
    for _ in range(2):
        train(tiny_scene, config, tmp_path / "run", overwrite=True, progress=False)
        assert (tmp_path / "run").is_symlink() and checkpoint_steps(place) == [1]


def test_a_folder_that_is_no_run_is_not_overwritten(tiny_scene, tiny_config, tmp_path):
    (tmp_path / "config.toml").write_text("of a web site")
    with pytest.raises(RunError, match="not a run folder, so it is not overwritten"):
        train(tiny_scene, tiny_config, tmp_path, overwrite=True, progress=False)
    assert (tmp_path / "config.toml").read_text() == "of a web site"


def test_comparisons_with_nothing_are_told_before_training(tmp_path):
    with pytest.raises(ConfigError, match=r"training.eval_every=5: .* no 'val' split .* one of train, test"):
        start_training(
            "synthetic:cameras=2,test_cameras=1,frames=2,width=8,height=6",
            tmp_path / "run",
            preset="demo",
            settings=["training.eval_every=5", "evaluation.split=val"],
            arch="auto",
        )
    assert not (tmp_path / "run").exists()


def test_training_leaves_the_callers_random_numbers_alone(train_tiny):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train_tiny("training.steps=1")
    assert torch.equal(torch.rand(3), expected)


def test_a_gpu_without_memory_gets_batches_in_parts(tiny_scene, tiny_config, tmp_path, monkeypatch, capsys):
    """The step is done again in halves, with the same gradients; and training goes on."""
    import msth_taichi.training.trainer as module

    config = changed(tiny_config, "training.rays_per_step=600", "rays.background=random")
    whole, halves = (Trainer(tiny_scene, config, tmp_path, torch.device("cpu"), progress=False) for _ in range(2))
    plain, sizes = module.losses, []

    def losses(model, rays, *arguments, **options):
        found = plain(model, rays, *arguments, **options)
        sizes.append(len(rays))
        if len(rays) > 300:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return found

    expected = whole.step()
    monkeypatch.setattr(module, "losses", losses)
    terms = halves.step()
    assert sizes == [600, 300, 300] and "out of memory; batches are trained on in 2 parts" in capsys.readouterr().err
    for name, term in expected.items():
        assert_close(terms[name], term, 1e-5)
    for one, other in zip(whole.model.parameters(), halves.model.parameters(), strict=True):
        assert one.grad is None or (one.grad - other.grad).norm() <= 1e-5 * one.grad.norm()
    halves.step()
    assert sizes[3:] == [300, 300] and halves.state.step == 2
