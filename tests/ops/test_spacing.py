"""The spacing functions of kernel and reference: inverses, formulas, digits far away."""

from types import SimpleNamespace

import pytest
import taichi as ti
import torch

from msth_taichi.kernels.cells import TAICHI_DTYPE
from msth_taichi.kernels.spacing import spacing_functions
from msth_taichi.reference.spacing import from_spacing, to_spacing
from tests.comparison import assert_close

SPACINGS = ["piecewise", "uniform", "lindisp"]
DTYPES = [torch.float32, torch.float64]


def spacing_kernels(dtype: torch.dtype, spacing: str) -> SimpleNamespace:
    real = TAICHI_DTYPE[dtype]
    functions = spacing_functions(spacing, real)
    vector = ti.types.ndarray(dtype=real, ndim=1)

    @ti.kernel
    def there(x: vector, middle: real, g: vector):
        for i in range(x.shape[0]):
            g[i] = functions.to_spacing(x[i], middle)

    @ti.kernel
    def back(g: vector, middle: real, x: vector):
        for i in range(g.shape[0]):
            x[i] = functions.from_spacing(g[i], middle)

    return SimpleNamespace(there=there, back=back)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("middle", [1.0, 0.3, 4.0])
def test_kernel_inverse_undoes_spacing(device, spacing, dtype, middle):
    x = torch.logspace(-3, 3, 200, dtype=dtype).to(device)
    x[0] = middle
    kernels = spacing_kernels(dtype, spacing)
    g, back = torch.empty_like(x), torch.empty_like(x)
    kernels.there(x, middle, g)
    kernels.back(g, middle, back)
    eps = torch.finfo(dtype).eps
    # relative to x far away, to the middle nearby: 1000 comes back to within 0.001 in float32
    assert ((back - x).abs() <= 4 * eps * (x + max(middle, 1))).all()
    expected = to_spacing(x.double(), spacing, middle)
    assert_close(g.double() - g[0].double(), expected - expected[0], 4 * eps)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("middle", [1.0, 0.3])
def test_reference_inverse_undoes_spacing(spacing, middle):
    x = torch.logspace(-3, 3, 200, dtype=torch.float64)
    g = to_spacing(x, spacing, middle)
    assert (g.diff() > 0).all()
    assert_close(from_spacing(g, spacing, middle), x, 1e-12)


def test_values_by_hand():
    x = torch.tensor([0.0, 0.5, 1.0, 2.0, 4.0], dtype=torch.float64)
    assert to_spacing(x).tolist() == [0, 0.25, 0.5, 0.75, 0.875]
    assert to_spacing(x, middle=2.0).tolist() == [0, 0.125, 0.25, 0.5, 0.75]
    assert to_spacing(x, "uniform").tolist() == x.tolist()
    assert to_spacing(x[[0, 2]], "lindisp").tolist() == [0, 0.5]
