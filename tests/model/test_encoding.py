"""The masked encoding as a module: how it starts, and the loss of its mask."""

import math

import pytest
import torch

from msth_taichi.config import FieldConfig
from msth_taichi.errors import TensorError
from msth_taichi.model.encoding import TABLE_INIT, MaskedEncoding
from msth_taichi.reference import masked_encoding as reference
from tests.comparison import assert_close

SIZES = {
    "levels": 3,
    "base_resolution": (4, 4, 4, 2),
    "max_resolution": (9, 10, 11, 5),
    "log2_static": 9,
    "log2_dynamic": 10,
    "mask_resolution": 4,
}


def encoding(device: torch.device, **settings) -> MaskedEncoding:
    torch.manual_seed(3)
    return MaskedEncoding(FieldConfig(**SIZES, **settings)).to(device)


def samples(device: torch.device, rays: int = 6, per_ray: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    positions = torch.rand(rays * per_ray, 3, generator=generator)
    return positions.to(device), torch.rand(rays, generator=generator).to(device)


def test_tables_start_small_and_the_mask_a_quarter_static(device):
    module = encoding(device)
    for table in (module.static_table, module.dynamic_table):
        assert 0.9 * TABLE_INIT < table.abs().max() <= TABLE_INIT == 1e-4
        assert abs(table.mean().item()) < 0.1 * TABLE_INIT
    positions, _ = samples(device)
    assert_close(module.mask(positions), torch.full((30,), 0.2689414, device=device), 1e-6)


def test_mask_loss_is_the_mean_that_moves(device):
    module = encoding(device)
    loss = module.mask_loss()
    assert math.isclose(loss.item(), 1 - 0.2689414, abs_tol=1e-6)
    loss.backward()
    gradient = module.mask_logits.grad
    assert gradient is not None and gradient.numel() == 128  # 5^3 vertices, rounded up
    assert_close(gradient, torch.full_like(gradient, -0.2689414 * (1 - 0.2689414) / 128), 1e-5)


def test_mask_loss_has_its_value_at_any_logits(device):
    module = encoding(device)
    torch.nn.init.normal_(module.mask_logits, std=3)
    expected = (1 - torch.sigmoid(module.mask_logits.detach().double())).mean()
    assert_close(module.mask_loss(), expected.float(), 1e-6)


@pytest.mark.parametrize("blend", ["mst", "mt", "add"])
@pytest.mark.parametrize("static_only", [False, True])
@pytest.mark.parametrize("mask_times", [1, 3])
def test_forward_is_the_reference_on_its_tables(device, blend, static_only, mask_times):
    module = encoding(device, blend=blend, mask_times=mask_times)
    torch.nn.init.normal_(module.mask_logits)
    positions, times = samples(device)
    features, mask = module(positions, times, torch.float32, static_only)
    expected, expected_mask = reference.masked_encoding(
        positions,
        times,
        module.mask_logits,
        module.static_table,
        module.dynamic_table,
        module.mask_spec,
        module.static_spec,
        module.dynamic_spec,
        "static" if static_only else blend,
    )
    assert features.shape == (module.num_outputs, 30) == (6, 30)
    assert_close(features, expected, 1e-5)
    assert_close(mask, expected_mask, 1e-6)
    assert_close(module.mask(positions, times), mask, 1e-6)


def test_a_mask_of_times_is_of_no_use_without_them(device):
    positions, times = samples(device)
    module = encoding(device, mask_times=2)
    assert len(module.mask(positions, times)) == 30
    with pytest.raises(TensorError, match="this mask changes with time"):
        module.mask(positions)


def test_mask_loss_is_over_all_vertices_of_space_and_time(device):
    module = encoding(device, mask_times=2)
    assert module.mask_logits.numel() == 2 * 125 + 6  # rounded up
    torch.nn.init.normal_(module.mask_logits, std=3)
    expected = (1 - torch.sigmoid(module.mask_logits.detach().double())).mean()
    assert_close(module.mask_loss(), expected.float(), 1e-6)
