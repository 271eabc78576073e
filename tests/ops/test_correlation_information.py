"""Information by a weighted correlation against its PyTorch twin, finite differences, and samples taken repeatedly."""

import math

import pytest
import torch

from msth_taichi.errors import TensorError
from msth_taichi.ops.correlation_information import correlation_information
from msth_taichi.reference import correlation_information as twin
from tests.comparison import assert_close, assert_gradients_close, assert_matches, assert_safe_autograd


def random_inputs(rays: int, samples: int, device: torch.device, dtype=torch.float32, interval=1, behind: int = 0):
    """Mask, wanting a gradient, level and weights; a little of what the mask is follows from the level."""
    generator = torch.Generator().manual_seed(100 * rays + samples)
    count = -(-rays // interval) * samples
    mask = torch.rand(rays * samples + behind, generator=generator, dtype=dtype)
    level = torch.rand(count, generator=generator, dtype=dtype)
    mask[: rays * samples].view(rays, samples)[::interval] -= 0.4 * level.view(-1, samples)
    weights = torch.rand(rays, samples, generator=generator, dtype=dtype) ** 3
    return [x.to(device) for x in (mask.requires_grad_(), level, weights)]


def of_mask(function, inputs, **options):
    return lambda mask: function(mask, *inputs[1:], **options)


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("interval", [1, 4])
@pytest.mark.parametrize(("rays", "samples", "behind"), [(0, 3, 0), (2, 1, 0), (1, 7, 3), (13, 21, 0), (70, 48, 864)])
def test_matches_reference(device, masked, interval, rays, samples, behind):
    inputs = [x.detach() for x in random_inputs(rays, samples, device, interval=interval, behind=behind)]
    inputs[0].requires_grad_()
    options = {"interval": interval, "kept": (torch.arange(rays, device=device) % 3 < 2).float() if masked else None}
    fast, slow = (of_mask(f, inputs, **options) for f in (correlation_information, twin.correlation_information))
    assert_matches(fast, slow, inputs[:1])
    (gradient,) = torch.autograd.grad(fast(inputs[0]), inputs[0])
    looked_at = torch.zeros(rays, samples, dtype=torch.bool, device=device)
    looked_at[::interval] = True
    assert not gradient[: rays * samples].view(rays, samples)[~looked_at].any()
    assert not gradient[rays * samples :].any()


def test_float64_matches_reference(device):
    inputs = [x.detach() for x in random_inputs(13, 21, device, torch.float64)]
    fast, slow = (of_mask(f, inputs) for f in (correlation_information, twin.correlation_information))
    assert_matches(fast, slow, [inputs[0].requires_grad_()], 1e-12, 1e-12)


@pytest.mark.gradcheck
def test_finite_differences():
    inputs = random_inputs(5, 4, torch.device("cpu"), torch.float64, 2)
    mask = inputs[0].detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(of_mask(correlation_information, inputs, interval=2), (mask,))


def test_a_weight_is_as_many_times_the_sample(device):
    """Of 2 the same as two samples, of 0 as none."""
    mask, level, weights = (x.detach() for x in random_inputs(40, 3, device))
    counts = (4 * weights).round()
    often = counts.flatten().long()
    repeated = [x.repeat_interleave(often) for x in (mask, level)]
    value = correlation_information(mask, level, counts)
    expected = correlation_information(*repeated, torch.ones(len(repeated[0]), 1, device=device))
    assert 0 in often and often.max() > 2
    assert_close(value, expected, 1e-6)
    assert abs(value.item() - correlation_information(mask, level, torch.ones_like(weights)).item()) > 1e-3


def test_where_nothing_is_seen_all_samples_count_alike(device):
    mask, level, weights = random_inputs(9, 5, device)
    nothing, all_alike = (correlation_information(mask, level, torch.full_like(weights, value)) for value in (0.0, 0.3))
    assert abs(all_alike.item()) > 0.01
    assert_close(nothing, all_alike, 1e-6)
    kept = torch.zeros(9, device=device)
    assert_close(correlation_information(mask, level, weights, kept), all_alike, 1e-6)


def test_pixels_that_do_not_count_make_no_difference(device):
    mask, level, weights = (x.detach() for x in random_inputs(12, 5, device))
    kept = (torch.arange(12, device=device) % 4 > 0).float()
    value = correlation_information(mask, level, weights, kept)
    other = torch.where(kept.repeat_interleave(5) > 0, mask, 1 - mask)
    assert_close(correlation_information(other, level, weights, kept), value, 1e-6)
    assert abs(correlation_information(other, level, weights).item() - value.item()) > 1e-3


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_perfect_correlation_is_finite(device, sign):
    level = torch.linspace(0, 1, 100, device=device)
    mask = (0.5 + 0.4 * sign * (level - 0.5)).requires_grad_()
    value = correlation_information(mask, level, torch.ones(10, 10, device=device))
    value.backward()
    assert value.item() == pytest.approx(-sign * math.atanh(0.999), rel=2e-2)
    assert mask.grad is not None and mask.grad.isfinite().all()


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_what_is_the_same_everywhere_tells_nothing(device, value):
    _, level, weights = random_inputs(20, 5, device)
    mask = torch.full((100,), value, device=device, requires_grad=True)
    found = correlation_information(mask, level, weights)
    found.backward()
    assert abs(found.item()) < 1e-6 and mask.grad is not None and mask.grad.isfinite().all()
    assert correlation_information(level, torch.full_like(level, value), weights).item() == pytest.approx(0, abs=1e-6)


def test_a_small_change_far_from_zero_keeps_its_digits(device):
    """A mask between 0.999 and 1, whose variance is 1e-7 of its square."""
    _, level, weights = (x.detach() for x in random_inputs(200, 30, device))
    mask = (1 - 1e-3 * level * level).requires_grad_()
    found = correlation_information(mask, level, weights)
    found.backward()
    exact = mask.detach().double().requires_grad_()
    truth = twin.correlation_information(exact, level.double(), weights.double())
    truth.backward()
    assert_close(found, truth, 1e-5)
    assert mask.grad is not None
    assert_gradients_close(mask.grad, exact.grad, 1e-5)


def test_safe_under_autograd(device):
    inputs = random_inputs(4, 5, device)
    mask = inputs[0].detach().requires_grad_()
    assert_safe_autograd(lambda x: of_mask(correlation_information, inputs)(x)[None], [mask])


def test_without_gradients_none_are_made(device):
    inputs = random_inputs(5, 6, device)
    value = correlation_information(*inputs)
    assert value.requires_grad and value.shape == ()
    with torch.no_grad():
        again = correlation_information(*inputs)
    assert not again.requires_grad and torch.equal(value, again)


def test_wrong_tensors_are_named(device):
    mask, level, weights = random_inputs(4, 3, device)
    with pytest.raises(TensorError, match="mask"):
        correlation_information(mask[:-1], level, weights)
    with pytest.raises(TensorError, match="level"):
        correlation_information(mask, level[:-1], weights)
    with pytest.raises(TensorError, match="level"):
        correlation_information(mask, level, weights, interval=2)
    with pytest.raises(TensorError, match="weights"):
        correlation_information(mask, level, weights.double())
    with pytest.raises(TensorError, match="kept"):
        correlation_information(mask, level, weights, weights[0])
