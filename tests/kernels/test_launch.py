"""Cheap launches of kernels: the same results as Taichi's own call, and mistakes told by the argument's name."""

import pytest
import taichi as ti
import torch

from msth_taichi.errors import TensorError
from msth_taichi.kernels.launch import Held, Launcher, launchers
from tests.comparison import assert_close, taichi_gradients

HALF, SINGLE, DOUBLE, INT, LONG, BYTE = (
    ti.types.ndarray(dtype=dtype, ndim=1) for dtype in (ti.f16, ti.f32, ti.f64, ti.i32, ti.i64, ti.u8)
)
MATRIX = ti.types.ndarray(dtype=ti.f32, ndim=2)


@ti.kernel
def mix(
    half: HALF, single: SINGLE, double: DOUBLE, number: INT, wide: LONG, byte: BYTE, optional: MATRIX,
    a: ti.f32, b: ti.f64, c: ti.i32, d: ti.i64, out: DOUBLE,
):  # fmt: skip
    for i in range(out.shape[0]):
        total = ti.cast(half[i], ti.f64) + single[i] + double[i] + number[i] + wide[i] + byte[i]
        out[i] = total + a + 2 * b + 3 * c + 4 * d
        if optional.shape[0] > 0:
            out[i] += optional[0, optional.shape[1] - 1]


@ti.kernel
def scaled_square(x: MATRIX, scale: ti.f32, y: MATRIX):
    for i, j in ti.ndrange(x.shape[0], x.shape[1]):
        y[i, j] = scale * x[i, j] * x[i, j]


def arguments(count: int, device: torch.device, optional: int = 0):
    generator = torch.Generator().manual_seed(count)
    base = torch.randint(0, 100, (6, count), generator=generator)
    dtypes = (torch.float16, torch.float32, torch.float64, torch.int32, torch.int64, torch.uint8)
    tensors = [row.to(dtype).to(device) for row, dtype in zip(base, dtypes, strict=True)]
    tensors[4] += 2**40
    out = torch.full((count,), -1.0, dtype=torch.float64, device=device)
    return [*tensors, torch.full((optional, 3), 0.25, device=device), 0.5, 1e-7, -7, 2**35, out]


@pytest.mark.parametrize("optional", [0, 2])
def test_launches_as_taichi_does(device, optional):
    """Every dtype and kind of number, sizes one after another, and tensors without rows."""
    launch = Launcher(mix)
    for count in (5, 1, 700, 5, 0):
        values, expected = arguments(count, device, optional), arguments(count, device, optional)
        launch(*values)
        mix(*expected)
        assert torch.equal(values[-1], expected[-1])
        assert count == 0 or values[-1].min() > 2**35


def test_integers_pass_for_floats(device):
    x, y = torch.full((2, 3), 4.0, device=device), torch.empty(2, 3, device=device)
    Launcher(scaled_square)(x, 2, y)
    assert (y == 32).all()


def test_tensors_of_a_later_launch_are_its_own(device):
    """What is kept from the first launch are types, not addresses."""
    launch = Launcher(scaled_square)
    first, second = torch.zeros(3, 4, device=device), torch.zeros(7, 2, device=device)
    launch(torch.full_like(first, 2.0), 1.0, first)
    launch(torch.full_like(second, 3.0), 0.5, second)
    assert (first == 4).all() and (second == 4.5).all()


@pytest.mark.parametrize("launched_before", [True, False])
@pytest.mark.parametrize(
    ("position", "change", "words"),
    [
        (0, lambda x: x.double(), ("x:", "float32", "float64")),
        (0, lambda x: x.long(), ("x:", "float32", "int64")),
        (0, lambda x: x.flatten(), ("x:", "2 axes", r"\(12,\)")),
        (2, lambda y: y.T, ("y:", "contiguous", r"\(4, 3\)")),
        (0, lambda x: Held(x.double()), ("x:", "float32", "float64")),
    ],
    ids=["dtype", "integers", "axes", "gaps", "held"],
)
def test_unsuited_tensors_are_named(device, launched_before, position, change, words):
    launch = Launcher(scaled_square)
    values = [torch.ones(3, 4, device=device), 2.0, torch.zeros(3, 4, device=device)]
    if launched_before:
        launch(*values)
    unsuited = [*values]
    unsuited[position] = change(values[position])
    with pytest.raises(TensorError, match=".*".join(words)):
        launch(*unsuited)
    launch(*values)
    assert (values[2] == 2).all(), "a refused launch spoils no later one"


@pytest.mark.parametrize("launched_before", [True, False])
def test_attached_tensors_are_read_and_get_no_gradient(device, launched_before):
    """Taichi's own call would allocate `.grad` for them, in the launch that compiles as well."""
    launch = Launcher(scaled_square)
    plain, y = torch.full((3, 4), 3.0, device=device), torch.zeros(3, 4, device=device)
    if launched_before:
        launch(plain, 1.0, y)
    leaf = plain.clone().requires_grad_()
    launch(leaf, 2.0, y)
    assert (y == 18).all() and leaf.grad is None
    launch(leaf * 1, 3.0, y)
    assert (y == 27).all()
    launch(plain, 4.0, y)
    assert (y == 36).all()


def test_held_tensors_are_those_tensors(device):
    """Looked at once, launched many times, beside others that are not."""
    launch = Launcher(scaled_square)
    x, y = torch.full((3, 4), 3.0, device=device), torch.zeros(3, 4, device=device)
    held = Held(x), Held(y)
    for scale in (1.0, 2.0):
        launch(held[0], scale, held[1])
        assert (y == 9 * scale).all()
    x.fill_(1.0)
    launch(held[0], 5.0, y)
    assert (y == 5).all(), "what is held is the memory, not the values"


def test_a_missing_argument_is_an_error(device):
    launch, x = Launcher(scaled_square), torch.ones(3, 4, device=device)
    launch(x, 2.0, x.clone())
    with pytest.raises(ValueError, match="shorter"):
        launch(x, 2.0)


def test_gradients_are_taichis(device):
    x, y = torch.rand(3, 4, device=device), torch.zeros(3, 4, device=device)
    incoming = torch.randn(3, 4, device=device)
    (gradient,) = taichi_gradients(Launcher(scaled_square), (x, 1.5, y), {2: incoming}, (0,))
    assert_close(gradient, 3 * x * incoming, 1e-6)


def test_names_are_those_of_the_kernel():
    assert Launcher(scaled_square).names == ["x", "scale", "y"]
    both = launchers(square=scaled_square, mix=mix)
    assert both.square.names == ["x", "scale", "y"] and both.mix.names[-1] == "out"
