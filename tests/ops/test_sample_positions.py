"""Grid positions of samples against their PyTorch twin, Taichi's adjoint and finite differences."""

import pytest
import torch

from msth_taichi.errors import TensorError
from msth_taichi.kernels.sample_positions import sample_positions_kernels
from msth_taichi.ops.sample_positions import sample_positions
from msth_taichi.reference import sample_positions as twin
from tests.comparison import assert_gradients_close, assert_matches, assert_safe_autograd, taichi_gradients

KINDS = ["inf", "l2", "none"]


def random_inputs(rays: int, samples: int, device: torch.device, dtype=torch.float32):
    generator = torch.Generator().manual_seed(10 * rays + samples)
    origins = torch.randn(rays, 3, generator=generator, dtype=dtype)
    directions = torch.nn.functional.normalize(torch.randn(rays, 3, generator=generator, dtype=dtype))
    edges = torch.rand(rays, samples + 1, generator=generator, dtype=dtype).sort(dim=1).values * 4
    return origins.to(device).requires_grad_(), directions.to(device).requires_grad_(), edges.to(device)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("rays", "samples"), [(0, 3), (1, 1), (7, 13), (5, 0)])
def test_matches_reference(device, kind, rays, samples):
    assert_matches(
        lambda o, d, t: sample_positions(o, d, t, kind, 1.5),
        lambda o, d, t: twin.sample_positions(o, d, t, kind, 1.5),
        random_inputs(rays, samples, device),
    )


@pytest.mark.parametrize("kind", KINDS)
def test_hand_written_adjoint_equals_taichis(kind):
    inputs = [x.detach() for x in random_inputs(4, 5, torch.device("cpu"), torch.float64)]
    kernels = sample_positions_kernels(torch.float64, kind)
    out = torch.empty(20, 3, dtype=torch.float64)
    gradient = torch.randn_like(out)
    expected = taichi_gradients(kernels.forward, (*inputs, 1.5, out), {4: gradient}, (0, 1))
    values = [torch.empty_like(x) for x in inputs[:2]]
    kernels.backward(*inputs, 1.5, gradient, *values)
    for value, target in zip(values, expected, strict=True):
        assert_gradients_close(value, target, 1e-12)


@pytest.mark.gradcheck
@pytest.mark.parametrize("kind", KINDS)
def test_finite_differences(kind):
    origins, directions, edges = random_inputs(2, 3, torch.device("cpu"), torch.float64)
    assert torch.autograd.gradcheck(lambda o, d: sample_positions(o, d, edges, kind), (origins, directions))


def test_safe_under_autograd(device):
    origins, directions, edges = random_inputs(3, 4, device)
    assert_safe_autograd(lambda o, d: sample_positions(o, d, edges), [origins, directions])


def test_wrong_tensors_are_named(device):
    origins, directions, edges = random_inputs(3, 4, device)
    with pytest.raises(TensorError, match="directions"):
        sample_positions(origins, directions[:2], edges)
    with pytest.raises(TensorError, match="t_edges"):
        sample_positions(origins, directions, edges.double())
