"""The hash grid against scalar arithmetic, its PyTorch twin, Taichi's own adjoint and finite differences."""

import math

import pytest
import torch

import msth_taichi.ops.hash_grid as operator
from msth_taichi.errors import TensorError
from msth_taichi.grids import PRIMES, GridSpec
from msth_taichi.kernels.cells import as_words, level_constants
from msth_taichi.kernels.hash_grid import hash_grid_kernels
from msth_taichi.ops.hash_grid import hash_grid
from msth_taichi.reference import hash_grid as twin
from tests.comparison import (
    assert_close,
    assert_gradients_close,
    assert_matches,
    assert_safe_autograd,
    taichi_gradients,
)

SPEC3 = GridSpec((4, 5, 6), (20, 24, 31), 4, 2, 10)
SPEC4 = GridSpec((3, 4, 5, 3), (12, 14, 20, 9), 3, 2, 10)
FULL3 = GridSpec((16,) * 3, (2048,) * 3, 16, 2, 19)
FULL4 = GridSpec((16, 16, 16, 15), (2048, 2048, 2048, 300), 16, 2, 19)


def random_inputs(spec: GridSpec, count: int, device: torch.device, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    # some lie outside, some exactly on the faces
    positions = torch.rand(count, spec.axes, generator=generator, dtype=dtype) * 1.1 - 0.05
    positions[::7] = positions[::7].clamp(0, 1).round()
    table = torch.randn(spec.num_entries, spec.features, generator=generator, dtype=dtype)
    return positions.to(device), table.to(device)


def test_level_sizes_of_the_published_grids():
    assert FULL3.entries[:6] == (4920, 13824, 32768, 85184, 216000, 524288)
    assert FULL3.num_entries == 6_119_864
    assert FULL4.entries[:3] == (78608, 276480, 524288)
    assert FULL4.num_entries == 7_695_120
    assert [r[0] for r in FULL3.resolutions] == [
        16, 23, 31, 43, 59, 81, 112, 154, 213, 295, 407, 562, 777, 1073, 1483, 2048,
    ]  # fmt: skip
    assert [r[3] for r in FULL4.resolutions] == [
        15, 19, 23, 28, 34, 41, 50, 61, 75, 91, 111, 135, 165, 202, 246, 300,
    ]  # fmt: skip
    proposal3, proposal4 = (
        GridSpec((16,) * 3, (128,) * 3, 5, 2, 18),
        GridSpec((16, 16, 16, 15), (128, 128, 128, 150), 5, 2, 18),
    )
    assert proposal3.entries == (4920, 21952, 103824, 262144, 262144)
    assert proposal4.entries == (78608, 262144, 262144, 262144, 262144)
    assert math.isclose(FULL3.growth[0], 1.38191288, rel_tol=1e-7)
    assert math.isclose(FULL4.growth[3], 1.2210553, rel_tol=1e-6)


@pytest.mark.parametrize(
    ("spec", "level", "corner", "slot", "opposite", "weight"),
    [
        (FULL4, 0, (5, 9, 14, 7), 38595, 43815, 0.25),
        (FULL4, 5, (24, 48, 72, 20), 84964, 85404, 0.23308),
        (FULL4, 15, (614, 1228, 1842, 149), 453097, 101115, 0.0),
        (FULL3, 0, (5, 9, 14), 4204, 4511, 0.5),
        (FULL3, 5, (24, 48, 72), 422080, 308101, 0.36312),
        (FULL3, 15, (614, 1228, 1842), 102768, 504181, 0.0240),
    ],
)
def test_slots_and_weights_of_known_points(device, spec, level, corner, slot, opposite, weight):
    """x = (0.3, 0.6, 0.9), t = 0.5: a table that is one at a single slot returns that corner's weight."""
    assert twin.corner_slots(torch.tensor([corner]), spec, level).item() - spec.offsets[level] == slot
    upper = torch.tensor([[c + 1 for c in corner]])
    assert twin.corner_slots(upper, spec, level).item() - spec.offsets[level] == opposite
    position = torch.tensor([[0.3, 0.6, 0.9, 0.5][: spec.axes]], device=device)
    table = torch.zeros(spec.num_entries, spec.features, device=device)
    table[spec.offsets[level] + slot, 1] = 1.0
    out = hash_grid(position, table, spec).cpu().flatten()
    # float32 leaves 1e-4 of a cell at a resolution of 2048, in x scale + 0.5
    assert abs(out[2 * level + 1].item() - weight) < 5e-4
    out[2 * level + 1] = 0
    assert out.abs().max() == 0


def test_slots_against_python_integers(device):
    """Bit-equal indices at random vertices, in arithmetic of arbitrary precision."""
    generator = torch.Generator().manual_seed(3)
    for spec in (FULL3, FULL4, SPEC4):
        for level in range(spec.levels):
            sizes = torch.tensor(spec.resolutions[level])
            vertices = (torch.rand(20, spec.axes, generator=generator) * (sizes + 1)).long()
            slots = twin.corner_slots(vertices, spec, level) - spec.offsets[level]
            for vertex, slot in zip(vertices.tolist(), slots.tolist(), strict=True):
                stride, index = 1, 0
                for c, r in zip(vertex, spec.resolutions[level], strict=True):
                    if stride <= spec.entries[level]:
                        index, stride = index + c * stride, stride * (r + 1)
                if stride > spec.entries[level]:
                    index = 0
                    for c, prime in zip(vertex, PRIMES, strict=False):
                        index ^= (c * prime) % 2**32
                assert slot == index % spec.entries[level]


@pytest.mark.parametrize("spec", [SPEC3, SPEC4], ids=["3D", "4D"])
@pytest.mark.parametrize("count", [0, 1, 7, 1000])
def test_matches_reference(device, spec, count):
    positions, table = random_inputs(spec, count, device, seed=count)
    inputs = [positions.requires_grad_(), table.requires_grad_()]
    assert_matches(
        lambda x, w: hash_grid(x, w, spec),
        lambda x, w: twin.hash_grid(x, w, spec),
        inputs,
        gradient_tolerance=1e-4,
    )


@pytest.mark.parametrize("spec", [SPEC3, SPEC4], ids=["3D", "4D"])
@pytest.mark.parametrize("count", [1, 7, 1000])
def test_integer_sums_match_reference(device, monkeypatch, spec, count):
    """What the operator does on a GPU, on each device; entries that nobody meets get no gradient."""
    monkeypatch.setattr(operator, "_sums", lambda table: "fixed")
    positions, table = random_inputs(spec, count, device, seed=count)
    assert_matches(
        lambda w: hash_grid(positions, w, spec),
        lambda w: twin.hash_grid(positions, w, spec),
        [table.requires_grad_()],
        gradient_tolerance=1e-5,
    )
    (gradient,) = torch.autograd.grad(hash_grid(positions, table, spec).sum(), table)
    (expected,) = torch.autograd.grad(twin.hash_grid(positions, table, spec).sum(), table)
    assert (gradient[expected == 0] == 0).all()


def test_integer_sums_keep_what_is_not_finite(device, monkeypatch):
    monkeypatch.setattr(operator, "_sums", lambda table: "fixed")
    positions, table = random_inputs(SPEC3, 50, device)
    out = hash_grid(positions, table.requires_grad_(), SPEC3)
    (gradient,) = torch.autograd.grad(out, table, torch.full_like(out, math.inf))
    assert not gradient.isfinite().all()


@pytest.mark.parametrize("spec", [FULL3, FULL4], ids=["3D", "4D"])
def test_published_sizes_match_reference(device, spec):
    positions, table = random_inputs(spec, 300, device)
    # the finest cells are 1/2048 wide: float32 positions blur both sides equally
    assert_matches(
        lambda w: hash_grid(positions, w, spec),
        lambda w: twin.hash_grid(positions, w, spec),
        [table.requires_grad_()],
    )


@pytest.mark.parametrize("spec", [SPEC3, SPEC4], ids=["3D", "4D"])
def test_hand_written_adjoint_equals_taichis(spec):
    positions, table = random_inputs(spec, 90, torch.device("cpu"), torch.float64)
    constants = level_constants(spec, positions.device, positions.dtype)
    kernels = hash_grid_kernels(spec.axes, spec.features, torch.float64, "atomic", 1, gpu=True)
    out = torch.empty(spec.num_outputs, len(positions), dtype=torch.float64)
    out_gradient = torch.randn_like(out)
    expected = taichi_gradients(kernels.forward, (positions, table, *constants, out), {4: out_gradient}, (1, 0))
    table_gradient, position_gradient = torch.zeros_like(table), torch.zeros_like(positions)
    kernels.backward_table(positions, *constants, out_gradient, table_gradient, torch.empty(spec.levels))
    kernels.backward_positions(positions, table, *constants, out_gradient, position_gradient)
    assert_gradients_close(table_gradient, expected[0], 1e-12)
    assert_gradients_close(position_gradient, expected[1], 1e-12)


@pytest.mark.parametrize("spec", [SPEC3, SPEC4], ids=["3D", "4D"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("count", [1, 7, 1000])
def test_fixed_point_sums_are_the_gradient(device, spec, dtype, count):
    """The kernels' three ways to add; the operator takes the one that its device is best at."""
    positions, table = random_inputs(spec, count, device, seed=count)
    generator = torch.Generator().manual_seed(count)
    out_gradient = torch.randn(spec.num_outputs, count, generator=generator).to(device, dtype)
    exact = table.clone().requires_grad_()
    twin.hash_grid(positions, exact, spec).backward(out_gradient.float())
    constants = level_constants(spec, device, torch.float32)
    bounds = out_gradient.float().view(spec.levels, -1).abs().sum(1)
    scales = 2.0**30 / bounds
    fixed = torch.zeros(spec.num_entries, 1, dtype=torch.int64, device=device)
    kernels = hash_grid_kernels(spec.axes, spec.features, dtype, "fixed", 1)
    kernels.backward_table(positions, *constants, out_gradient, fixed, scales)
    low = fixed.to(torch.int32).to(torch.int64)
    of_level = scales.repeat_interleave(torch.tensor(spec.entries, device=device))[:, None]
    assert_gradients_close(torch.cat([low, (fixed - low) >> 32], dim=1) / of_level, exact.grad, 1e-5)
    for sums in ("atomic", "serial"):
        value = torch.zeros_like(table)
        kernels = hash_grid_kernels(spec.axes, spec.features, dtype, sums, 1)
        kernels.backward_table(positions, *constants, out_gradient, value, scales)
        assert_gradients_close(value, exact.grad, 1e-5)


@pytest.mark.parametrize(("block", "gpu"), [(1, False), (64, False), (4, True)])
def test_float16_tables_are_read_in_pairs(device, block, gpu):
    """Two features in one 32-bit word; sums and outputs as those of the same numbers in float32."""
    positions, table = random_inputs(SPEC4, 333, device)
    constants = level_constants(SPEC4, device, torch.float32)
    out = torch.empty(SPEC4.num_outputs, 333, dtype=torch.float16, device=device)
    kernels = hash_grid_kernels(4, 2, torch.float16, "atomic", block, gpu)
    kernels.forward(positions, as_words(table.half()), *constants, out)
    assert_close(out.float(), hash_grid(positions, table.half().float(), SPEC4).half().float(), 2e-4)


@pytest.mark.gradcheck
@pytest.mark.parametrize("spec", [SPEC3, SPEC4], ids=["3D", "4D"])
def test_finite_differences(spec):
    positions, table = random_inputs(spec, 3, torch.device("cpu"), torch.float64)
    positions = positions.clamp(0.02, 0.98).requires_grad_()
    touched = twin.hash_grid(positions, table.requires_grad_(), spec).sum()
    rows = torch.autograd.grad(touched, table)[0].abs().sum(1).nonzero()[:6, 0]

    def function(x, values):
        return hash_grid(x, table.detach().index_put((rows,), values), spec)

    assert torch.autograd.gradcheck(function, (positions, table.detach()[rows].requires_grad_()))


def test_safe_under_autograd(device):
    positions, table = random_inputs(SPEC3, 20, device)
    assert_safe_autograd(lambda x, w: hash_grid(x, w, SPEC3), [positions.requires_grad_(), table.requires_grad_()])


def test_outside_gives_zero_and_takes_no_gradient(device):
    positions = torch.tensor([[-0.01, 0.5, 0.5], [0.5, 1.001, 0.5], [0.5, 0.5, float("nan")]], device=device)
    table = torch.ones(SPEC3.num_entries, 2, device=device, requires_grad=True)
    out = hash_grid(positions, table, SPEC3)
    out.sum().backward()
    assert table.grad is not None
    assert out.abs().max() == 0 and table.grad.abs().max() == 0


def test_constant_table_is_reproduced_everywhere(device):
    positions, _ = random_inputs(SPEC4, 200, device)
    out = hash_grid(positions.clamp(0, 1), torch.full((SPEC4.num_entries, 2), 0.7, device=device), SPEC4)
    assert_close(out, torch.full_like(out, 0.7), 1e-6)


def test_linear_function_is_reproduced_on_a_dense_level(device):
    """Linear interpolation is exact for a linear function of the vertices."""
    spec = GridSpec((9, 9, 9), (9, 9, 9), 1, 1, None)
    steps = torch.arange(10, dtype=torch.float32)
    z, y, x = torch.meshgrid(steps, steps, steps, indexing="ij")
    table = torch.zeros(spec.num_entries, 1)
    table[:1000, 0] = (x + 2 * y - 3 * z).flatten()
    positions = torch.rand(50, 3)
    p = positions * 8 + 0.5
    out = hash_grid(positions.to(device), table.to(device), spec)
    assert_close(out[0], p[:, 0] + 2 * p[:, 1] - 3 * p[:, 2], 1e-5)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda x, w: (x.double(), w), "float64"),
        (lambda x, w: (x[:, :2], w), "positions"),
        (lambda x, w: (x, w[:-1]), "table"),
        (lambda x, w: (x.T.contiguous().T, w), "contiguous"),
        (lambda x, w: (x.half(), w.half()), "float16"),
    ],
)
def test_wrong_tensors_are_named(device, change, word):
    with pytest.raises(TensorError, match=word):
        hash_grid(*change(*random_inputs(SPEC3, 4, device)), SPEC3)
