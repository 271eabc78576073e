"""What a render looks up, against a ray-by-ray twin and against compositing everything."""

import math

import pytest
import torch

from msth_taichi.errors import TensorError
from msth_taichi.ops import lookups as op
from msth_taichi.ops.composite import composite
from msth_taichi.ops.marching import Packed, pack
from msth_taichi.reference import lookups as twin
from tests.comparison import assert_close

RAYS, SAMPLES = 41, 19
MIDDLE = torch.tensor([0.4, -0.3, 0.2])  # of what is dense


def rays_with_gaps(device: torch.device) -> tuple[Packed, torch.Tensor, torch.Tensor]:
    """Samples of rays, of which each has its own number, and origins and directions."""
    generator = torch.Generator().manual_seed(4)
    edges = 3 * torch.rand(SAMPLES + 1, RAYS, generator=generator).sort(dim=0).values
    mass = torch.rand(SAMPLES, RAYS, generator=generator)
    mass[:, 0] = 0  # a ray without samples
    samples = pack(edges.to(device), mass.to(device), 0.2, False)
    origins = 0.3 * torch.randn(RAYS, 3, generator=generator)
    directions = torch.nn.functional.normalize(MIDDLE - origins + 0.1 * torch.randn(RAYS, 3, generator=generator))
    return samples, origins.to(device), directions.to(device)


def density(positions: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """(M,) logits at scene positions (M, 3): something dense with a haze around it."""
    return (4 - 30 * (positions - MIDDLE.to(positions)).square().sum(-1)).to(dtype)


def look_up(
    samples: Packed,
    origins: torch.Tensor,
    directions: torch.Tensor,
    darkness: float,
    dtype: torch.dtype,
) -> tuple[op.Lookups, torch.Tensor]:
    """All turns, of three samples each, and the logits of what they looked up."""
    found = op.Lookups(samples)
    known, logits = None, []
    for first in range(0, SAMPLES, 3):
        rows = range(first, first + 3)
        base, wanted = found.total, op.want(found, rows, darkness, known)
        room = found.room(rows)
        assert wanted.total <= room <= samples.count.sum() or first == 0
        grid = op.place(found, rows, wanted, room, origins, directions, "none", 4.0)
        assert len(grid) == op.aligned(room)
        grid = grid[: found.take(rows, wanted)]
        assert found.total - base == len(grid) == op.aligned(int(wanted.each.sum()))
        logits.append(density(grid * 8 - 4, dtype))
        known = op.Turn(rows, base, logits[-1])
    return found, torch.cat(logits)


def twin_rays(samples: Packed) -> list[twin.Ray]:
    return [
        twin.Ray(samples.middles[:n, i].tolist(), samples.widths[:n, i].tolist())
        for i, n in enumerate(samples.count.tolist())
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("darkness", [math.inf, 3.0])
def test_what_is_looked_up_and_what_it_weighs(device, darkness, dtype):
    """As in the twin: the same samples, with the same weights."""
    samples, origins, directions = rays_with_gaps(device)
    found, logits = look_up(samples, origins, directions, darkness, dtype)
    masks = torch.linspace(0, 1, len(logits), device=device)
    end = torch.full((RAYS,), 9.0, device=device)
    seen = op.weigh(found, logits, masks, end, 0.02, darkness, True)
    chosen = op.choose(found, seen, op.Counted(seen.shown))
    looked_up = (found.slots >= 0).sum()
    assert 0 < looked_up <= samples.count.sum()
    assert (looked_up == samples.count.sum()) == (darkness == math.inf)
    assert found.slots.max() < found.total

    start = 0
    for i, ray in enumerate(twin_rays(samples)):
        places = origins[i] + directions[i] * samples.middles[:, i, None]
        twin.look_up(ray, lambda row, places=places: density(places[row], dtype).item(), 3, darkness)
        slots = found.slots[:, i]
        assert (slots >= 0).nonzero().squeeze(1).tolist() == sorted(ray.logits)
        of_ray = {row: masks[slots[row]].item() for row in ray.logits}
        depth, median, mask, shown = twin.weigh(ray, of_ray, 0.02, darkness, True)
        assert seen.depth[i].item() == pytest.approx(depth, rel=1e-2 if dtype == torch.float16 else 1e-4, abs=1e-6)
        assert seen.mask[i].item() == pytest.approx(mask, abs=2e-3)
        assert median is None or seen.median[i].item() == pytest.approx(median)
        rows = slice(start, int(chosen.ends[i]))
        assert (chosen.rays[rows] == i).all()
        assert chosen.slots[rows].tolist() == [slots[row].item() for row in shown]
        weights = seen.weights[chosen.slots[rows].long()]
        assert weights.tolist() == pytest.approx(list(shown.values()), abs=2e-3)
        start = rows.stop
    assert start == seen.shown.sum() and len(chosen.slots) == op.aligned(start)


def test_all_samples_are_compositing(device):
    """Nothing left out: weights, depth and colour are those of `composite`."""
    generator = torch.Generator().manual_seed(1)
    edges = 3 * torch.rand(SAMPLES + 1, RAYS, generator=generator).sort(dim=0).values.to(device)
    samples = pack(edges, torch.ones(SAMPLES, RAYS, device=device), 0.0, False)
    _, origins, directions = rays_with_gaps(device)
    found, logits = look_up(samples, origins, directions, math.inf, torch.float32)
    seen = op.weigh(found, logits, torch.ones_like(logits), edges[-1], -1.0, math.inf, True)
    chosen = op.choose(found, seen, op.Counted(seen.shown))
    colors = torch.randn(3, len(logits), generator=generator).to(device)
    inputs = op.color_inputs(chosen, torch.arange(RAYS, device=device, dtype=torch.float32)[None], colors)
    assert torch.equal(inputs[0], chosen.rays.float()) and (inputs[1] == 1).all()
    assert torch.equal(inputs[2:], colors[1:, chosen.slots.long()])
    color, last = op.shade(chosen, seen, colors[:, chosen.slots.long()].contiguous())
    order = found.slots.T.long()
    truth = torch.sigmoid(colors[:, order])
    expected = composite(logits[order].exp().contiguous(), truth.contiguous(), edges.T.contiguous(), "last_sample")
    shown = color + torch.exp(-seen.depth) * last
    assert_close(shown.T, expected.color, 1e-4)
    assert_close(last, truth[:, :, -1], 1e-6)


def test_positions_that_belong_to_no_ray_are_zero(device):
    """They are looked up with the others; here memory that nobody wrote holds nan."""
    samples, origins, directions = rays_with_gaps(device)
    samples.count[1] = 1
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        found = op.Lookups(samples)
        wanted = op.want(found, range(2), 6.0)
        grid = op.place(found, range(2), wanted, 2 * wanted.total, origins, directions, "none", 4.0)
        beyond = grid[op.aligned(wanted.total) :]
        grid = grid[: found.take(range(2), wanted)]
    finally:
        torch.use_deterministic_algorithms(False)
    assert beyond.isnan().all()
    assert 0 < wanted.total < len(grid) and grid.isfinite().all()
    assert (grid[wanted.total :] == 0).all()


def test_no_rays(device):
    empty = torch.zeros(4, 0, device=device)
    found = op.Lookups(Packed(empty, empty, torch.zeros(0, dtype=torch.int32, device=device)))
    logits = torch.empty(0, device=device)
    wanted = op.want(found, range(4), 1.0)
    assert found.room(range(4)) == 0
    assert op.place(found, range(4), wanted, 0, empty[:3].T.contiguous(), empty[:3].T.contiguous()).shape == (0, 3)
    seen = op.weigh(found, logits, logits, logits, 0.1, 1.0, True)
    color, _ = op.shade(op.choose(found, seen, op.Counted(seen.shown)), seen, empty[:3])
    assert color.shape == (3, 0)


def test_what_does_not_fit_is_named(device):
    samples, origins, directions = rays_with_gaps(device)
    found = op.Lookups(samples)
    with pytest.raises(TensorError, match="logits"):
        op.weigh(found, *torch.zeros(3, 3, device=device), 0.1, 6.0, False)
    with pytest.raises(TensorError, match="wanted"):
        op.place(found, range(3), op.Counted(torch.zeros(3, dtype=torch.int32, device=device)), 8, origins, directions)
