"""Training and rendering on CUDA: float16 is as good as float32, runs repeat, and the host never waits."""

import json
from collections.abc import Iterator

import pytest
import torch
from safetensors.torch import load_file, save_file

from msth_taichi.evaluation.metrics import psnr
from msth_taichi.training.batches import AHEAD
from msth_taichi.training.run import load_run
from msth_taichi.training.trainer import Trainer, train
from tests.settings import changed

pytestmark = pytest.mark.gpu

STEPS = 50


@pytest.fixture(scope="module")
def runs(tiny_scene, tiny_config, tmp_path_factory):
    """The tiny scene trained once in each precision, with each kind of sums."""
    folder = tmp_path_factory.mktemp("precision")
    settings = (f"training.steps={STEPS}", "training.log_every=1", "training.rays_per_step=512")
    ways = {
        f"{precision}{'' if fixed else ' atomic'}": (
            f"training.precision={precision}",
            f"training.deterministic={str(fixed).lower()}",
        )
        for precision in ("float32", "float16")
        for fixed in (True, False)
    }
    return {
        name: train(tiny_scene, changed(tiny_config, *settings, *way), folder / name, arch="cuda", progress=False)
        for name, way in ways.items()
    }


def test_auto_is_float16(tiny_run):
    assert tiny_run.model.compute == torch.float16
    assert all(parameter.is_cuda and parameter.dtype == torch.float32 for parameter in tiny_run.model.parameters())


def test_every_way_trains_alike(runs):
    """Both precisions, and gradients summed in fixed point or by float atomics."""
    rgb = {}
    for name, run in runs.items():
        assert run.model.compute == (torch.float16 if "float16" in name else torch.float32)
        assert all(parameter.isfinite().all() for parameter in run.model.parameters()), name
        rows = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
        assert len(rows) == STEPS
        losses = [row["loss_rgb"] for row in rows]
        rgb[name] = sum(losses[-10:]) / 10
        assert rgb[name] < 0.9 * sum(losses[:5]) / 5, name
    for name, loss in rgb.items():
        assert loss == pytest.approx(rgb["float32 atomic"], rel=0.1), name


@pytest.mark.parametrize("mode", ["full", "static", "dynamic"])
def test_renders_of_one_model_agree(runs, mode):
    model = load_run(runs["float32"].path, arch="cuda").model
    images = []
    for compute in (torch.float32, torch.float16):
        model.compute = compute
        images.append(model.render_image(runs["float32"].scene.cameras, 3, 0.5, mode=mode))
    assert psnr(images[0]["rgb"], images[1]["rgb"]) > 40
    assert not torch.equal(images[0]["rgb"], images[1]["rgb"]), "both were computed alike"


def test_frames_lie_on_the_gpu_where_they_fit(tiny_scene, tiny_config, tmp_path):
    cuda = torch.device("cuda")
    near = Trainer(tiny_scene, tiny_config, tmp_path / "a", cuda, progress=False)
    far = Trainer(tiny_scene, changed(tiny_config, "data.gpu_memory=1e-9"), tmp_path / "b", cuda, progress=False)
    assert near.store.tier == "gpu" and far.store.tier == "ram"
    for trainer in (near, far):
        assert all(term.is_cuda and term.isfinite() for term in trainer.step().values())


def test_resuming_goes_on_with_the_loss_scale(tiny_scene, tiny_config, tmp_path):
    run = train(tiny_scene, changed(tiny_config, "training.steps=4"), tmp_path / "run", arch="cuda", progress=False)
    path = run.path / "checkpoints" / "step-00000004" / "optimizer.safetensors"
    tensors = load_file(path)
    tensors["loss_scale"].fill_(37.0)
    save_file(tensors, path)
    trainer = Trainer(tiny_scene, tiny_config, run.path, torch.device("cuda"), progress=False)
    trainer.restore()
    assert trainer.state.step == 4 and trainer.optimizer.loss_scale.item() == 37.0
    assert all(term.isfinite() for term in trainer.step().values())
    assert 37.0 < trainer.optimizer.loss_scale.item() < 38.0


@pytest.mark.parametrize("settings", [
    ("training.precision=float32",),
    ("training.precision=float16",),
    ("mask.objective=uncertainty", "cameras.colors=affine"),
    ("loss.time_smoothness=1",),
], ids=["float32", "float16", "uncertainty", "smooth"])  # fmt: skip
def test_two_trainings_are_equal_to_the_last_bit(tiny_scene, tiny_config, tmp_path, settings):
    """Thousands of threads add to the same entries, in an order of their own: fixed point does not mind."""
    config = changed(
        tiny_config, "training.deterministic=true", "training.steps=30", "training.rays_per_step=4096",
        "sampler.kind=static_dynamic", "rays.background=random", *settings,
    )  # fmt: skip
    first, second = (
        train(tiny_scene, config, tmp_path / name, arch="cuda", progress=False).path for name in ("first", "second")
    )
    for name in ("model.safetensors", "optimizer.safetensors"):
        file = f"checkpoints/step-00000030/{name}"
        assert (first / file).read_bytes() == (second / file).read_bytes(), name


@pytest.fixture
def no_waiting() -> Iterator[None]:
    """Any operation of torch that would wait for the device raises."""
    yield torch.cuda.set_sync_debug_mode("error")
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("settings", [
    (),
    ("training.precision=float32", "sampler.kind=static_dynamic"),
    ("training.deterministic=false", "rays.background=random"),
], ids=["default", "float32", "atomic"])  # fmt: skip
def test_a_step_never_waits_for_the_device(tiny_scene, tiny_config, tmp_path, settings, request):
    trainer = Trainer(tiny_scene, changed(tiny_config, *settings), tmp_path, torch.device("cuda"), progress=False)
    # kernels are compiled, from the tenth on proposals are trained every other step, and pixels are drawn twice
    for _ in range(AHEAD + 2):
        trainer.step()
    request.getfixturevalue("no_waiting")
    for _ in range(AHEAD):
        trainer.step()
    torch.cuda.set_sync_debug_mode("default")
    assert trainer.state.step == 2 * AHEAD + 2 and torch.isinf(trainer._bad_step)


@pytest.mark.parametrize("fixed", [True, False], ids=["fixed point", "atomic"])
def test_what_segments_share_stays_as_it_is(tiny_scene, tiny_config, tiny_run, tmp_path, fixed):
    """Its gradients are summed by kernels all the same, and forgotten; what is lost in each step is not."""
    config = changed(tiny_config, f"training.deterministic={str(fixed).lower()}", "loss.decay=0.5")
    trainer = Trainer(tiny_scene, config, tmp_path, torch.device("cuda"), progress=False)
    trainer.begin(tiny_run.path)
    for _ in range(8):
        trainer.step()
    for mine, first in zip(trainer.model.fields(), tiny_run.model.fields(), strict=True):
        assert torch.equal(mine.encoding.static_table, first.encoding.static_table)
        assert not torch.equal(mine.encoding.dynamic_table, first.encoding.dynamic_table)
