"""A model to render."""

import pytest
import torch

from msth_taichi.model.renderer import RadianceField
from tests.settings import changed


@pytest.fixture
def rough_model(tiny_config, device):
    def make(*settings: str) -> RadianceField:
        torch.manual_seed(3)
        model = RadianceField(changed(tiny_config, *settings), 1.5, torch.arange(3))
        with torch.no_grad():
            for part in model.fields():
                part.encoding.static_table.mul_(1e4)
                part.encoding.dynamic_table.mul_(1e4)
                part.encoding.mask_logits.normal_(0, 3)
        return model.to(device).requires_grad_(False).eval()

    return make
