"""Stratified edges against the PyTorch twin, and what renderers rely on: order, ends, one jitter per ray."""

import pytest
import torch

from msth_taichi.errors import ConfigError, TensorError
from msth_taichi.ops.stratified import spaced_positions, stratified_samples
from msth_taichi.reference import stratified as twin
from tests.comparison import assert_close

SPACINGS = ["piecewise", "uniform", "lindisp"]
DTYPES = [torch.float32, torch.float64]


def random_bounds(rays: int, device: torch.device, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    near = torch.rand(rays, generator=generator, dtype=dtype) * 0.5
    far = near + 0.1 + 1000 * torch.rand(rays, generator=generator, dtype=dtype) ** 8
    return near.to(device), far.to(device), torch.rand(rays, generator=generator, dtype=dtype).to(device)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize(("rays", "count"), [(0, 4), (1, 1), (3, 7), (65, 256)])
@pytest.mark.parametrize("jittered", [False, True])
def test_matches_reference(device, spacing, dtype, rays, count, jittered):
    near, far, jitter = random_bounds(rays, device, dtype, seed=rays)
    arguments = (near, far, count, spacing, 0.7, jitter if jittered else None)
    # the twin computes g in float64, where it is good for 1e-13 at far
    tolerance = 5e-6 if dtype == torch.float32 else 1e-12
    for value, expected in zip(stratified_samples(*arguments), twin.stratified_samples(*arguments), strict=True):
        assert value.shape == (rays, count + 1) and value.dtype == dtype
        assert_close(value, expected, tolerance)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("jittered", [False, True])
def test_edges_increase_within_bounds(device, spacing, jittered):
    near, far, jitter = random_bounds(100, device)
    jitter[:2] = torch.tensor([0.0, 1 - 2**-24])
    s, t = stratified_samples(near, far, 256, spacing, jitter=jitter if jittered else None)
    assert (s.diff(dim=1) > 0).all() and (t.diff(dim=1) >= 0).all()
    assert s.min() >= 0 and s.max() <= 1
    assert (t >= near[:, None]).all() and (t <= far[:, None]).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("far_value", [1000.0, 0.3, 1e6])
def test_regular_edges_end_exactly_at_the_bounds(device, spacing, dtype, far_value):
    near = torch.tensor([0.05, 0.1, 0.0], dtype=dtype, device=device)
    far = torch.full_like(near, far_value)
    s, t = stratified_samples(near, far, 48, spacing)
    assert torch.equal(t[:, 0], near) and torch.equal(t[:, -1], far)
    assert s[:, 0].eq(0).all() and s[:, -1].eq(1).all()


def test_values_by_hand(device):
    near, far = torch.tensor([0.0, 0.0], device=device), torch.tensor([8.0, 4.0], device=device)
    _, t = stratified_samples(near, far, 4, "uniform")
    assert t.tolist() == [[0, 2, 4, 6, 8], [0, 1, 2, 3, 4]]
    # g(4) = 7/8: seven steps of 1/8, up to 1 in distance, then in disparity
    _, t = stratified_samples(near, far, 7, "piecewise")
    assert t[1].tolist() == pytest.approx([0, 0.25, 0.5, 0.75, 1, 4 / 3, 2, 4], rel=1e-6)
    _, t = stratified_samples(near, torch.full_like(far, 3.0), 3, "lindisp")
    assert t[0].tolist() == pytest.approx([0, 1 / 3, 1, 3], abs=1e-6)


def test_one_jitter_moves_a_ray_between_neighbouring_centres(device):
    near, far = torch.zeros(3, device=device), torch.ones(3, device=device)
    jitter = torch.tensor([0.0, 0.25, 0.5], device=device)
    s, t = stratified_samples(near, far, 4, "uniform", jitter=jitter)
    assert s[0].tolist() == [0, 0.125, 0.375, 0.625, 0.875]
    assert s[1].tolist() == [0.03125, 0.1875, 0.4375, 0.6875, 0.90625]
    assert s[2].tolist() == [0.0625, 0.25, 0.5, 0.75, 0.9375]
    assert torch.equal(t, s)


def test_typed_errors(device):
    near, far = torch.zeros(4, device=device), torch.ones(4, device=device)
    for arguments in [
        (near[None], far, 4),
        (near, far[:3], 4),
        (near, far.double(), 4),
        (near.half(), far.half(), 4),
        (torch.zeros(8, device=device)[::2], far, 4),
        (near, far, 4, "uniform", 1.0, torch.zeros(3, device=device)),
    ]:
        with pytest.raises(TensorError):
            stratified_samples(*arguments)
    with pytest.raises(ConfigError, match="spacing"):
        stratified_samples(near, far, 4, "linear")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="count"):
        stratified_samples(near, far, 0)
    with pytest.raises(ConfigError, match="middle"):
        stratified_samples(near, far, 4, middle=0.0)


def test_takes_no_gradient_and_allocates_none(device):
    near, far = torch.zeros(4, device=device).requires_grad_(), torch.ones(4, device=device)
    s, t = stratified_samples(near, far, 4)
    assert near.grad is None and not s.requires_grad and not t.requires_grad


@pytest.mark.parametrize("spacing", SPACINGS)
def test_positions_invert_distances(device, spacing):
    near, far, jitter = random_bounds(100, device, torch.float64)
    s, t = stratified_samples(near, far, 5, spacing, 0.7, jitter)
    for k in range(6):
        assert_close(spaced_positions(t[:, k], near, far, spacing, 0.7), s[:, k], 1e-9)
    assert (spaced_positions(far + 1, near, far, spacing, 0.7) == 1).all()
    assert (spaced_positions(near - 0.01, near, far, spacing, 0.7) == -1).all()
    assert (spaced_positions(near, near, near, spacing, 0.7) == -1).all()
