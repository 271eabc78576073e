"""The uncertainty of places, and estimates of information on pairs of which it is known."""

import math

import pytest
import torch

from msth_taichi.errors import ConfigError, TensorError
from msth_taichi.model.field import FieldSamples
from msth_taichi.model.uncertainty import (
    INFORMATION,
    U_MIN,
    NeuralInformation,
    UncertaintyField,
    UncertaintyObjective,
    facing,
    histogram_information,
    rendered_uncertainty,
    visible_samples,
)
from msth_taichi.ops.correlation_information import correlation_information
from msth_taichi.ops.static_likelihood import static_likelihood
from tests.comparison import assert_close

CORRELATIONS = [-0.9, -0.5, 0.0, 0.5, 0.9]


def gaussian_pairs(rho: float, count: int = 2**15) -> tuple[torch.Tensor, torch.Tensor]:
    """Pairs (K,), (K,) of standard normal values with a correlation."""
    generator = torch.Generator().manual_seed(11)
    x, noise = torch.randn(2, count, generator=generator, dtype=torch.float64)
    return x, rho * x + math.sqrt(1 - rho**2) * noise


def verdicts_of_pairs(rho: float, certain: bool, count: int = 2**15) -> tuple[torch.Tensor, torch.Tensor]:
    """Whether the first of a pair is negative, or how probable that is by the second; and the second in [0, 1].

    Either way the information of verdict and level is the same.
    """
    x, y = gaussian_pairs(rho, count)
    odds = torch.special.ndtr(-rho * y / math.sqrt(1 - rho**2))
    return (x < 0).double() if certain else odds, torch.special.ndtr(y)


def verdict_information(rho: float) -> float:
    """Nats that one of a Gaussian pair tells of the other's sign: log 2 less the mean entropy that is left."""
    y = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    odds = torch.special.ndtr(rho * y / math.sqrt(1 - rho**2))
    left = torch.special.entr(odds) + torch.special.entr(1 - odds)
    density = torch.exp(-y.square() / 2) / math.sqrt(2 * math.pi)
    return math.log(2) - torch.trapezoid(left * density, y).item()


def batch(rays: int, samples: int, device: torch.device | str = "cpu", interval: int = 1) -> dict:
    """Arguments of an `UncertaintyObjective`, and apart from them what may want gradients."""
    generator = torch.Generator().manual_seed(5)
    count = rays * samples
    both = count + -(-rays // interval) * samples
    weights = torch.rand(rays, samples, generator=generator)
    found = FieldSamples(
        density_logits=torch.randn(both, generator=generator).to(device),
        mask=torch.rand(both, generator=generator).to(device),
        positions=torch.rand(both, 3, generator=generator).to(device),
        color_logits=torch.randn(3, both, generator=generator).to(device),
    )
    return {
        "found": found,
        "weights": (weights / weights.sum(1, keepdim=True).clamp(min=1)).to(device),
        "t_edges": torch.rand(rays, samples + 1, generator=generator).sort(dim=1).values.to(device),
        "target": torch.rand(rays, 3, generator=generator).to(device),
        "interval": interval,
    }


def information_of_pairs(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """By their correlation, all counted alike."""
    return correlation_information(a, b, torch.ones_like(a)[:, None])


def objective_of(information: str, device: torch.device | str = "cpu") -> UncertaintyObjective:
    torch.manual_seed(2)
    return UncertaintyObjective(information).to(device)  # type: ignore[arg-type]


def test_a_field_starts_unsure_everywhere_and_is_never_below_its_floor(device):
    torch.manual_seed(1)
    field = UncertaintyField(0.1).to(device)
    positions = torch.rand(50, 3, generator=torch.Generator().manual_seed(3)).to(device)
    u = field(positions)
    assert u.shape == (50,) and u.dtype == torch.float32
    assert_close(u, torch.full_like(u, 0.1 + math.log(2)), 1e-4)
    with torch.no_grad():
        field.table.fill_(100.0)
        for weight in field.mlp.weights:
            weight.copy_(weight.abs())
        field.mlp.weights[-1].neg_()
    assert_close(field(positions), torch.full_like(u, 0.1), 1e-6)


def test_a_field_learns_where_it_is_wrong(device):
    torch.manual_seed(1)
    field = UncertaintyField().to(device)
    positions = torch.rand(400, 3, generator=torch.Generator().manual_seed(3)).to(device)
    error = torch.where(positions[:, 0] < 0.5, 0.05, 0.4)
    optimizer = torch.optim.Adam(field.parameters(), lr=3e-2)
    still, weights = torch.zeros(400, 3, device=device), torch.ones(400, 1, device=device)
    opaque, black = torch.full((400,), 20.0, device=device), torch.full((3, 400), -40.0, device=device)
    edges = torch.tensor([[0.0, 1.0]] * 400, device=device)
    for _ in range(50):
        optimizer.zero_grad()
        color = error[:, None] / math.sqrt(3) + still
        static_likelihood(opaque, black, field.logits(positions), edges, color, still, weights, U_MIN)[0].backward()
        optimizer.step()
    assert_close(field(positions), error, 0.1)


@pytest.mark.parametrize("u_min", [0.0, -1.0, 1.0])
def test_a_floor_that_is_none_is_named(u_min):
    with pytest.raises(ConfigError, match="u_min"):
        UncertaintyField(u_min)


def test_rendered_uncertainty_by_hand():
    weights = torch.tensor([[0.5, 0.25], [0.0, 0.0]], requires_grad=True)
    u = torch.tensor([0.1, 0.3, 0.5, 0.5], requires_grad=True)
    rendered = rendered_uncertainty(weights, u, 0.02)
    assert_close(rendered, torch.tensor([0.5 * 0.1 + 0.25 * 0.3 + 0.25 * 0.02, 0.02]), 1e-6)
    rendered.sum().backward()
    assert weights.grad is None
    assert u.grad is not None
    assert_close(u.grad, torch.tensor([0.5, 0.25, 0.0, 0.0]), 1e-6)


def test_information_in_float64():
    generator = torch.Generator().manual_seed(8)
    a, b = torch.rand(2, 40, generator=generator, dtype=torch.float64)
    torch.manual_seed(6)
    for estimate in (histogram_information, information_of_pairs, NeuralInformation()):
        assert torch.autograd.gradcheck(lambda x: estimate(x, b), (a.clone().requires_grad_(),))  # noqa: B023


def test_visible_samples_are_taken_as_often_as_they_are_seen():
    weights = torch.tensor([0.0, 0.5, 0.0, 0.25, 0.0, 0.25])
    assert torch.bincount(visible_samples(weights, 8), minlength=6).tolist() == [0, 4, 0, 2, 0, 2]
    generator = torch.Generator().manual_seed(9)
    many = torch.rand(10_000, generator=generator) ** 4
    counts = torch.bincount(visible_samples(many, 50_000), minlength=10_000)
    assert (counts - 50_000 * many.double() / many.double().sum()).abs().max() <= 1


def test_visible_samples_of_nothing():
    assert visible_samples(torch.zeros(0), 0).shape == (0,)
    assert visible_samples(torch.zeros(4), 4).tolist() == [0, 1, 2, 3]  # nothing is seen: all count alike


@pytest.mark.parametrize("rho", CORRELATIONS)
def test_correlation_finds_the_information_of_gaussian_pairs(rho):
    found = information_of_pairs(*gaussian_pairs(rho)).item()
    assert math.isclose(found, -0.5 * math.log(1 - rho**2) + math.log(1 - rho), rel_tol=0.03, abs_tol=0.02)
    assert rho == 0 or (found > 0) == (rho < 0)


@pytest.mark.parametrize("certain", [True, False])
@pytest.mark.parametrize("rho", CORRELATIONS)
def test_histogram_finds_the_information_of_a_sign_and_the_other_of_gaussian_pairs(rho, certain):
    mask, level = verdicts_of_pairs(rho, certain)
    assert math.isclose(histogram_information(mask, level).item(), verdict_information(rho), rel_tol=0.05, abs_tol=2e-3)


@pytest.mark.parametrize("rho", CORRELATIONS)
def test_the_neural_bound_closes_in_on_the_information_of_gaussian_pairs(rho):
    mask, level = (values.float() for values in verdicts_of_pairs(rho, False, 2048))
    torch.manual_seed(2)
    module = NeuralInformation()
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)
    for _ in range(80):
        optimizer.zero_grad()
        (-module(mask, level)).backward()
        optimizer.step()
    found, known = module(mask, level).item(), verdict_information(rho)
    assert 0.9 * known - 1e-3 < found < 1.05 * known + 5e-3


def test_histogram_of_a_yes_or_no():
    level = torch.tensor([0.0, 0.0, 0.0, 1.0])
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert math.isclose(histogram_information(1 - level, level).item(), entropy, abs_tol=1e-6)
    assert abs(histogram_information(torch.full((4,), 0.3), level).item()) < 1e-6


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_a_mask_that_is_the_same_everywhere_tells_nothing_and_has_finite_gradients(value):
    level = torch.rand(500, generator=torch.Generator().manual_seed(1))
    for information in INFORMATION:
        mask = torch.full((500,), value, requires_grad=True)
        objective = objective_of(information)
        found = objective.mutual_information(mask, level, torch.ones(50, 10))
        assert abs(found.item()) < 0.05
        found.backward()
        assert mask.grad is not None and mask.grad.isfinite().all()


def test_facing_reverses_the_gradient_of_a_mask_that_grows_with_the_uncertainty():
    level = torch.tensor([0.1, 0.2, 0.9])
    for values, expected in (([0.9, 0.8, 0.1], 1.0), ([0.1, 0.2, 0.7], -1.0), ([0.4, 0.4, 0.4], 1.0)):
        mask = torch.tensor(values, requires_grad=True)
        faced = facing(mask, level)
        assert_close(faced, torch.tensor(values), 1e-6)
        faced.sum().backward()
        assert mask.grad is not None and mask.grad.tolist() == [expected] * 3


@pytest.mark.parametrize("start", ["right", "wrong"])
@pytest.mark.parametrize("information", INFORMATION)
def test_a_mask_finds_what_is_uncertain(information, start):
    """From a mask that tells a little, in the right direction or the wrong one, to m < 1/2 exactly where u is large."""
    generator = torch.Generator().manual_seed(12)
    moves = torch.rand(600, generator=generator) < 0.2
    u = torch.where(moves, 0.4, 0.05) * (1 + 0.3 * torch.rand(600, generator=generator))
    sign = -1.0 if start == "right" else 1.0
    logits = (0.3 * sign * moves + 0.2 * torch.randn(600, generator=generator)).requires_grad_()
    level, weights = (u / U_MIN).log() / -math.log(U_MIN), torch.ones(60, 10)
    objective = objective_of(information)
    optimizer = torch.optim.Adam([logits, *objective.parameters()], lr=3e-2)
    for _ in range(200):
        optimizer.zero_grad()
        (-objective.mutual_information(torch.sigmoid(logits), level, weights)).backward()
        optimizer.step()
    assert ((logits < 0) == moves).float().mean() > 0.98


@pytest.mark.parametrize("interval", [1, 4])
@pytest.mark.parametrize("information", INFORMATION)
def test_gradients_go_where_they_belong(information, interval, device):
    arguments = batch(40, 6, device, interval)
    found, weights = arguments["found"], arguments["weights"].requires_grad_()
    static = found.density_logits.requires_grad_(), found.color_logits.requires_grad_()
    found.mask.requires_grad_()
    objective = objective_of(information, device)
    objective(**arguments)[1].backward()
    of_mask = found.mask.grad
    assert of_mask is not None and not of_mask[240:].any()
    looked_at = torch.arange(40, device=device) % interval == 0
    assert of_mask[:240].view(40, 6)[looked_at].any() and not of_mask[:240].view(40, 6)[~looked_at].any()
    assert weights.grad is None and all(x.grad is None for x in static)
    assert all(parameter.grad is None for parameter in objective.field.parameters())
    critic = objective.neural.parameters() if objective.neural else ()
    assert all(parameter.grad is not None for parameter in critic)

    found.mask.grad = None
    objective(**arguments)[0].backward()
    assert found.mask.grad is None and weights.grad is None
    for logits in static:
        assert logits.grad is not None and logits.grad[..., 240:].any() and not logits.grad[..., :240].any()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in objective.field.parameters())


@pytest.mark.parametrize("information", INFORMATION)
@pytest.mark.parametrize(("rays", "samples"), [(0, 4), (1, 1), (1, 5), (2, 1)])
def test_few_rays_or_none(information, rays, samples, device):
    arguments = batch(rays, samples, device)
    mask = arguments["found"].mask.requires_grad_()
    terms = objective_of(information, device)(**arguments)
    sum(terms).backward()
    assert all(term.shape == () and term.isfinite() for term in terms)
    assert mask.grad is None or mask.grad.isfinite().all()


@pytest.mark.parametrize("information", INFORMATION)
def test_rays_that_are_not_kept_count_for_nothing(information):
    arguments, other = batch(30, 4), batch(30, 4)
    kept = (torch.arange(30) % 3 > 0).float()
    dropped = kept == 0
    other["found"].mask[:120].view(30, 4)[dropped] = 0.5
    other["target"][dropped] = 0.1
    found, again = (objective_of(information)(**a, kept=kept) for a in (arguments, other))
    for term, same in zip(found, again, strict=True):
        assert term.item() == same.item()


@pytest.mark.parametrize("information", INFORMATION)
def test_the_same_batch_gives_the_same_bits(information):
    def run() -> list[torch.Tensor]:
        arguments = batch(50, 8)
        mask = arguments["found"].mask.requires_grad_()
        objective = objective_of(information)
        torch.rand(3)  # nothing here depends on torch's own random numbers
        sum(objective(**arguments)).backward()
        return [mask.grad, *(p.grad for p in objective.parameters())]  # type: ignore[list-item]

    for first, second in zip(run(), run(), strict=True):
        assert torch.equal(first, second)


def test_correlation_is_that_of_samples_picked_as_often_as_they_are_seen():
    """With ever more of them."""
    arguments = batch(60, 8, interval=3)
    found, weights = arguments["found"], arguments["weights"] ** 2
    level = torch.rand(160, generator=torch.Generator().manual_seed(1))
    mask = found.mask[:480].view(60, 8)[::3].flatten() - 0.3 * level
    found.mask[:480].view(60, 8)[::3] = mask.view(20, 8)
    value = objective_of("correlation").mutual_information(found.mask, level, weights, interval=3)
    misses = []
    for count in (160, 2**18):
        chosen = visible_samples(weights[::3].flatten(), count)
        misses.append(abs(information_of_pairs(mask[chosen], level[chosen]).item() - value.item()))
    assert misses[1] < 1e-3 * abs(value.item()) and misses[1] < misses[0]


def test_what_does_not_fit_is_named():
    with pytest.raises(ConfigError, match="neural, histogram, correlation"):
        UncertaintyObjective("entropy")  # type: ignore[arg-type]
    for information in INFORMATION:
        arguments = batch(4, 3)
        arguments["weights"] = arguments["weights"][:3]
        with pytest.raises(TensorError, match="weights"):
            objective_of(information)(**arguments)
