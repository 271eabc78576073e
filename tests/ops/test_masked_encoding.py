"""The fused encoding against its PyTorch twin, its own parts, Taichi's adjoint and finite differences."""

from types import SimpleNamespace

import pytest
import torch

import msth_taichi.ops.masked_encoding as operator
from msth_taichi.errors import ConfigError, TensorError
from msth_taichi.grids import GridSpec, mask_spec
from msth_taichi.kernels.cells import BLOCK, BLOCK_APART, as_words, joined_constants
from msth_taichi.kernels.masked_encoding import masked_encoding_kernels
from msth_taichi.ops.hash_grid import hash_grid
from msth_taichi.ops.mask_grid import mask_grid
from msth_taichi.ops.masked_encoding import BLENDS, masked_encoding, masked_encoding_along, masked_encoding_first
from msth_taichi.ops.sample_positions import sample_positions
from msth_taichi.ops.table_sums import TableSums
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
TIMED = (mask_spec(4, 3), STATIC, DYNAMIC)
BOTH = pytest.mark.parametrize("specs", [SPECS, TIMED], ids=["mask of space", "mask of times"])


def random_inputs(rays: int, samples: int, device: torch.device, dtype=torch.float32, specs=SPECS):
    """Positions, times, mask logits, static table, dynamic table; some positions lie outside."""
    generator = torch.Generator().manual_seed(rays + samples)
    positions = torch.rand(rays * samples, 3, generator=generator, dtype=dtype) * 1.1 - 0.05
    tables = [torch.randn(s.num_entries, s.features, generator=generator, dtype=dtype) for s in specs]
    return [x.to(device) for x in (positions, torch.rand(rays, generator=generator, dtype=dtype), *tables)]


def wanting(inputs, *which):
    return [x.requires_grad_(i in which) for i, x in enumerate(inputs)]


@BOTH
@pytest.mark.parametrize("blend", BLENDS)
def test_matches_reference(device, blend, specs):
    """Features, mask, and gradients to positions, mask, static and dynamic table."""
    used = (0, 2, 3, 4) if blend != "static" else (0, 2, 3)
    inputs = wanting(random_inputs(13, 21, device, specs=specs), *used)
    assert_matches(
        lambda *x: masked_encoding(*x, *specs, blend),
        lambda *x: twin.masked_encoding(*x, *specs, blend),
        inputs,
    )


@BOTH
@pytest.mark.parametrize(("rays", "samples"), [(0, 4), (1, 1), (5, 1), (1, 9)])
def test_odd_sizes(device, rays, samples, specs):
    inputs = wanting(random_inputs(rays, samples, device, specs=specs), 0, 2, 3, 4)
    assert_matches(lambda *x: masked_encoding(*x, *specs), lambda *x: twin.masked_encoding(*x, *specs), inputs)


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


@BOTH
def test_hand_written_adjoint_equals_taichis(specs):
    positions, times, logits, static, dynamic = random_inputs(5, 6, torch.device("cpu"), torch.float64, specs=specs)
    constants = joined_constants(specs, positions.device, positions.dtype)
    kernels = masked_encoding_kernels(2, torch.float64, "mst", "serial", 1, mask_axes=specs[0].axes)
    out, mask, slope = torch.empty(6, 30).double(), torch.empty(30).double(), torch.empty(6, 30).double()
    out_gradient, mask_gradient = torch.randn_like(out), torch.randn_like(mask)
    arguments = (positions, times, logits, static, dynamic, *constants, out, mask, slope, 20)
    expected = taichi_gradients(
        kernels.forward,
        arguments,
        {7: out_gradient, 8: mask_gradient, 9: torch.zeros_like(slope)},
        (0, 2, 3, 4),
    )
    kernels.forward(*arguments)
    logit_gradient, position_gradient = torch.zeros_like(mask), torch.zeros_like(positions)
    tables = [torch.zeros_like(t) for t in (logits, static, dynamic)]
    incoming = (out_gradient, mask_gradient)
    kernels.backward(positions, times, mask, slope, *constants, *incoming, logit_gradient, *tables, torch.empty(3))
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


@pytest.mark.parametrize(("blend", "specs"), [*((blend, SPECS) for blend in BLENDS), ("mst", TIMED)])
@pytest.mark.parametrize("count", [1, 5, 7, 30])
def test_lookups_far_apart_are_those_in_a_row(device, blend, count, specs):
    """The loops of either device, on both; one sample, and more than fill the blocks."""
    positions, times, *tables = random_inputs(count, 1, device, specs=specs)
    constants = joined_constants(specs, device, positions.dtype)
    found = []
    for block, gpu in ((1, False), (BLOCK, False), (BLOCK_APART, True)):
        out, slope = torch.empty(2, 6, count, device=device).unbind()
        mask = torch.empty(count, device=device)
        kernels = masked_encoding_kernels(2, torch.float32, blend, "atomic", block, gpu=gpu, mask_axes=specs[0].axes)
        kernels.forward(positions, times, *(as_words(x) for x in tables), *constants, out, mask, slope, count)
        found.append((out, mask) if blend in ("add", "static") else (out, mask, slope))
    for other in found[1:]:
        for value, target in zip(other, found[0], strict=True):
            assert_close(value, target, 1e-6)


@BOTH
@pytest.mark.gradcheck
def test_finite_differences(specs):
    positions, times, logits, static, dynamic = random_inputs(1, 2, torch.device("cpu"), torch.float64, specs=specs)
    inputs = (positions.clamp(0.05, 0.95).requires_grad_(), logits.requires_grad_())
    assert torch.autograd.gradcheck(lambda x, v: masked_encoding(x, times, v, static, dynamic, *specs), inputs)


def test_safe_under_autograd(device):
    inputs = wanting(random_inputs(4, 5, device), 0, 2, 3, 4)
    assert_safe_autograd(lambda *x: masked_encoding(*x, *SPECS)[0], inputs)


@BOTH
def test_float16_compute_stays_close_and_sums_in_float32(device, specs):
    inputs = wanting(random_inputs(16, 16, device, specs=specs), 2, 3, 4)
    features, _ = masked_encoding(*inputs, *specs, compute=torch.float16)
    assert features.dtype == torch.float16
    weights = torch.randn(features.shape, generator=torch.Generator().manual_seed(1)).to(device)
    (features.float() * weights).sum().backward()
    halves = [x.grad for x in inputs[2:]]
    for x in inputs[2:]:
        x.grad = None
    exact, _ = masked_encoding(*inputs, *specs)
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
            slopes.append(tensors[-2].shape)
            kernels.forward(*tensors)

        return SimpleNamespace(forward=forward)

    monkeypatch.setattr(operator, "masked_encoding_kernels", recording)
    # parameters want gradients in either case, as those of a proposal do in a step that does not train it
    inputs = wanting(random_inputs(3, 3, device), 2, 3, 4)
    with torch.set_grad_enabled(wanted):
        features, mask = masked_encoding(*inputs, *SPECS)
    assert features.requires_grad == mask.requires_grad == wanted
    assert slopes == [(6, 9) if wanted else (6, 0)]


def backward(inputs, blend="mst", compute=torch.float32, sums: TableSums | None = None, incoming=None, specs=SPECS):
    """Gradients of positions, mask, static and dynamic table, by autograd or summed in fixed point."""
    leaves = [x.detach().clone().requires_grad_(i in (0, 2, 3, 4)) for i, x in enumerate(inputs)]
    features, mask = masked_encoding(*leaves, *specs, blend, compute, sums=sums)
    if incoming is None:
        generator = torch.Generator().manual_seed(5)
        incoming = [torch.randn(x.shape, generator=generator).to(x.device, x.dtype) for x in (features, mask)]
    torch.autograd.backward((features, mask), incoming)
    if sums is not None:
        assert all(table.grad is None for table in leaves[2:]), "reached autograd all the same"
        return [leaves[0].grad, *sums.gradients()]
    return [leaves[i].grad for i in (0, 2, 3, 4)]


@BOTH
@pytest.mark.parametrize("blend", BLENDS)
def test_fixed_point_sums_are_the_gradients(device, blend, specs):
    inputs = random_inputs(13, 21, device, specs=specs)
    expected = backward(inputs, blend, specs=specs)
    for value, target in zip(
        backward(inputs, blend, sums=TableSums(*specs, device), specs=specs), expected, strict=True
    ):
        assert_gradients_close(value, torch.zeros_like(value) if target is None else target, 1e-5)


@BOTH
@pytest.mark.parametrize("compute", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize(
    ("rays", "samples", "tolerance"), [(1, 1, 1e-5), (5, 1, 1e-5), (1, 9, 1e-5), (3, 8, 1e-5), (70, 48, 3e-5)]
)
def test_fixed_point_sums_at_odd_sizes(device, rays, samples, tolerance, compute, specs):
    """Samples are taken eight at a time, and some lie outside. The unit grows with their number."""
    inputs = random_inputs(rays, samples, device, specs=specs)
    expected = backward(inputs, "mst", compute, specs=specs)
    for value, target in zip(
        backward(inputs, "mst", compute, TableSums(*specs, device), specs=specs), expected, strict=True
    ):
        assert_gradients_close(value, target, tolerance)


def words(inputs, incoming) -> list[torch.Tensor]:
    """What is summed, to the last bit."""
    sums = TableSums(*SPECS, inputs[0].device)
    backward(inputs, "mst", torch.float32, sums, incoming)
    return [sums.mask, sums.static, sums.dynamic, sums.scales]


def test_fixed_point_sums_do_not_depend_on_any_order(device):
    """Neither on that of the threads, nor on that of the rays: integers are added."""
    rays, samples = 130, 16  # two whole runs of eight a ray, so that runs move as they are
    positions, times, *tables = random_inputs(rays, samples, device)
    generator = torch.Generator().manual_seed(8)
    # multiples of 1/64, whose magnitudes float32 adds exactly: the units are the same for any order
    gradient = torch.randint(-256, 256, (6, rays, samples), generator=generator).to(device) / 64
    of_mask = torch.randn(rays, samples, generator=generator).to(device)
    once, twice, reversed_, shuffled = (
        words(
            [positions.view(rays, samples, 3)[order].reshape(-1, 3), times[order], *tables],
            [gradient[:, order].reshape(6, -1), of_mask[order].flatten()],
        )
        for order in (
            torch.arange(rays),
            torch.arange(rays),
            torch.arange(rays).flip(0),
            torch.randperm(rays, generator=generator),
        )
    )
    for other in (twice, reversed_, shuffled):
        for a, b in zip(once, other, strict=True):
            assert torch.equal(a, b)


def saturated_inputs(device: torch.device):
    """Logits of +-40 in two thirds of the mask's grid, and few steps between them."""
    inputs = random_inputs(40, 12, device)
    z = torch.arange(len(inputs[2]), device=device)[:, None] // 25  # 5 x 5 vertices a layer
    inputs[2] = torch.where(z < 2, 40.0, torch.where(z > 3, -40.0, inputs[2]))
    return inputs


@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize("fixed", [False, True])
def test_saturated_parts_match_the_reference(device, blend, fixed):
    """Which snaps masks as well; so close to 0 or 1 a table's share and its gradient are nothing."""
    inputs = saturated_inputs(device)
    leaves = [x.detach().clone().requires_grad_(i in (0, 2, 3, 4)) for i, x in enumerate(inputs)]
    features, mask = twin.masked_encoding(*leaves, *SPECS, blend)
    for part in (mask == 0, mask == 1, (mask > 0) & (mask < 1)):
        assert part.sum() > 20, "all kinds are there"
    value, value_mask = masked_encoding(*inputs, *SPECS, blend)
    assert_close(value, features, 1e-5)
    assert_close(value_mask, mask, 1e-6)
    assert torch.equal(value_mask == 0, mask == 0) and torch.equal(value_mask == 1, mask == 1)
    generator = torch.Generator().manual_seed(6)
    incoming = [torch.randn(x.shape, generator=generator).to(device) for x in (features, mask)]
    torch.autograd.backward((features, mask), incoming)
    sums = TableSums(*SPECS, device) if fixed else None
    found = backward(inputs, blend, torch.float32, sums, incoming)
    for gradient, leaf in zip(found, (leaves[i] for i in (0, 2, 3, 4)), strict=True):
        target = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
        assert_gradients_close(gradient, target, 1e-4)


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize(("logit", "frozen"), [(40.0, 3), (-40.0, 2), (7.0, None)])
def test_a_table_without_a_share_takes_no_gradient(device, fixed, logit, frozen):
    """Exactly none, so that its optimiser leaves it alone; 7 is 0.9991, which still shares."""
    inputs = random_inputs(6, 9, device)
    inputs[0] = inputs[0].clamp(0, 1)
    inputs[2] = torch.full_like(inputs[2], logit)
    gradients = backward(inputs, sums=TableSums(*SPECS, device) if fixed else None)[1:]
    for i, gradient in enumerate(gradients, start=1):
        expected_none = frozen is not None and (i == frozen or i == 1)
        assert (gradient.count_nonzero() == 0) == expected_none, i


def test_copies_are_read_instead_of_the_tables(device):
    """Whatever they hold; gradients still go to the tables."""
    inputs = wanting(random_inputs(5, 7, device), 2, 3, 4)
    copies = tuple((x.detach() * 2).half() for x in inputs[3:])
    features, _ = masked_encoding(*inputs, *SPECS, compute=torch.float16, copies=copies)
    doubled = [*inputs[:3], *(copy.float() for copy in copies)]
    assert_close(features.float(), masked_encoding(*doubled, *SPECS)[0], 1e-3)
    features.float().sum().backward()
    assert all(x.grad is not None and x.grad.norm() > 0 for x in inputs[2:])


def random_rays(rays: int, samples: int, device: torch.device):
    """Origins, directions and edges, some of whose middles lie outside a box of 1.5."""
    generator = torch.Generator().manual_seed(10 * rays + samples)
    origins = torch.randn(rays, 3, generator=generator)
    directions = torch.nn.functional.normalize(torch.randn(rays, 3, generator=generator))
    edges = torch.rand(rays, samples + 1, generator=generator).sort(dim=1).values * 4
    return [x.to(device) for x in (origins, directions, edges)]


@BOTH
@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize("number", [0, 1, 9, 23, 30])
def test_the_first_positions_alone(device, blend, number, specs):
    """As many as a number on the device says, and up to a multiple of 4; what lies beyond is left as it was."""
    inputs = random_inputs(6, 5, device, specs=specs)
    inputs[1] = inputs[1][:1]
    expected, mask = masked_encoding(*inputs, *specs, blend)
    expected, mask, found_mask = expected.detach(), mask.detach(), torch.full_like(mask, 7.0)
    count = torch.tensor([number], dtype=torch.int32, device=device)
    found = masked_encoding_first(count, 4, *inputs[:2], found_mask, *inputs[2:], *specs, blend)
    number = min(-(-number // 4) * 4, 30)
    assert torch.equal(found[:, :number], expected[:, :number])
    assert torch.equal(found_mask[:number], mask[:number])
    assert (found_mask[number:] == 7).all()


@BOTH
@pytest.mark.parametrize("kind", ["inf", "l2", "none"])
@pytest.mark.parametrize("fixed", [False, True])
def test_along_rays_is_at_their_positions(device, kind, fixed, specs):
    """One launch instead of two operators; features, mask, positions, and gradients to mask and tables."""
    rays = random_rays(11, 13, device)
    _, *inputs = random_inputs(11, 13, device, specs=specs)
    results = []
    for along in (True, False):
        leaves = wanting([x.clone() for x in inputs], 1, 2, 3)
        sums = TableSums(*specs, device) if fixed else None
        if along:
            outputs = masked_encoding_along(*rays, *leaves, *specs, "mst", kind, 1.5, sums=sums)
        else:
            positions = sample_positions(*rays, kind, 1.5)
            outputs = *masked_encoding(positions, *leaves, *specs, sums=sums), positions
        features, mask, positions = outputs
        assert not positions.requires_grad and positions.shape == (143, 3)
        generator = torch.Generator().manual_seed(5)
        incoming = [torch.randn(x.shape, generator=generator).to(device) for x in (features, mask)]
        torch.autograd.backward((features, mask), incoming)
        results.append([*outputs, *(sums.gradients() if sums else (x.grad for x in leaves[1:]))])
    for value, target in zip(*results, strict=True):
        assert_gradients_close(value, target, 1e-5)


@BOTH
@pytest.mark.parametrize(("rays", "samples"), [(0, 4), (1, 1), (3, 0), (5, 1), (1, 9)])
def test_along_rays_at_odd_sizes(device, rays, samples, specs):
    along = random_rays(rays, samples, device)
    _, *inputs = random_inputs(rays, samples, device, specs=specs)
    features, mask, positions = masked_encoding_along(*along, *wanting(inputs, 1, 2, 3), *specs)
    expected = twin.masked_encoding(sample_positions(*along), *inputs, *specs)
    assert positions.shape == (rays * samples, 3)
    assert_close(features, expected[0], 1e-4)
    assert_close(mask, expected[1], 1e-5)
    features.sum().backward()
    assert all(x.grad is not None for x in inputs[1:])


def test_along_rays_that_want_gradients_is_refused(device):
    """Rather than return none."""
    origins, directions, edges = random_rays(3, 4, device)
    _, *inputs = random_inputs(3, 4, device)
    with pytest.raises(TensorError, match=r"want gradients; call sample_positions and masked_encoding"):
        masked_encoding_along(origins.requires_grad_(), directions, edges, *inputs, *SPECS)
    with torch.no_grad():
        masked_encoding_along(origins, directions, edges, *inputs, *SPECS)


@BOTH
@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize("static_from", [0, 1, 100, 273])
def test_static_samples_behind_match_reference(device, blend, static_from, specs):
    used = (0, 2, 3, 4) if blend != "static" else (0, 2, 3)
    if static_from == 0 and blend in ("mst", "mt"):
        used = (0, 3)
    inputs = wanting(random_inputs(13, 21, device, specs=specs), *used)
    assert_matches(
        lambda *x: masked_encoding(*x, *specs, blend, static_from=static_from),
        lambda *x: twin.masked_encoding(*x, *specs, blend, static_from),
        inputs,
    )


@BOTH
@pytest.mark.parametrize("compute", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("blend", ["mst", "mt"])
@pytest.mark.parametrize("fixed", [False, True])
def test_static_samples_behind_are_those_of_the_static_table(device, blend, compute, fixed, specs):
    """To the last bit; and those before them are as if they were alone, values and gradients."""
    rays = random_rays(9, 5, device)
    _, *inputs = random_inputs(9, 5, device, specs=specs)
    generator = torch.Generator().manual_seed(5)
    incoming = [torch.randn(*shape, generator=generator).to(device) for shape in ((6, 45), (45,))]
    incoming[0] = incoming[0].to(compute)

    def run(part: slice, blend: str, static_from: int | None = None, behind: float = 1.0):
        leaves = wanting([inputs[0][part], *(x.clone() for x in inputs[1:])], 1, 2, 3)
        sums = TableSums(*specs, device) if fixed else None
        some, columns = [x[part] for x in rays], slice(5 * (part.start or 0), 5 * (part.stop or 9))
        outputs = masked_encoding_along(
            *some, *leaves, *specs, blend, compute=compute, sums=sums, static_from=static_from
        )  # fmt: skip
        gradients = [x[..., columns].clone() for x in incoming]
        gradients[0][:, static_from:] *= behind
        torch.autograd.backward(outputs[:2], gradients)
        found = sums.gradients() if sums else [x.grad for x in leaves[1:]]
        return outputs, [torch.zeros_like(x) if g is None else g for g, x in zip(found, leaves[1:], strict=True)]

    whole, both = run(slice(None), blend, 30)
    first, of_first = run(slice(0, 6), blend)
    last, of_last = run(slice(6, 9), "static")
    assert (whole[1][30:] == 1).all()
    for value, a, b in zip((whole[0], whole[2].T), (first[0], first[2].T), (last[0], last[2].T), strict=True):
        assert torch.equal(value, torch.cat([a, b], dim=1))
    assert torch.equal(whole[1][:30], first[1])
    assert_gradients_close(both[0], of_first[0], 1e-6)  # the mask takes none from static samples, though they have one
    assert_gradients_close(both[1], of_first[1] + of_last[1], 1e-5)
    assert_gradients_close(both[2], of_first[2], 1e-5)
    if device.type == "cpu" and not fixed:
        for value, truth in zip(run(slice(None), blend, 30, 0.0)[1], of_first, strict=True):
            assert torch.equal(value, truth)


def test_static_samples_do_not_look_at_the_dynamic_table(device):
    inputs = random_inputs(4, 5, device)
    inputs[4] = torch.full_like(inputs[4], torch.nan)
    features, _ = masked_encoding(*inputs, *SPECS, static_from=10)
    assert features[:, 10:].isfinite().all() and features[:, :10].isnan().any()


def test_wrong_tensors_are_named(device):
    inputs = random_inputs(4, 3, device)
    with pytest.raises(TensorError, match="blend"):
        masked_encoding(*inputs, *SPECS, "both")
    with pytest.raises(TensorError, match="times"):
        masked_encoding(inputs[0], inputs[1].new_zeros(5), *inputs[2:], *SPECS)
    with pytest.raises(TensorError, match="dynamic_table"):
        masked_encoding(*inputs[:4], inputs[4][:-8], *SPECS)
    rays = random_rays(4, 3, device)
    with pytest.raises(TensorError, match="t_edges"):
        masked_encoding_along(*rays[:2], rays[2][:3], *inputs[1:], *SPECS)
    with pytest.raises(TensorError, match="times"):
        masked_encoding_along(*rays, inputs[1][:2], *inputs[2:], *SPECS)
    with pytest.raises(ConfigError, match="contraction"):
        masked_encoding_along(*rays, *inputs[1:], *SPECS, "mst", "cube")
    halves = inputs[3].half(), inputs[4].half()
    with pytest.raises(TensorError, match=r"copies \(dynamic\): expected float16"):
        masked_encoding(*inputs, *SPECS, compute=torch.float16, copies=(halves[0], inputs[4]))
    with pytest.raises(TensorError, match=r"copies \(static\): expected float32"):
        masked_encoding(*inputs, *SPECS, copies=halves)
