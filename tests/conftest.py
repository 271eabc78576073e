"""Shared fixtures. A process owns one device: `pytest -m gpu` runs on CUDA, everything else on the CPU."""

import os
import shutil
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported; see msth_taichi.cli.main

import pytest
import torch


def _wants_gpu(config: pytest.Config) -> bool:
    return config.getoption("markexpr") == "gpu" and torch.cuda.is_available()


@pytest.fixture(scope="session", autouse=True)
def taichi_runtime(request: pytest.FixtureRequest) -> torch.device:
    from msth_taichi.kernels import runtime

    return runtime.init("cuda" if _wants_gpu(request.config) else "cpu")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> torch.device:
    """The device a test's tensors live on; operator tests that use it run on both."""
    return torch.device(request.param)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


@pytest.fixture(scope="session")
def tiny_scene():
    """The built-in scene, small: 3 cameras and a held-out one, 4 frames of 24 x 18."""
    from msth_taichi.scene.scene import load_scene

    return load_scene("synthetic:cameras=3,test_cameras=1,frames=4,width=24,height=18")


@pytest.fixture(scope="session")
def tiny_config():
    """Settings with which a training step takes milliseconds."""
    from msth_taichi.config import load_preset

    grids = (
        "levels=2",
        "base_resolution=[4,4,4,2]",
        "max_resolution=[8,8,8,4]",
        "mask_resolution=4",
        "hidden=8",
    )
    tables = ("log2_static=8", "log2_dynamic=8")
    settings = [f"{part}.{value}" for part in ("field", "proposals.0") for value in (*grids, *tables)]
    settings += [
        "field.hidden_color=8",
        "proposals.0.samples=8",
        "rays.samples=6",
        "rays.background=last_sample",
        "sampler.kind=uniform",
        "training.rays_per_step=64",
    ]
    return load_preset("demo", [*settings, "training.steps=10", "training.checkpoint_every=5"])


@pytest.fixture(scope="session")
def tiny_run(tiny_scene, tiny_config, tmp_path_factory: pytest.TempPathFactory):
    """A run trained for 10 steps; shared, so leave its folder as it is."""
    from msth_taichi.training.trainer import train

    return train(tiny_scene, tiny_config, tmp_path_factory.mktemp("tiny") / "run", progress=False)


@pytest.fixture
def tiny_run_copy(tiny_run, tmp_path: Path) -> Path:
    """A run folder to spoil."""
    return Path(shutil.copytree(tiny_run.path, tmp_path / "tiny_run"))


@pytest.fixture
def make_model(tiny_config, device: torch.device):
    """make_model("rays.samples=5", seed=1) -> a RadianceField with rough random parameters, unlike those of the
    start, so that every part of it matters."""
    from msth_taichi.model.renderer import RadianceField
    from tests.settings import changed

    def make(*settings: str, box: float = 1.0, seed: int = 0) -> RadianceField:
        generator = torch.Generator().manual_seed(seed)
        model = RadianceField(changed(tiny_config, "rays.far=8", *settings), box)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                size = 1.0 if "weights" not in name else 2.5 / parameter.shape[1] ** 0.5
                parameter.copy_((torch.rand(parameter.shape, generator=generator) * 2 - 1) * size)
        return model.to(device)

    return make


@pytest.fixture
def make_rays(tiny_scene, device: torch.device):
    """make_rays(model, 20) -> rays through random pixels of the tiny scene."""

    def make(model, count: int = 20, seed: int = 0):
        generator = torch.Generator().manual_seed(seed)
        cameras = tiny_scene.cameras
        camera, row, column = (
            torch.randint(n, (count,), generator=generator).to(device) for n in (len(cameras), *cameras.size(0)[::-1])
        )
        times = torch.rand(count, generator=generator).to(device)
        return model.rays(cameras.to(device), camera, row, column, times)

    return make


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if _wants_gpu(config):
        return
    skip = pytest.mark.skip(reason="needs a CUDA device and `pytest -m gpu`")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(skip)
