"""A small field whose parameters are not those of the start, so that every part of it matters."""

import pytest
import torch

from msth_taichi.config import Config
from msth_taichi.model.rays import Rays
from msth_taichi.model.renderer import RadianceField
from msth_taichi.scene.scene import Scene
from tests.settings import changed


@pytest.fixture
def make_model(tiny_config: Config, device: torch.device):
    """make_model("rays.samples=5", seed=1) -> a RadianceField with rough random parameters."""

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
def make_rays(tiny_scene: Scene, device: torch.device):
    """make_rays(model, 20) -> rays through random pixels of the tiny scene."""

    def make(model: RadianceField, count: int = 20, seed: int = 0) -> Rays:
        generator = torch.Generator().manual_seed(seed)
        cameras = tiny_scene.cameras
        camera, row, column = (
            torch.randint(n, (count,), generator=generator).to(device)
            for n in (len(cameras), cameras.height, cameras.width)
        )
        times = torch.rand(count, generator=generator).to(device)
        return model.rays(cameras.to(device), camera, row, column, times)

    return make
