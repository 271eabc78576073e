"""The fused encoding against its PyTorch twin, its own parts, Taichi's adjoint and finite differences."""

from types import SimpleNamespace

import pytest
import torch

import msth_taichi.ops.masked_encoding as operator
from msth_taichi.errors import TensorError
from msth_taichi.grids import GridSpec, mask_spec
from msth_taichi.kernels.cells import level_constants
from msth_taichi.kernels.masked_encoding import masked_encoding_kernels
from msth_taichi.ops.hash_grid import hash_grid
from msth_taichi.ops.mask_grid import mask_grid
from msth_taichi.ops.masked_encoding import BLENDS, masked_encoding
from msth_taichi.reference import masked_encoding as twin
from tests.comparison import (
    assert_close,
    assert_gradients_close,
    assert_matches,
    assert_safe_autograd,
    taichi_gradients,
)

MASK = mask_spec(4)
STATIC = GridSpec((4, 5, 6), (20, 24, 31), 3, 2, 9)
DYNAMIC = GridSpec((4, 5, 6, 3), (20, 24, 31, 9), 3, 2, 9)
SPECS = (MASK, STATIC, DYNAMIC)


def random_inputs(rays: int, samples: int, device: torch.device, dtype=torch.float32):
    """Positions, times, mask logits, static table, dynamic table; some positions lie outside."""
    generator = torch.Generator().manual_seed(rays + samples)
    positions = torch.rand(rays * samples, 3, generator=generator, dtype=dtype) * 1.1 - 0.05
    tables = [torch.randn(s.num_entries, s.features, generator=generator, dtype=dtype) for s in SPECS]
    return [x.to(device) for x in (positions, torch.rand(rays, generator=generator, dtype=dtype), *tables)]


def wanting(inputs, *which):
    return [x.requires_grad_(i in which) for i, x in enumerate(inputs)]


@pytest.mark.parametrize("blend", BLENDS)
def test_matches_reference(device, blend):
    """Features, mask, and gradients to positions, mask, static and dynamic table."""
    used = (0, 2, 3, 4) if blend != "static" else (0, 2, 3)
    inputs = wanting(random_inputs(13, 21, device), *used)
    assert_matches(
        lambda *x: masked_encoding(*x, *SPECS, blend),
        lambda *x: twin.masked_encoding(*x, *SPECS, blend),
        inputs,
    )


@pytest.mark.parametrize(("rays", "samples"), [(0, 4), (1, 1), (5, 1), (1, 9)])
def test_odd_sizes(device, rays, samples):
    inputs = wanting(random_inputs(rays, samples, device), 0, 2, 3, 4)
    assert_matches(lambda *x: masked_encoding(*x, *SPECS), lambda *x: twin.masked_encoding(*x, *SPECS), inputs)


def test_equals_its_parts(device):
    """One fused launch gives what the mask grid and two hash grids give."""
    positions, times, logits, static, dynamic = random_inputs(6, 10, device)
    features, mask = masked_encoding(positions, times, logits, static, dynamic, *SPECS)
    m = mask_grid(positions, logits, MASK)
    spacetime = torch.cat([positions, times.repeat_interleave(10)[:, None]], dim=1)
    assert_close(mask, m, 1e-6)
    expected = m * hash_grid(positions, static, STATIC) + (1 - m) * hash_grid(spacetime, dynamic, DYNAMIC)
    assert_close(features, expected, 1e-5)


def test_saturated_mask_is_one_branch(device):
    positions, times, logits, static, dynamic = random_inputs(4, 8, device)
    positions = positions.clamp(0, 1)
    frozen, _ = masked_encoding(positions, times, torch.full_like(logits, 40), static, dynamic, *SPECS)
    assert_close(frozen, hash_grid(positions, static, STATIC), 1e-6)
    moving, _ = masked_encoding(positions, times, torch.full_like(logits, -40), static, dynamic, *SPECS)
    spacetime = torch.cat([positions, times.repeat_interleave(8)[:, None]], dim=1)
    assert_close(moving, hash_grid(spacetime, dynamic, DYNAMIC), 1e-6)


def test_hand_written_adjoint_equals_taichis():
    positions, times, logits, static, dynamic = random_inputs(5, 6, torch.device("cpu"), torch.float64)
    constants = [t for s in SPECS for t in level_constants(s, positions.device, positions.dtype)]
    kernels = masked_encoding_kernels(2, torch.float64, "mst")
    out, mask, slope = torch.empty(6, 30).double(), torch.empty(30).double(), torch.empty(6, 30).double()
    out_gradient, mask_gradient = torch.randn_like(out), torch.randn_like(mask)
    arguments = (positions, times, logits, static, dynamic, *constants, out, mask, slope)
    expected = taichi_gradients(
        kernels.forward,
        arguments,
        {11: out_gradient, 12: mask_gradient, 13: torch.zeros_like(slope)},
        (0, 2, 3, 4),
    )
    kernels.forward(*arguments)
    logit_gradient, position_gradient = torch.zeros_like(mask), torch.zeros_like(positions)
    tables = [torch.zeros_like(t) for t in (logits, static, dynamic)]
    kernels.backward(positions, times, mask, slope, *constants, out_gradient, mask_gradient, logit_gradient, *tables)
    kernels.backward_positions(
        positions,
        times,
        logits,
        static,
        dynamic,
        mask,
        *constants,
        out_gradient,
        logit_gradient,
        position_gradient,
    )
    for value, target in zip((position_gradient, *tables), expected, strict=True):
        assert_gradients_close(value, target, 1e-12)


@pytest.mark.gradcheck
def test_finite_differences():
    positions, times, logits, static, dynamic = random_inputs(1, 2, torch.device("cpu"), torch.float64)
    inputs = (positions.clamp(0.05, 0.95).requires_grad_(), logits.requires_grad_())
    assert torch.autograd.gradcheck(lambda x, v: masked_encoding(x, times, v, static, dynamic, *SPECS), inputs)


def test_safe_under_autograd(device):
    inputs = wanting(random_inputs(4, 5, device), 0, 2, 3, 4)
    assert_safe_autograd(lambda *x: masked_encoding(*x, *SPECS)[0], inputs)


def test_float16_compute_stays_close_and_sums_in_float32(device):
    inputs = wanting(random_inputs(16, 16, device), 2, 3, 4)
    features, _ = masked_encoding(*inputs, *SPECS, compute=torch.float16)
    assert features.dtype == torch.float16
    weights = torch.randn(features.shape, generator=torch.Generator().manual_seed(1)).to(device)
    (features.float() * weights).sum().backward()
    halves = [x.grad for x in inputs[2:]]
    for x in inputs[2:]:
        x.grad = None
    exact, _ = masked_encoding(*inputs, *SPECS)
    (exact * weights).sum().backward()
    assert_close(features.float(), exact, 2e-3)
    for half, x in zip(halves, inputs[2:], strict=True):
        assert half is not None and x.grad is not None and half.dtype == torch.float32
        assert_gradients_close(half, x.grad, 3e-3)


@pytest.mark.parametrize("wanted", [True, False])
def test_what_the_adjoint_needs_is_written_only_where_it_will_run(device, monkeypatch, wanted):
    slopes = []

    def recording(*arguments):
        kernels = masked_encoding_kernels(*arguments)

        def forward(*tensors):
            slopes.append(tensors[-1].shape)
            kernels.forward(*tensors)

        return SimpleNamespace(forward=forward)

    monkeypatch.setattr(operator, "masked_encoding_kernels", recording)
    # parameters want gradients in either case, as those of a proposal do in a step that does not train it
    inputs = wanting(random_inputs(3, 3, device), 2, 3, 4)
    with torch.set_grad_enabled(wanted):
        features, mask = masked_encoding(*inputs, *SPECS)
    assert features.requires_grad == mask.requires_grad == wanted
    assert slopes == [(6, 9) if wanted else (6, 0)]


def test_wrong_tensors_are_named(device):
    inputs = random_inputs(4, 3, device)
    with pytest.raises(TensorError, match="blend"):
        masked_encoding(*inputs, *SPECS, "both")
    with pytest.raises(TensorError, match="times"):
        masked_encoding(inputs[0], inputs[1].new_zeros(5), *inputs[2:], *SPECS)
    with pytest.raises(TensorError, match="dynamic_table"):
        masked_encoding(*inputs[:4], inputs[4][:-8], *SPECS)
