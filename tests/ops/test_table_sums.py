"""Gradients summed in fixed point: right where floats are, never wrapped around, and never mixed up."""

import pytest
import torch

from msth_taichi.errors import TensorError
from msth_taichi.grids import GridSpec, mask_spec
from msth_taichi.ops.masked_encoding import masked_encoding
from msth_taichi.ops.table_sums import TableSums
from tests.comparison import assert_close, assert_gradients_close
from tests.ops.test_masked_encoding import SPECS, random_inputs, wanting

# one dense level of 3^3 cells, at whose vertices samples give all they have to one entry
ONE = (mask_spec(4), GridSpec((4,) * 3, (4,) * 3, 1, 2, None), GridSpec((4,) * 4, (4,) * 4, 1, 2, None))


def vertex(*cell: int, axes: int = 3) -> list[float]:
    """Position of a vertex of ONE."""
    return [(c - 0.5) / 3 for c in cell[:axes]]


def entry(*cell: int) -> int:
    """Slot of a vertex of ONE: 5 vertices along each axis."""
    return sum(c * 5**d for d, c in enumerate(cell))


def static_sums(positions: torch.Tensor, gradient: torch.Tensor) -> TableSums:
    """Sums after the features (2, M) of ONE's static table have had a gradient."""
    device = positions.device
    sums = TableSums(*ONE, device)
    tables = [torch.zeros(s.num_entries, s.features, device=device, requires_grad=True) for s in ONE]
    times = torch.zeros(1, device=device)
    features, _ = masked_encoding(positions, times, *tables, *ONE, "static", gradient.dtype, sums=sums)
    features.backward(gradient)
    return sums


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("signs", [(1, 1), (-1, -1), (-1, 1), (1, -1), (1, 0), (0, -1)])
# equal gradients are all rounded the same way: half a unit for each 8 samples, of 2^29 or 2^30 units
@pytest.mark.parametrize(("count", "tolerance"), [(4_099, 1e-6), (100_003, 1.2e-5)])
def test_all_gradients_in_one_entry_do_not_overflow(device, signs, dtype, count, tolerance):
    """The worst case that the units are chosen for; both features share a word and must not leak."""
    size = 6e4
    positions = torch.tensor([vertex(1, 2, 3)], device=device).expand(count, 3).contiguous()
    gradient = torch.tensor([[s * size] for s in signs], device=device).expand(2, count).to(dtype).contiguous()
    sums = static_sums(positions, gradient)
    _, static, dynamic = sums.gradients()
    expected = torch.zeros_like(static)
    expected[entry(1, 2, 3)] = gradient[:, 0].float() * count
    assert_close(static, expected, tolerance)
    assert dynamic.abs().max() == 0 and sums.mask.abs().max() == 0
    assert static.count_nonzero() == sum(s != 0 for s in signs), "nothing leaks to other entries or features"


def test_what_is_far_below_the_largest_vanishes_and_changes_nothing(device):
    """Half a unit is 2^-31 of what a level receives: a smaller gradient is zero, a larger one is not."""
    cells = [(1, 1, 1), (2, 1, 1), (1, 2, 1), (1, 1, 2)]
    positions = torch.tensor([vertex(*c) for c in cells], device=device)
    sizes = torch.tensor([1024.0, 1024 * 2.0**-32, -1024 * 2.0**-32, 1024 * 2.0**-28], device=device)
    both = static_sums(positions, torch.stack([sizes, -sizes]))
    static = both.gradients()[1]
    assert static[entry(*cells[0])].tolist() == [1024.0, -1024.0]
    assert static[[entry(*c) for c in cells[1:3]]].count_nonzero() == 0
    assert_close(static[entry(*cells[3])], torch.stack([sizes[3], -sizes[3]]), 0.2)
    alone = static_sums(positions, torch.stack([sizes, -sizes]) * (sizes > 2.0**-20))
    assert torch.equal(both.static, alone.static)


def test_units_follow_the_size_of_the_gradients(device):
    """As many digits for a loss of a million rays' mean as for one ray."""
    inputs = wanting(random_inputs(9, 16, device), 2, 3, 4)
    incoming = torch.randn(6, 144, generator=torch.Generator().manual_seed(3)).to(device)
    (expected,) = torch.autograd.grad(masked_encoding(*inputs, *SPECS)[0], inputs[3], incoming)
    for scale in (2.0**-60, 1.0, 2.0**40):
        sums = TableSums(*SPECS, device)
        masked_encoding(*inputs, *SPECS, sums=sums)[0].backward(incoming * scale)
        assert_gradients_close(sums.gradients()[1] / scale, expected, 1e-6)


def test_the_masks_sums_keep_gradients_of_a_mean_over_many_rays(device):
    """In float32 the loss is not scaled up: of 16,384 rays each has a share of 6e-5 in it."""
    inputs = wanting(random_inputs(9, 16, device), 2, 3, 4)
    incoming = torch.randn(6, 144, generator=torch.Generator().manual_seed(3)).to(device) * 1e-7
    (expected,) = torch.autograd.grad(masked_encoding(*inputs, *SPECS)[0], inputs[2], incoming)
    sums = TableSums(*SPECS, device)
    masked_encoding(*inputs, *SPECS, sums=sums)[0].backward(incoming)
    assert_gradients_close(sums.gradients()[0], expected, 1e-2)


def test_no_gradient_leaves_no_sums(device):
    inputs = wanting(random_inputs(3, 4, device), 2, 3, 4)
    sums = TableSums(*SPECS, device)
    features, mask = masked_encoding(*inputs, *SPECS, sums=sums)
    (features.sum() * 0 + mask.sum() * 0).backward()
    assert sums.pending and sums.bounds.count_nonzero() == 0
    assert all(g.count_nonzero() == 0 and g.isfinite().all() for g in sums.gradients())


@pytest.mark.parametrize("rays", [0, 5])
def test_a_second_backward_pass_is_added(device, rays):
    """Though its units are others: the sums are those of both, as autograd has them, and clear() forgets them."""
    inputs = wanting(random_inputs(rays, 4, device), 2, 3, 4)
    more = [*wanting(random_inputs(7, 3, device), 2, 3, 4)[:2], *inputs[2:]]
    sums = TableSums(*SPECS, device)
    assert not sums.pending
    expected = masked_encoding(*inputs, *SPECS)[0].sum() + masked_encoding(*more, *SPECS)[0].mul(300).sum()
    tables = torch.autograd.grad(expected, inputs[2:5])
    for _ in range(2):
        masked_encoding(*inputs, *SPECS, sums=sums)[0].sum().backward()
        masked_encoding(*more, *SPECS, sums=sums)[0].mul(300).sum().backward()
        assert sums.pending and not sums.beside().pending
        for value, truth, tolerance in zip(sums.gradients(), tables, (1e-4, 1e-6, 1e-6), strict=True):
            assert_gradients_close(value, truth, tolerance)
        sums.clear()
        assert all(g.count_nonzero() == 0 for g in sums.gradients()) and not sums.pending


def test_sums_are_not_opened_twice(device):
    """The first ones' units would be wrong for the second."""
    sums = TableSums(*SPECS, device)
    sums.open(torch.ones(SPECS[1].num_outputs, 4, device=device))
    with pytest.raises(TensorError, match=r"sums: of an earlier backward pass; .* clear\(\)"):
        sums.open(torch.ones(SPECS[1].num_outputs, 4, device=device))


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_bounds_tell_of_a_gradient_that_is_not_finite(device, value, dtype):
    inputs = wanting(random_inputs(3, 5, device), 2, 3, 4)
    sums = TableSums(*SPECS, device)
    features, _ = masked_encoding(*inputs, *SPECS, compute=dtype, sums=sums)
    gradient = torch.ones_like(features)
    gradient[3, 7] = value  # of the second of three levels
    features.backward(gradient)
    assert sums.bounds.isfinite().tolist() == [True, False, True]


def test_float64_has_no_fixed_point(device):
    inputs = random_inputs(3, 5, device, torch.float64)
    with pytest.raises(TensorError, match=r"sums: .*float32 tables, got float64"):
        masked_encoding(*inputs, *SPECS, sums=TableSums(*SPECS, device))
