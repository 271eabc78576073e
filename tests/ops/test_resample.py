"""Resampled edges against searchsorted, nested loops, and histograms whose answer is visible."""

import pytest
import torch

from msth_taichi.errors import ConfigError, TensorError
from msth_taichi.ops.composite import composite
from msth_taichi.ops.resample import resample, resample_logits
from msth_taichi.reference import resample as twin
from tests.comparison import assert_close

SPACINGS = ["piecewise", "uniform", "lindisp"]
DTYPES = [torch.float32, torch.float64]


def random_histogram(rays: int, bins: int, device: torch.device, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    widths = torch.rand(rays, bins, generator=generator, dtype=dtype) + 0.05
    edges = torch.nn.functional.pad(widths.cumsum(1), (1, 0)) / (widths.sum(1, keepdim=True) * 1.01)
    weights = torch.rand(rays, bins, generator=generator, dtype=dtype) ** 4
    weights[:, ::5] = 0
    near = torch.rand(rays, generator=generator, dtype=dtype) * 0.5
    far = near + 0.1 + 1000 * torch.rand(rays, generator=generator, dtype=dtype) ** 8
    jitter = torch.rand(rays, generator=generator, dtype=dtype)
    return tuple(x.to(device) for x in (edges, weights, near, far, jitter))


def unit_histogram(weights: list[list[float]], device: torch.device):
    """Even bins over [0, 1], where distance equals s."""
    values = torch.tensor(weights, device=device)
    rays, bins = values.shape
    edges = torch.linspace(0, 1, bins + 1, device=device).expand(rays, -1).contiguous()
    return edges, values, torch.zeros(rays, device=device), torch.ones(rays, device=device)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize(("rays", "bins", "count"), [(0, 4, 3), (1, 1, 1), (5, 7, 13), (33, 128, 48), (9, 256, 256)])
@pytest.mark.parametrize("jittered", [False, True])
def test_matches_reference(device, spacing, dtype, rays, bins, count, jittered):
    edges, weights, near, far, jitter = random_histogram(rays, bins, device, dtype, seed=bins)
    arguments = (edges, weights, near, far, count, spacing, 0.7, 0.6, 0.01, jitter if jittered else None)
    s, t = resample(*arguments)
    expected_s, expected_t = twin.resample(*arguments)
    assert s.shape == (rays, count + 1) and s.dtype == t.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float32 else 1e-13
    assert_close(s, expected_s, tolerance)
    # near the end of a ray one rounding of s is a large distance: compare in disparity
    assert_close(1 / (1 + t), 1 / (1 + expected_t), tolerance)


def random_logits(rays: int, bins: int, device: torch.device, dtype=torch.float32):
    """What `random_histogram` gives, with logits for weights and distances of the edges."""
    edges, weights, near, far, jitter = random_histogram(rays, bins, device, dtype, seed=bins)
    return edges, edges * 4 + 0.1, weights.clamp(min=1e-30).log() + 3, near, far, jitter


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize(("rays", "bins", "count"), [(0, 4, 3), (1, 1, 1), (5, 7, 13), (33, 128, 48)])
@pytest.mark.parametrize("jittered", [False, True])
def test_logits_match_reference(device, spacing, dtype, rays, bins, count, jittered):
    """Weights, and new edges where they are."""
    *inputs, jitter = random_logits(rays, bins, device, dtype)
    arguments = (*inputs, count, spacing, 0.7, 0.6, 0.01, jitter if jittered else None)
    found, s, t = resample_logits(*arguments)
    expected, expected_s, expected_t = twin.resample_logits(*arguments)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    assert found.shape == (rays, bins) and s.shape == t.shape == (rays, count + 1)
    assert_close(found, expected, tolerance)
    assert_close(s, expected_s, tolerance)
    assert_close(1 / (1 + t), 1 / (1 + expected_t), tolerance)


def test_logits_are_resampled_as_their_weights(device):
    """One launch gives what `composite` and `resample` give."""
    edges, t_edges, logits, near, far, jitter = random_logits(40, 64, device)
    found, s, t = resample_logits(edges, t_edges, logits, near, far, 48, anneal=0.4, jitter=jitter)
    weights = composite(logits.exp(), torch.zeros(3, 40, 64, device=device), t_edges, None).weights
    expected_s, expected_t = resample(edges, weights, near, far, 48, anneal=0.4, jitter=jitter)
    assert_close(found, weights, 1e-5)
    assert_close(s, expected_s, 1e-5)
    assert_close(1 / (1 + t), 1 / (1 + expected_t), 1e-5)


@pytest.mark.parametrize("logit", [-1e4, 1e4])
def test_logits_without_bounds(device, logit):
    """Nothing anywhere is sampled everywhere; a wall in front is sampled alone."""
    edges, _, near, far = unit_histogram([[0.0] * 8], device)
    logits = torch.full((1, 8), logit, device=device)
    found, s, _ = resample_logits(edges, edges, logits, near, far, 9, "uniform", padding=0.0)
    assert found[0, 1:].eq(0).all() and found[0, 0] == (logit > 0)
    assert_close(s[0], (torch.arange(10, device=device) + 0.5) / (80 if logit > 0 else 10), 1e-6)


@pytest.mark.parametrize("jitter", [0.0, 0.5, 0.99])
def test_matches_nested_loops(device, jitter):
    edges, weights, near, far, _ = random_histogram(3, 6, device, torch.float64)
    count, anneal, padding = 5, 0.7, 0.02
    arguments = (count, "uniform", 1.0, anneal, padding, torch.full_like(near, jitter))
    s, t = resample(edges, weights, near, far, *arguments)
    for ray in range(3):
        mass = [(w**anneal if w > 0 else 0) + padding for w in weights[ray].tolist()]
        bounds = edges[ray].tolist()
        for e in range(count + 1):
            u = (e + jitter) / (count + 1)
            for i in range(6):
                low, high = sum(mass[:i]) / sum(mass), sum(mass[: i + 1]) / sum(mass)
                if low <= u < high:
                    expected = bounds[i] + (u - low) / (high - low) * (bounds[i + 1] - bounds[i])
                    distance = near[ray].item() + expected * (far[ray] - near[ray]).item()
                    assert s[ray, e].item() == pytest.approx(expected, rel=1e-12)
                    assert t[ray, e].item() == pytest.approx(distance, rel=1e-12)
                    break
            else:
                pytest.fail(f"u = {u} lies in no bin")


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("padding", [0.01, 0.0])
@pytest.mark.parametrize("anneal", [1.0, 0.0])
def test_edges_do_not_decrease_and_stay_within_bounds(device, spacing, padding, anneal):
    edges, weights, near, far, jitter = random_histogram(200, 256, device)
    jitter[:2] = torch.tensor([0.0, 1 - 2**-24])
    s, t = resample(edges, weights, near, far, 256, spacing, 1.0, anneal, padding, jitter)
    assert torch.isfinite(t).all()
    assert (s.diff(dim=1) >= 0).all() and (t.diff(dim=1) >= 0).all()
    assert (s >= edges[:, :1]).all() and (s <= edges[:, -1:]).all()
    assert (t >= near[:, None]).all() and (t <= far[:, None]).all()


@pytest.mark.parametrize("bin_", [0, 3, 7])
def test_edges_land_in_the_only_bin_with_weight(device, bin_):
    weights = [0.0] * 8
    weights[bin_] = 0.3
    edges, values, near, far = unit_histogram([weights] * 3, device)
    jitter = torch.tensor([0.0, 0.5, 1 - 2**-24], device=device)
    s, t = resample(edges, values, near, far, 16, "uniform", padding=0.0, jitter=jitter)
    assert (s >= bin_ / 8).all() and (s <= (bin_ + 1) / 8).all()
    assert_close(s[1], (bin_ + (torch.arange(17, device=device) + 0.5) / 17) / 8, 1e-6)
    assert_close(t, s, 1e-6)


@pytest.mark.parametrize("weight", [0.2, 0.0])
@pytest.mark.parametrize("padding", [0.01, 0.0])
def test_even_weights_give_even_edges(device, weight, padding):
    """Also a ray without any weight, with or without padding."""
    edges, values, near, far = unit_histogram([[weight] * 16], device)
    s, _ = resample(edges, values, near, far, 9, "uniform", padding=padding)
    assert_close(s[0], (torch.arange(10, device=device) + 0.5) / 10, 1e-6)


def test_boundary_belongs_to_the_bin_above(device):
    edges, values, near, far = unit_histogram([[1.0, 0.0, 0.0, 1.0]], device)
    jitter = torch.zeros(1, device=device)
    s, _ = resample(edges, values, near, far, 3, "uniform", padding=0.0, jitter=jitter)
    # u = 0, 1/4, 1/2, 3/4: the third skips both empty bins
    assert s.tolist() == [[0, 0.125, 0.75, 0.875]]


def test_anneal_flattens_the_weights(device):
    edges, values, near, far = unit_histogram([[0.81, 0.01, 0.0, 0.0]], device)
    shares = []
    for anneal in (1.0, 0.5, 0.0):
        s, _ = resample(edges, values, near, far, 999, "uniform", anneal=anneal, padding=0.0)
        shares.append((s < 0.25).float().mean().item())
        assert s.max() <= 0.5  # 0^0 = 0: an empty bin stays empty in the first step
    assert shares == pytest.approx([81 / 82, 0.9, 0.5], abs=1.5e-3)


@pytest.mark.parametrize("spacing", SPACINGS)
def test_far_edges_reach_far_exactly(device, spacing):
    """With everything at the end of the ray and s = 1, the distance is far to the last bit."""
    near, far = torch.tensor([0.05], device=device), torch.tensor([1000.0], device=device)
    edges = torch.tensor([[0.0, 1.0, 1.0]], device=device)
    s, t = resample(edges, torch.tensor([[0.0, 1.0]], device=device), near, far, 4, spacing, padding=0.0)
    assert s.eq(1).all() and t.eq(1000).all()


def test_takes_no_gradient_and_allocates_none(device):
    edges, values, near, far = unit_histogram([[0.5, 0.2]], device)
    values.requires_grad_()
    for outputs in (resample(edges, values, near, far, 4), resample_logits(edges, edges, values, near, far, 4)):
        assert values.grad is None and not any(x.requires_grad for x in outputs)


def test_typed_errors(device):
    edges, weights, near, far = unit_histogram([[0.1, 0.2, 0.3]] * 4, device)
    strided = torch.zeros(3, 4, device=device).t()
    for arguments in [
        (edges[:, :3].contiguous(), weights, near, far, 4),
        (edges, weights[0], near, far, 4),
        (edges, strided, near, far, 4),
        (edges.double(), weights, near, far, 4),
        (edges, weights.half(), near, far, 4),
        (edges, weights, near[:3], far, 4),
        (edges, weights, near, far.double(), 4),
        (edges[:, :1].contiguous(), weights[:, :0].contiguous(), near, far, 4),
    ]:
        with pytest.raises(TensorError):
            resample(*arguments)
    for name in ("anneal", "padding"):
        with pytest.raises(ConfigError, match=name):
            resample(edges, weights, near, far, 4, **{name: -0.1})
    for arguments in [
        (edges, edges[:, :3].contiguous(), weights, near, far, 4),
        (edges, edges.double(), weights, near, far, 4),
        (edges, edges, weights.half(), near, far, 4),
        (edges, edges, weights, near, far, 4, "uniform", 1.0, 1.0, 0.01, near[:3]),
    ]:
        with pytest.raises(TensorError):
            resample_logits(*arguments)
