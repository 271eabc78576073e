"""The optimiser of fields that keep their gradients: torch's Adam on the same numbers, in one launch."""

from itertools import pairwise

import pytest
import torch

from msth_taichi.config import LossConfig
from msth_taichi.model.field import Field
from msth_taichi.model.losses import losses, masked_fields
from msth_taichi.model.renderer import RadianceField
from msth_taichi.training.checkpoint import State, load_training, save_checkpoint
from msth_taichi.training.grid_adam import EPSILON, GridAdam
from tests.comparison import assert_close

LOSS = LossConfig(interlevel=1.0, distortion=0.01, mask=0.1, mask_proposal=True)
RATE = 1e-2
RAYS = 32
COMPUTES = pytest.mark.parametrize("compute", [torch.float32, torch.float16], ids=str)


class Training:
    """Steps on rays and colours that depend on the step alone, all proposals trained unless told."""

    def __init__(self, model: RadianceField, make_rays, compute=torch.float32, kept=True, loss_scale=float(RAYS)):
        self.model, self.make_rays, self.count = model, make_rays, 0
        model.compute = compute
        if kept:
            for field in model.fields():
                field.keep_gradients(compute)
        self.optimizer = GridAdam(model, RATE, loss_scale)
        self.optimizer.mask_weights = dict.fromkeys(masked_fields(model, LOSS), LOSS.mask)
        self.due = True

    def backward(self) -> None:
        rays = self.make_rays(self.model, RAYS, seed=self.count)
        target = torch.rand(RAYS, 3, generator=torch.Generator().manual_seed(self.count)).to(rays.origins.device)
        self.optimizer.zero_grad()
        total = losses(self.model, rays, target, LOSS, train_proposals=self.due).total
        total.backward(self.optimizer.loss_scale)

    def step(self) -> None:
        self.backward()
        self.optimizer.step()
        self.count += 1


@pytest.fixture
def start(make_model, make_rays):
    """start(compute=torch.float16) -> a Training, always of the same parameters."""
    return lambda *settings, **options: Training(make_model(*settings), make_rays, **options)


def kept_gradients(field: Field) -> dict[torch.Tensor, torch.Tensor]:
    """What a field keeps from autograd, by parameter."""
    sums, flat = field.encoding.sums, field.flat
    assert sums is not None and flat is not None
    weights = [weight for mlp in field.mlps() for weight in mlp.weights]
    tables = (field.encoding.mask_logits, field.encoding.static_table, field.encoding.dynamic_table)
    return dict(zip(tables, sums.gradients(), strict=True)) | dict(
        zip(weights, flat.gradients_of(weights), strict=True)
    )


def snapshot(training: Training, field: Field) -> list[torch.Tensor]:
    """Parameters, moments and copies of a field."""
    values = [parameter.detach().clone() for parameter in field.parameters()]
    states = [training.optimizer.state[parameter] for parameter in field.parameters()]
    values += [state[key].clone() for state in states for key in ("exp_avg", "exp_avg_sq") if key in state]
    copies = [*(field.encoding.copies or ()), *([field.flat.copies] if field.flat else [])]
    return values + [copy.clone() for copy in copies]


def assert_equal(values: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    assert len(values) == len(expected)
    for a, b in zip(values, expected, strict=True):
        assert torch.equal(a, b)


@COMPUTES
def test_moves_as_torchs_adam_on_the_same_gradients(start, compute):
    """Tables, masks with the pull of their loss, and MLPs, through steps that leave the proposals out."""
    training = start(compute=compute)
    named = dict(training.model.named_parameters())
    twins = {name: parameter.detach().clone().requires_grad_() for name, parameter in named.items()}
    before = {name: twin.detach().clone() for name, twin in twins.items()}
    names = {parameter: name for name, parameter in named.items()}
    reached = {name: torch.zeros_like(twin, dtype=torch.bool) for name, twin in twins.items()}
    adam = torch.optim.Adam(twins.values(), lr=RATE, eps=EPSILON)
    for step in range(20):
        training.due = step % 3 != 1
        rate = RATE * 0.9**step
        training.optimizer.learning_rate = adam.param_groups[0]["lr"] = rate
        training.backward()
        adam.zero_grad()
        for field in training.model.fields() if training.due else [training.model.field]:
            for parameter, gradient in kept_gradients(field).items():
                name = names[parameter]
                twins[name].grad = gradient.float() / training.optimizer.loss_scale
                reached[name] |= gradient != 0
                if "mask_logits" in name:
                    mask_loss = LOSS.mask * torch.sigmoid(-twins[name]).mean()
                    twins[name].grad += torch.autograd.grad(mask_loss, twins[name])[0]
                    reached[name].fill_(True)
        adam.step()
        training.optimizer.step()
        training.count += 1
    for name, parameter in named.items():
        assert_close(parameter, twins[name], 1e-4)
        assert_close(parameter - before[name], twins[name] - before[name], 1e-3)
        untouched = ~reached[name].view_as(parameter).any(1)  # whole entries
        assert torch.equal(parameter[untouched], before[name][untouched]), f"{name}: moved without a gradient"
        assert untouched.any() == ("table" in name), f"{name}: the test needs entries that no sample reaches"


def test_entries_without_gradient_go_on_as_their_average_does(start):
    """As in torch's Adam: a gradient is felt for some steps after the last one."""
    training = start()
    training.step()
    table = training.model.field.encoding.static_table
    moved = [table.detach().clone()]
    for _ in range(3):
        training.backward()
        sums = training.model.field.encoding.sums
        sums.static.zero_()
        training.optimizer.step()
        moved.append(table.detach().clone())
    touched = training.optimizer.state[table]["exp_avg"] != 0
    for a, b in pairwise(moved):
        assert ((a != b) <= touched).all() and (a != b)[touched].float().mean() > 0.9


def test_without_kept_gradients_it_is_torchs_adam(start, make_model):
    training = start(kept=False, loss_scale=None)
    twin = make_model()
    adam = torch.optim.Adam(twin.parameters(), lr=RATE, eps=EPSILON)
    for step in range(4):
        training.due = step != 2
        training.backward()
        adam.zero_grad()
        for parameter, other in zip(training.model.parameters(), twin.parameters(), strict=True):
            other.grad = None if parameter.grad is None else parameter.grad.clone()
        training.optimizer.step()
        adam.step()
        training.count += 1
    for parameter, other in zip(training.model.parameters(), twin.parameters(), strict=True):
        assert_close(parameter, other, 1e-5)


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "autograd"])
def test_float16_copies_are_the_parameters_rounded(start, kept):
    """To the last bit, whoever wrote them: what a step reads is what the step before it made."""
    training = start(compute=torch.float16, kept=kept)
    for step in range(4):
        training.due = step != 2
        training.step()
        for field in training.model.fields():
            encoding = field.encoding
            tables = (encoding.static_table, encoding.dynamic_table)
            for copy, table in zip(encoding.copies_in(torch.float16), tables, strict=True):
                assert copy.dtype == torch.float16 and torch.equal(copy, table.half())
            if kept:
                weights = [weight for mlp in field.mlps() for weight in mlp.weights]
                for copy, weight in zip(field.flat.copies_of(weights), weights, strict=True):
                    assert copy.dtype == torch.float16 and torch.equal(copy, weight.half())


def test_copies_are_made_again_where_torch_changed_a_table(start):
    """And the optimiser then writes the new ones."""
    training = start(compute=torch.float16)
    training.step()
    encoding = training.model.field.encoding
    old = encoding.copies
    assert encoding.copies_in(torch.float16) is old, "nothing changed but by the optimiser"
    assert encoding.copies_in(torch.float32) is None
    with torch.no_grad():
        encoding.dynamic_table.mul_(-2)
    fresh = encoding.copies_in(torch.float16)
    assert fresh is not old and torch.equal(fresh[1], encoding.dynamic_table.half())
    for _ in range(2):
        training.step()
        assert encoding.copies is fresh
        assert torch.equal(fresh[0], encoding.static_table.half())
        assert torch.equal(fresh[1], encoding.dynamic_table.half())


def poison_bounds(field: Field) -> None:
    """As an infinite gradient of a feature leaves them."""
    field.encoding.sums.bounds[-1] = float("inf")


def poison_weights(field: Field) -> None:
    field.flat.gradients[-1] = float("nan")


@COMPUTES
@pytest.mark.parametrize("poison", [poison_bounds, poison_weights])
def test_a_gradient_that_is_not_finite_moves_nothing(start, compute, poison):
    training = start(compute=compute)
    field = training.model.field
    training.step()
    training.due = False
    training.backward()
    poison(field)
    before, scale = snapshot(training, field), training.optimizer.loss_scale.item()
    training.optimizer.step()
    assert_equal(snapshot(training, field), before)
    assert training.optimizer.loss_scale.item() == scale / 2
    assert not field.encoding.sums.pending
    assert all(gradient.count_nonzero() == 0 for gradient in field.encoding.sums.gradients()), "sums are forgotten"
    training.due = True
    training.step()
    assert all(parameter.isfinite().all() for parameter in training.model.parameters())
    assert not torch.equal(field.encoding.static_table, before[0])


def test_a_gradient_that_is_not_finite_moves_nothing_without_kept_gradients(start):
    training = start(compute=torch.float16, kept=False)
    training.step()
    training.backward()
    training.model.field.color_mlp.weights[0].grad[0, 0] = float("inf")
    before = [snapshot(training, field) for field in training.model.fields()]
    training.optimizer.step()
    for values, field in zip(before, training.model.fields(), strict=True):
        assert_equal(snapshot(training, field), values)
    assert training.optimizer.loss_scale.item() == RAYS / 2


@pytest.mark.parametrize("overflown", [0, 1])
def test_all_fields_divide_by_the_scale_that_the_loss_was_multiplied_by(start, overflown):
    """Though one that overflowed has the next loss scaled by half, once."""
    spoilt, clean = start(), start()
    for training in (spoilt, clean):
        training.backward()
    poison_bounds(spoilt.model.fields()[overflown])
    for training in (spoilt, clean):
        training.optimizer.step()
    assert spoilt.optimizer.loss_scale.item() == RAYS / 2 and clean.optimizer.loss_scale.item() == RAYS
    assert_equal(
        snapshot(spoilt, spoilt.model.fields()[1 - overflown]), snapshot(clean, clean.model.fields()[1 - overflown])
    )


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "autograd"])
def test_the_loss_scale_grows_back_and_no_further(start, kept):
    training = start(kept=kept)
    assert training.optimizer.loss_scale.item() == RAYS
    training.step()
    assert training.optimizer.loss_scale.item() == RAYS, "never above its start"
    training.optimizer.loss_scale.fill_(RAYS / 1.0015)
    scales = []
    for step in range(4):
        training.due = step % 2 == 0  # by the same factor in a step that trains the proposals
        training.step()
        scales.append(training.optimizer.loss_scale.item())
    assert scales[0] == pytest.approx(RAYS / 1.0015 * 1.001, rel=1e-6)
    assert scales[1:] == [RAYS] * 3


def test_the_scale_of_the_loss_does_not_matter(start):
    """Gradients are divided by it; their digits are the same, as it is a power of two."""
    one, other = start(loss_scale=4.0), start(loss_scale=4096.0)
    for training in (one, other):
        for _ in range(3):
            training.step()
    for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True):
        assert_close(a, b, 1e-4)


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "autograd"])
def test_a_proposal_that_is_not_due_is_left_alone(start, kept):
    training = start(kept=kept)
    training.step()
    field, proposal = training.model.fields()
    before, before_field = snapshot(training, proposal), snapshot(training, field)
    steps = training.optimizer.state[proposal.encoding.static_table]["step"].item()
    training.due = False
    training.step()
    assert_equal(snapshot(training, proposal), before)
    assert training.optimizer.state[proposal.encoding.static_table]["step"].item() == steps == 1
    assert not torch.equal(snapshot(training, field)[0], before_field[0])
    training.due = True
    training.step()
    assert not torch.equal(snapshot(training, proposal)[0], before[0])


@COMPUTES
@pytest.mark.parametrize("kept", [True, False], ids=["kept", "autograd"])
def test_a_resumed_training_goes_on_bit_for_bit(start, tmp_path, device, compute, kept):
    if device.type == "cuda" and not kept:
        pytest.skip("float atomics of a GPU add in any order")
    first = start(compute=compute, kept=kept)
    first.optimizer.loss_scale.fill_(20.0)
    for step in range(5):
        first.due = step != 3
        first.step()
    generator = torch.Generator(first.optimizer.loss_scale.device)
    folder = save_checkpoint(tmp_path, first.model, first.optimizer, generator.get_state(), State(5))
    second = start("training.seed=1", compute=compute, kept=kept)
    second.step()  # a state of its own, to be forgotten
    load_training(folder, second.model, second.optimizer, generator)
    second.count = 5
    for _ in range(3):
        for training in (first, second):
            training.step()
    for a, b in zip(first.model.fields(), second.model.fields(), strict=True):
        assert_equal(snapshot(second, b), snapshot(first, a))
    assert torch.equal(first.optimizer.loss_scale, second.optimizer.loss_scale)
