"""A proposal's density in one launch against its PyTorch twin and its own parts."""

import pytest
import torch

from msth_taichi.errors import ConfigError, TensorError
from msth_taichi.grids import GridSpec, mask_spec
from msth_taichi.ops.masked_encoding import BLENDS, masked_encoding
from msth_taichi.ops.proposal_density import proposal_density
from msth_taichi.ops.sample_positions import sample_positions
from msth_taichi.reference import proposal_density as twin
from msth_taichi.thresholds import EMPTY_LOGIT
from tests.comparison import assert_close

SPECS = (mask_spec(4), GridSpec((4, 5, 6), (20, 24, 31), 3, 2, 9), GridSpec((4, 5, 6, 3), (20, 24, 31, 9), 3, 2, 9))
TIMED = (mask_spec(4, 3), *SPECS[1:])
BOTH = pytest.mark.parametrize("specs", [SPECS, TIMED], ids=["mask of space", "mask of times"])


def random_inputs(rays: int, samples: int, device: torch.device, hidden: int = 16, dtype=torch.float32, specs=SPECS):
    """Rays that start near the origin, their edges, tables, specs, and the weights of the MLP."""
    generator = torch.Generator().manual_seed(rays + samples)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=dtype)

    origins, directions = normal(rays, 3), torch.nn.functional.normalize(normal(rays, 3))
    edges = torch.rand(rays, samples + 1, generator=generator, dtype=dtype).sort(dim=1).values * 5
    tables = [normal(s.num_entries, s.features) * 3 for s in specs]
    inputs = (origins, directions, torch.rand(rays, generator=generator, dtype=dtype), edges, *tables)
    weights = normal(hidden, SPECS[1].num_outputs), normal(1, hidden)
    return [x.to(device) for x in inputs], [x.to(device) for x in weights]


@pytest.mark.parametrize(
    ("blend", "kind", "specs"),
    [
        *((blend, kind, SPECS) for blend in BLENDS for kind in ("inf", "l2", "none")),
        *((blend, "none", TIMED) for blend in BLENDS),
    ],
)
def test_matches_reference(device, blend, kind, specs):
    inputs, weights = random_inputs(11, 13, device, specs=specs)
    logits = proposal_density(*inputs, *specs, *weights, blend, kind, 1.5)
    assert_close(logits, twin.proposal_density(*inputs, *specs, *weights, blend, kind, 1.5), 1e-4)


@BOTH
@pytest.mark.parametrize(("rays", "samples", "hidden"), [(0, 4, 16), (1, 1, 16), (3, 7, 1), (3, 0, 16)])
def test_odd_sizes(device, rays, samples, hidden, specs):
    inputs, weights = random_inputs(rays, samples, device, hidden, specs=specs)
    logits = proposal_density(*inputs, *specs, *weights)
    assert_close(logits, twin.proposal_density(*inputs, *specs, *weights), 1e-4)


@BOTH
@pytest.mark.parametrize("compute", [torch.float32, torch.float16])
def test_equals_its_parts(device, compute, specs):
    """What a step that trains the proposal computes, in the same precision."""
    inputs, weights = random_inputs(9, 21, device, specs=specs)
    origins, directions, times, edges, *tables = inputs
    features, _ = masked_encoding(sample_positions(origins, directions, edges), times, *tables, *specs, compute=compute)
    expected = (weights[1] @ torch.relu(weights[0] @ features.float())).view(9, 21)
    copies = (tables[1].to(compute), tables[2].to(compute))
    logits = proposal_density(*inputs, *specs, *weights, copies=copies)
    assert logits.dtype == torch.float32
    assert_close(logits, expected, 1e-5 if compute == torch.float32 else 2e-3)


def test_outside_a_box_is_empty(device):
    inputs, weights = random_inputs(1, 2, device)
    inputs[0], inputs[1] = torch.zeros(1, 3, device=device), torch.tensor([[1.0, 0.0, 0.0]], device=device)
    inputs[3] = torch.tensor([[0.0, 1.0, 3.0]], device=device)
    logits = proposal_density(*inputs, *SPECS, *weights, "mst", "none", 1.0)
    assert logits[0, 0] > EMPTY_LOGIT and logits[0, 1] == EMPTY_LOGIT


def test_wrong_tensors_are_named(device):
    inputs, weights = random_inputs(4, 3, device)
    with pytest.raises(TensorError, match="blend"):
        proposal_density(*inputs, *SPECS, *weights, "both")
    with pytest.raises(TensorError, match="out_weights"):
        proposal_density(*inputs, *SPECS, weights[0], weights[1][:, :-1])
    with pytest.raises(TensorError, match="at most 64"):
        proposal_density(*inputs, *SPECS, *random_inputs(4, 3, device, 65)[1])
    with pytest.raises(ConfigError, match="contraction"):
        proposal_density(*inputs, *SPECS, *weights, "mst", "cube")
