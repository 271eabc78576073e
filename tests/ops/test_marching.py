"""Sampling and compositing for renders against the PyTorch twins and the operators of training."""

import pytest
import torch

from msth_taichi.errors import TensorError
from msth_taichi.grids import GridSpec, mask_spec
from msth_taichi.ops.marching import Regular, marched_density, marched_edges, pack, pack_cells, redraw
from msth_taichi.ops.resample import resample_logits
from msth_taichi.ops.stratified import stratified_samples
from msth_taichi.reference import marching as twin
from msth_taichi.thresholds import EMPTY_LOGIT
from tests.comparison import assert_close

SPECS = (mask_spec(4), GridSpec((4, 5, 6), (20, 24, 31), 3, 2, 9), GridSpec((4, 5, 6, 3), (20, 24, 31, 9), 3, 2, 9))


class Random:
    """Normal and uniform numbers on a device, the same for the same sizes."""

    def __init__(self, seed: int, device: torch.device):
        self._generator, self._device = torch.Generator().manual_seed(seed), device

    def normal(self, *shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=self._generator).to(self._device)

    def uniform(self, *shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=self._generator).to(self._device)


def spans(rays: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    near = 0.1 + Random(rays, device).uniform(rays)
    return near, near + 1 + 20 * Random(rays + 1, device).uniform(rays)


@pytest.mark.parametrize(("rays", "samples"), [(0, 4), (1, 1), (9, 33)])
def test_edges_are_those_of_training(device, rays, samples):
    near, far = spans(rays, device)
    for marched, plain in zip(marched_edges(near, far, samples), stratified_samples(near, far, samples), strict=True):
        assert_close(marched.T, plain, 1e-6)


def density_inputs(rays: int, samples: int, device: torch.device) -> list[torch.Tensor]:
    """Rays that start near the origin, edges side by side, tables, and the weights of the MLP."""
    random = Random(rays + samples, device)
    directions = torch.nn.functional.normalize(random.normal(rays, 3))
    edges = 5 * random.uniform(samples + 1, rays).sort(dim=0).values
    tables = [3 * random.normal(spec.num_entries, spec.features) for spec in SPECS]
    weights = [random.normal(16, SPECS[1].num_outputs), random.normal(1, 16)]
    return [random.normal(rays, 3), directions, random.uniform(rays), edges, *tables, *weights]


@pytest.mark.parametrize("kind", ["inf", "none"])
@pytest.mark.parametrize("share", [None, 0.5])
def test_density(device, kind, share):
    """As the twin; and where cells are empty, none, whatever the tables say."""
    *inputs, first, last = density_inputs(31, 17, device)
    cells = None if share is None else Random(3, device).uniform(8, 8, 8) < share
    field = (*SPECS, first, last, "mst", kind, 1.5)
    logits = marched_density(*inputs, *field, occupied=None if cells is None else pack_cells(cells))
    assert_close(logits, twin.marched_density(*inputs, *field, occupied=cells), 1e-4)
    assert cells is None or 0.3 < (logits == EMPTY_LOGIT).float().mean() < 0.9


def test_density_ends_in_darkness(device):
    """No lookups behind bins that let next to nothing through; the bin that makes it dark is seen."""
    *inputs, first, last = density_inputs(40, 30, device)
    field = (*SPECS, first, last, "mst", "inf", 1.5)
    logits = marched_density(*inputs, *field, darkness=2.0)
    assert_close(logits, twin.marched_density(*inputs, *field, darkness=2.0), 1e-4)
    assert 0.1 < (logits == EMPTY_LOGIT).float().mean() < 0.9 and (logits[0] > EMPTY_LOGIT).all()


def test_bits_of_cells(device):
    occupied = torch.zeros(4, 4, 4, dtype=torch.bool, device=device)
    occupied[1, 3, 3] = occupied[2, 0, 1] = True
    assert pack_cells(occupied).tolist() == [-(2**31), 2]


@pytest.mark.parametrize("padding", [0.01, 0.0])
@pytest.mark.parametrize(("rays", "bins", "count"), [(0, 3, 4), (1, 1, 1), (50, 40, 17)])
def test_redrawing(device, rays, bins, count, padding):
    """Edges as in training, and the mass around them as the twin's."""
    near, far = spans(rays, device)
    edges = marched_edges(near, far, bins)
    logits = 3 * Random(bins, device).normal(bins, rays) - 1
    found = redraw(edges, logits, near, far, count, padding=padding)
    expected = twin.redraw(*edges, logits, near, far, count, padding=padding)
    plain = resample_logits(*(x.T.contiguous() for x in (*edges, logits)), near, far, count, padding=padding)
    assert_close(found.s_edges.T, plain[1], 1e-5)
    assert_close(found.t_edges.T, plain[2], 1e-4)
    # an edge on a boundary may round to either side of it
    same = (found.mass - expected[2]).abs() < 1e-4
    assert same.float().mean() > 0.99 or not rays


@pytest.mark.parametrize("spacing", ["piecewise", "lindisp", "uniform"])
def test_regular_edges_need_not_be_read(device, spacing):
    """Those that kernels work out are those that they read: on a CPU to the last bit."""
    near, far = spans(23, device)
    regular = Regular(near, far, 19, spacing, 0.7)
    edges = regular.tensors()
    origins, directions, times, _, *tables, first, last = density_inputs(23, 19, device)
    field = (*tables, *SPECS, first, last, "mst", "inf", 1.5)
    rays = origins, directions, times
    read = marched_density(*rays, edges[1], *field, darkness=3.0)
    worked_out = marched_density(*rays, regular, *field, darkness=3.0)
    found, expected = (redraw(given, read, near, far, 7, spacing, 0.7) for given in (None, edges))
    for a, b in zip((worked_out, *found), (read, *expected), strict=True):
        same = torch.isclose(a, b, 1e-4, 1e-4) if device.type == "cuda" else a == b
        # on a boundary a last bit may decide for either side
        assert same.float().mean() >= (0.99 if device.type == "cuda" else 1)


def test_empty_rays_are_sampled_everywhere(device):
    near, far = spans(3, device)
    edges = marched_edges(near, far, 8)
    found = redraw(edges, torch.full((8, 3), EMPTY_LOGIT, device=device), near, far, 4)
    assert found.mass.abs().max() == 0 and (found.s_edges.diff(dim=0) > 0.1).all()


@pytest.mark.parametrize("keep_last", [False, True])
def test_packing(device, keep_last):
    edges = Random(1, device).uniform(12, 30).sort(dim=0).values
    mass = Random(2, device).uniform(11, 30)
    middles, widths, count = pack(edges, mass, 0.6, keep_last)
    *truth, kept = twin.pack(edges, mass, 0.6, keep_last)
    assert torch.equal(count, kept) and 0 < count.sum() < mass.numel()
    within = torch.arange(11, device=device)[:, None] < count
    for value, expected in zip((middles, widths), truth, strict=True):
        assert_close(value[within], expected[within], 1e-6)


def test_wrong_shapes_are_named(device):
    near, far = spans(3, device)
    edges = marched_edges(near, far, 8)
    with pytest.raises(TensorError, match="t_edges"):
        redraw((edges[0], edges[1][1:]), torch.zeros(8, 3, device=device), near, far, 4)
    with pytest.raises(TensorError, match="occupied"):
        *inputs, first, last = density_inputs(3, 4, device)
        marched_density(*inputs, *SPECS, first, last, occupied=torch.zeros(5, dtype=torch.int64, device=device))
