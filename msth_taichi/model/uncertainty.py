"""What the still part of a scene cannot explain, and how much the mask knows of it.

    u(x) = u_min + softplus(g(x))                                   how unsure the static table is of a place
    U(r) = sum_i w_i u(x_i) + (1 - sum_i w_i) u_min                 of what a ray sees
    uncertainty        = mean_r |C_gt - C_static|^2 / (2 U^2) + log U
    mutual_information = -I(v; u)                                   over what rays see, u held fixed

where a place has the verdict v = "static" with probability m(x).

The mask is guided by an uncertainty in the paper (Wang et al. 2023, Masked Space-Time Hash Encoding); its released code
has none of it. The formulas, the estimators and all numbers here are our reading: see docs/uncertainty.md.

Letters: N rays, S samples per ray, M = N*S samples, N' = ceil(N / k): every k-th ray, K samples that are compared,
B bins.
"""

from typing import Literal

import torch
from torch import nn
from torch.nn.functional import softplus

from msth_taichi.errors import ConfigError
from msth_taichi.grids import GridSpec
from msth_taichi.model.field import FieldSamples
from msth_taichi.model.mlp import MLP
from msth_taichi.ops.correlation_information import correlation_information
from msth_taichi.ops.hash_grid import hash_grid
from msth_taichi.ops.static_likelihood import static_likelihood
from msth_taichi.thresholds import LEAST_VARIANCE

Information = Literal["neural", "histogram", "correlation"]
INFORMATION: tuple[Information, ...] = ("neural", "histogram", "correlation")

U_MIN = 0.03
"""Standard deviation of a colour that nothing explains better: noise, compression, the error of a good fit."""

COMPARED = 2**14
"""K: samples whose mask and uncertainty the histogram and the neural form compare in a step, at most."""

_SPEC = GridSpec((16,) * 3, (256,) * 3, 8, 2, 15)
_HIDDEN = 16
_TABLE_INIT = 1e-4

_CRITIC_HIDDEN = 64
_CRITIC_LIMIT = 5.0  # a log density ratio beyond it would rest on a handful of samples

_BINS = 16
_LEAST_SHARE = 1e-12  # log of an empty cell; its gradient is none


class UncertaintyField(nn.Module):
    """How unsure the static table is of each place: a small hash grid and a tiny MLP.

        u(x) = u_min + softplus(g(x))

    The unit is that of colours, the norm over red, green and blue. It starts at u_min + log 2 everywhere, so unsure
    that the first static renders, which show nothing yet, are not pressed hard.

    Args:
        u_min: smallest uncertainty, above 0.

    Example:
        >>> UncertaintyField()(torch.rand(5, 3)).shape
        torch.Size([5])
    """

    def __init__(self, u_min: float = U_MIN):
        super().__init__()
        if not 0 < u_min < 1:
            raise ConfigError(f"u_min: expected a number between 0 and 1, got {u_min}")
        self.u_min = u_min
        self.table = nn.Parameter(torch.empty(_SPEC.num_entries, _SPEC.features).uniform_(-_TABLE_INIT, _TABLE_INIT))
        self.mlp = MLP(_SPEC.num_outputs, _HIDDEN, 1)

    def forward(self, positions: torch.Tensor) -> torch.Tensor:
        """(M,) float32 of positions (M, 3) float32 in [0, 1]; differentiable in the parameters."""
        return self.u_min + softplus(self.logits(positions))

    def logits(self, positions: torch.Tensor) -> torch.Tensor:
        """g (M,) float32 of positions (M, 3) float32 in [0, 1]; differentiable in the parameters."""
        return self.mlp(hash_grid(positions, self.table, _SPEC)).squeeze(0)


def rendered_uncertainty(weights: torch.Tensor, u: torch.Tensor, u_min: float = U_MIN) -> torch.Tensor:
    """Uncertainty of what rays see.

        U = sum_i w_i u_i + (1 - sum_i w_i) u_min

    What shines through the samples is the background, which is the same with and without the dynamic table: it gets the
    smallest uncertainty, so that U is at least u_min and log U finite.

    Args:
        weights: (N, S) of `composite`; no gradient reaches them, or a ray could get surer by looking elsewhere.
        u: (N*S,) at least u_min, ray after ray.
        u_min: that of the background.
    Returns:
        (N,), at least u_min.

    Example:
        >>> rendered_uncertainty(torch.tensor([[0.5, 0.25]]), torch.tensor([0.1, 0.3]), 0.02)
        tensor([0.1300])
    """
    weights = weights.detach()
    return u_min + (weights * (u.view_as(weights) - u_min)).sum(1)


def visible_samples(weights: torch.Tensor, count: int) -> torch.Tensor:
    """Indices of samples, each taken as often as it is seen: without this, empty space would be most of a batch.

    Systematic resampling: index k is the first at which the running sum of weights passes (k + 1/2) / K of the whole.
    Nothing is drawn at random, so a resumed training goes on exactly.

    Args:
        weights: (M,) at least 0; where all are 0, all samples count alike.
        count: K.
    Returns:
        (K,) int64, not decreasing; of no samples (0,).
    Source: Kitagawa 1996, Monte Carlo Filter and Smoother.

    Example:
        >>> visible_samples(torch.tensor([0.0, 0.5, 0.0, 0.25]), 3)
        tensor([1, 1, 3])
    """
    if not len(weights):
        return torch.zeros(0, dtype=torch.int64, device=weights.device)
    # in float64: a sum over a million samples has to tell neighbours apart
    shares = weights.detach().double() + torch.finfo(torch.float32).tiny
    passed = shares.cumsum(0)
    steps = (torch.arange(count, device=weights.device, dtype=passed.dtype) + 0.5) / count
    return torch.searchsorted(passed, steps * passed[-1]).clamp(max=len(weights) - 1)


class NeuralInformation(nn.Module):
    """A lower bound of the information between verdict and level, which a small network tightens while it learns.

        I(v; l) >= E_{p(v, l)} T_v(l) - log E_{p(v) p(l)} exp T_v(l)            (T_0, T_1) = 5 tanh(MLP(l, 1) / 5)

    The verdict v is "static" with probability m, "moving" otherwise: both expectations over it are exact, so no pairs
    have to be parted at random. Both mask and network are to go up this value. The logarithm of a mean makes gradients
    of small batches biased; with thousands of samples and less than a nat to find, that is left as it is.

    Source: Belghazi et al. 2018, Mutual Information Neural Estimation, equation 10.

    Example:
        >>> NeuralInformation()(torch.rand(64), torch.rand(64)).shape
        torch.Size([])
    """

    def __init__(self):
        super().__init__()
        self.critic = MLP(2, _CRITIC_HIDDEN, _CRITIC_HIDDEN, 2)

    def forward(self, mask: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        """The bound, nats, of mask (K,) and level (K,) in [0, 1]; 0 of no samples."""
        if not len(mask):
            return mask.sum()
        logits = self.critic(torch.stack([2 * level - 1, torch.ones_like(level)]))
        ratio = _CRITIC_LIMIT * torch.tanh(logits / _CRITIC_LIMIT)
        verdicts = _verdicts(mask)
        joint = (verdicts * ratio).mean(1).sum()
        return joint - (verdicts.mean(1) * ratio.exp().mean(1)).sum().log()


def histogram_information(mask: torch.Tensor, level: torch.Tensor, bins: int = _BINS) -> torch.Tensor:
    """Information between verdict and level, from a joint histogram that a level enters by shares.

        P_vj = mean_k p(v | m_k) h_j(l_k)            I = sum_vj P_vj log P_vj / (P_v. P_.j)
        p = (m, 1 - m),  h_j(l) = max(0, 1 - |l (B - 1) - j|): linear between the centres of two bins

    Args:
        mask: (K,) in [0, 1], the probability of the verdict "static".
        level: (K,) in [0, 1].
        bins: B.
    Returns:
        Scalar, nats, in [0, log 2]; 0 of no samples. Differentiable in both.

    Example:
        >>> histogram_information(torch.tensor([0.0, 0.0, 1.0, 1.0]), torch.tensor([1.0, 1.0, 0.0, 0.0]))
        tensor(0.6931)
    """
    centres = torch.arange(bins, device=level.device, dtype=level.dtype)
    shares = (1 - (level[:, None] * (bins - 1) - centres).abs()).clamp(min=0)
    joint = _verdicts(mask) @ shares / max(len(mask), 1)
    return _negative_entropy(joint) - _negative_entropy(joint.sum(0)) - _negative_entropy(joint.sum(1))


def _verdicts(mask: torch.Tensor) -> torch.Tensor:
    """(2, K) probabilities of "static" and "moving"."""
    return torch.stack([mask, 1 - mask])


def _negative_entropy(shares: torch.Tensor) -> torch.Tensor:
    return (shares * shares.clamp(min=_LEAST_SHARE).log()).sum()


def correlation(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Pearson's correlation of pairs (K,) and (K,), a scalar in (-1, 1); 0 where one is the same everywhere."""
    a, b = a - a.mean(), b - b.mean()
    covariance, *variances = ((x * y).mean() for x, y in ((a, b), (a, a), (b, b)))
    return covariance / ((variances[0] + LEAST_VARIANCE) * (variances[1] + LEAST_VARIANCE)).sqrt()


class UncertaintyObjective(nn.Module):
    """Both terms that guide a mask by an uncertainty, not weighted yet.

    Args:
        information: how the mutual information is estimated: "neural", "histogram" or "correlation".
        u_min: smallest uncertainty, unit of colours.
    Raises:
        ConfigError: unknown estimator, or u_min out of range.

    Example:
        >>> objective = UncertaintyObjective("correlation")
        >>> likelihood, information = objective(found, weights, t_edges, target)
        >>> (0.001 * likelihood - 0.0003 * information).backward()
    """

    def __init__(self, information: Information = "correlation", u_min: float = U_MIN):
        super().__init__()
        if information not in INFORMATION:
            raise ConfigError(f"information: unknown '{information}'; use one of {', '.join(INFORMATION)}")
        self.information = information
        self.field = UncertaintyField(u_min)
        self.neural = NeuralInformation() if information == "neural" else None

    def forward(
        self,
        found: FieldSamples,
        weights: torch.Tensor,
        t_edges: torch.Tensor,
        target: torch.Tensor,
        background: torch.Tensor | None = None,
        kept: torch.Tensor | None = None,
        tint: torch.Tensor | None = None,
        interval: int = 1,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The likelihood's loss, to go down, and the information, nats, to go up: scalars.

        Args:
            found: of the N rays' samples, then of every k-th ray's samples once more, from the static table alone. The
                logits of the latter take the gradient of the first term, the mask of the former that of the second.
            weights: (N, S) of the samples in the full render; not differentiated.
            t_edges: (N, S+1) edges of the samples, scene units.
            target: (N, 3) colours.
            background: (N, 3) colours behind the samples; None for the colour of each ray's last sample.
            kept: (N,) 0 where a ray's pixel is to be ignored; default 1.
            tint: (N, 6) how each ray's camera changes colours; not differentiated.
            interval: k.
        Raises:
            TensorError: sizes that do not fit each other.
        """
        assert found.color_logits is not None, "a proposal has no colour"
        first = weights.numel()
        likelihood, level = static_likelihood(
            found.density_logits,
            found.color_logits,
            self.field.logits(found.positions[first:]),
            t_edges,
            target,
            background,
            weights,
            self.field.u_min,
            kept,
            tint,
            first,
            interval,
        )
        return likelihood, self.mutual_information(found.mask, level, weights, kept, interval)

    def mutual_information(
        self,
        mask: torch.Tensor,
        level: torch.Tensor,
        weights: torch.Tensor,
        kept: torch.Tensor | None = None,
        interval: int = 1,
    ) -> torch.Tensor:
        """How much mask and uncertainty tell of each other where rays look, nats; differentiable in the mask.

        Uncertainty enters as its logarithm, 0 at u_min and 1 at 1, which is as wrong as a channel can be. It takes no
        gradient: the mask has to follow it, and it is the pixels' business.

        Args:
            mask: (M,) or more; the first M are those of the rays.
            level: (N'*S,) of every k-th ray.
            weights: (N, S) how much rays see of their samples.
            kept: (N,) factor of each ray's weights; default 1.
            interval: k.
        """
        if self.information == "correlation":
            return correlation_information(mask, level, weights, kept, interval)
        seen = weights[::interval] if kept is None else weights[::interval] * kept[::interval, None]
        chosen = visible_samples(seen.flatten(), min(COMPARED, len(level)))
        mask = mask[: weights.numel()].view_as(weights)[::interval].flatten()[chosen]
        level = level[chosen]
        mask = facing(mask, level)
        return histogram_information(mask, level) if self.neural is None else self.neural(mask, level)


def facing(mask: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    """A mask (K,) whose gradient is reversed while it grows with the uncertainty level (K,).

    Information is blind to sign: a mask that is static exactly where the static table fails tells just as much. While
    the correlation is positive, going up the information is going down it for the mask, until it faces the right way;
    what measures the information goes on learning as before.

    Example:
        >>> mask = torch.tensor([0.1, 0.9], requires_grad=True)
        >>> facing(mask, torch.tensor([0.0, 1.0])).sum().backward()
        >>> mask.grad
        tensor([-1., -1.])
    """
    if not len(mask):
        return mask
    wrong = correlation(mask.detach(), level.detach()) > 0
    return torch.where(wrong, 2 * mask.detach() - mask, mask)
