"""Training and rendering in float16 on CUDA: as good as float32."""

import json

import pytest
import torch

from msth_taichi.evaluation.metrics import psnr
from msth_taichi.training.run import load_run
from msth_taichi.training.trainer import Trainer, train
from tests.settings import changed

pytestmark = pytest.mark.gpu

STEPS = 50


@pytest.fixture(scope="module")
def runs(tiny_scene, tiny_config, tmp_path_factory):
    """The tiny scene trained once in each precision."""
    folder = tmp_path_factory.mktemp("precision")
    settings = (f"training.steps={STEPS}", "training.log_every=1", "training.rays_per_step=512")
    return {
        name: train(
            tiny_scene,
            changed(tiny_config, *settings, f"training.precision={name}"),
            folder / name,
            arch="cuda",
            progress=False,
        )
        for name in ("float32", "float16")
    }


def test_auto_is_float16(tiny_run):
    assert tiny_run.model.compute == torch.float16
    assert all(parameter.is_cuda and parameter.dtype == torch.float32 for parameter in tiny_run.model.parameters())


def test_float16_trains_as_float32(runs):
    rgb = {}
    for name, run in runs.items():
        assert all(parameter.isfinite().all() for parameter in run.model.parameters()), name
        rows = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
        assert len(rows) == STEPS
        rgb[name] = [row["loss_rgb"] for row in rows]
    assert runs["float16"].model.compute == torch.float16 and runs["float32"].model.compute == torch.float32
    mean16, mean32 = (sum(rgb[name][-10:]) / 10 for name in ("float16", "float32"))
    assert mean16 == pytest.approx(mean32, rel=0.1)
    assert mean16 < 0.9 * sum(rgb["float16"][:5]) / 5


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
    assert near.store.frames.is_cuda and not far.store.frames.is_cuda
    for trainer in (near, far):
        assert all(term.is_cuda and term.isfinite() for term in trainer.step().values())


def test_resuming_goes_on_with_the_loss_scale(tiny_scene, tiny_config, tmp_path):
    run = train(tiny_scene, changed(tiny_config, "training.steps=4"), tmp_path / "run", arch="cuda", progress=False)
    path = run.path / "checkpoints" / "step-00000004" / "state.json"
    state = json.loads(path.read_text())
    state["scaler"]["scale"] = 4096.0
    path.write_text(json.dumps(state))
    trainer = Trainer(tiny_scene, tiny_config, run.path, torch.device("cuda"), progress=False)
    trainer.restore()
    assert trainer.state.step == 4 and trainer.scaler.get_scale() == 4096.0
    assert all(term.isfinite() for term in trainer.step().values())
