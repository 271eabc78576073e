"""Shared fixtures. A process owns one device: `pytest -m gpu` runs on CUDA, everything else on the CPU."""

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


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if _wants_gpu(config):
        return
    skip = pytest.mark.skip(reason="needs a CUDA device and `pytest -m gpu`")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(skip)
