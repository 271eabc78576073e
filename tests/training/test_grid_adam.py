"""The optimiser of fields that keep their gradients: torch's Adam on the same numbers, in one launch."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from msth_taichi.config import LossConfig
from msth_taichi.model.field import Field
from msth_taichi.model.losses import losses, masked_fields
from msth_taichi.model.renderer import RadianceField
from msth_taichi.training.checkpoint import State, load_training, save_checkpoint
from msth_taichi.training.grid_adam import EPSILON, GridAdam
from tests.comparison import assert_close, assert_gradients_close
from tests.settings import changed

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
@pytest.mark.parametrize("settings", [(), ("field.mask_times=3",)], ids=["mask of space", "mask of times"])
def test_moves_as_torchs_adam_on_the_same_gradients(start, compute, settings):
    """Tables, masks with the pull of their loss, and MLPs, through steps that leave the proposals out."""
    training = start(*settings, compute=compute)
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


DECAY = 3.0


def tables_of(field: Field) -> tuple[torch.Tensor, torch.Tensor]:
    return field.encoding.static_table, field.encoding.dynamic_table


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "autograd"])
@pytest.mark.parametrize("due", [True, False])
def test_tables_lose_a_share_before_they_move_and_nothing_else_does(start, device, kept, due):
    """As if somebody had scaled them by 1 - decay * rate after the gradients were found. Kept or not, in fields
    that move alone; and of those that keep their gradients, in entries that one has ever reached."""
    decaying, scaled, plain = (start(kept=kept, loss_scale=float(RAYS) if kept else None) for _ in range(3))
    for training in (decaying, scaled, plain):
        training.step()
        training.due = due
        training.backward()
    before = {name: p.detach().clone() for name, p in decaying.model.named_parameters()}
    remains = 1 - DECAY * RATE
    with torch.no_grad():
        for field in scaled.model.fields() if due else [scaled.model.field]:
            for table in tables_of(field):
                moments = scaled.optimizer.state[table]
                reached = (moments["exp_avg_sq"] != 0).any(1, keepdim=True) if kept else torch.ones_like(table[:, :1])
                if kept:  # and those that this very step reaches
                    reached |= (kept_gradients(field)[table] != 0).any(1, keepdim=True)
                table.mul_(torch.where(reached > 0, remains, 1.0))
    decaying.optimizer.decay = DECAY
    for training in (decaying, scaled, plain):
        training.optimizer.step()
    others = dict(scaled.model.named_parameters()), dict(plain.model.named_parameters())
    for name, parameter in decaying.model.named_parameters():
        of_scaled, of_plain = (other[name] for other in others)
        if kept:
            # the kernel may round the product and the sum at once
            assert_close(parameter, of_scaled, 1e-6)
        elif device.type == "cpu":
            assert torch.equal(parameter, of_scaled), name
        if "table" in name and (due or name.startswith("field")):
            assert parameter.norm() < of_plain.norm() and not torch.equal(parameter, of_plain)
        elif device.type == "cpu" or kept:
            assert torch.equal(parameter, of_plain), f"{name} decays"
    if not due:
        for name, parameter in decaying.model.named_parameters():
            if name.startswith("proposals"):
                assert torch.equal(parameter, before[name]), f"{name} moves though it is not due"


@COMPUTES
def test_kept_tables_decay_as_those_of_torchs_adam(start, compute):
    """Through several steps, on the same gradients; the copies that the next step reads follow."""
    training = start(compute=compute)
    training.optimizer.decay = DECAY
    field = training.model.field
    tables = tables_of(field)
    twins = [table.detach().clone().requires_grad_() for table in tables]
    reached = [torch.zeros_like(table[:, :1], dtype=torch.bool) for table in tables]
    adam = torch.optim.Adam(twins, lr=RATE, eps=EPSILON)
    for step in range(8):
        training.optimizer.learning_rate = adam.param_groups[0]["lr"] = rate = RATE * 0.8**step
        training.backward()
        gradients = kept_gradients(field)
        with torch.no_grad():
            for table, twin, touched in zip(tables, twins, reached, strict=True):
                twin.grad = gradients[table] / training.optimizer.loss_scale
                touched |= (gradients[table] != 0).any(1, keepdim=True)
                twin.mul_(torch.where(touched, 1 - DECAY * rate, 1.0))
        adam.step()
        training.optimizer.step()
        training.count += 1
    for table, twin, touched in zip(tables, twins, reached, strict=True):
        assert 0.1 < touched.float().mean() < 1
        assert_close(table, twin, 1e-4)
    if compute == torch.float16:
        for copy, table in zip(field.encoding.copies_in(compute), tables, strict=True):
            assert torch.equal(copy, table.half())


def test_parameters_have_rates_of_their_own(start, make_model):
    """Factors of the rate that follow it when it changes: torch's Adam with a group for each."""
    training, twin = start(kept=False, loss_scale=None), make_model()
    slow, fast = "field.encoding.static_table", "field.color_mlp.weights.0"
    factors = {slow: 0.1, fast: 5.0}
    training.optimizer.rates = {dict(training.model.named_parameters())[name]: f for name, f in factors.items()}
    adam = torch.optim.Adam(
        [{"params": [p], "name": name} for name, p in twin.named_parameters()], lr=RATE, eps=EPSILON
    )
    for step in range(3):
        rate = training.optimizer.learning_rate = RATE * 0.5**step
        training.backward()
        for group in adam.param_groups:
            group["lr"] = rate * factors.get(group["name"], 1.0)
        for parameter, other in zip(training.model.parameters(), twin.parameters(), strict=True):
            other.grad = parameter.grad.clone()
        training.optimizer.step()
        adam.step()
        training.count += 1
    for parameter, other in zip(training.model.parameters(), twin.parameters(), strict=True):
        assert_close(parameter, other, 1e-5)
    plain = start(kept=False, loss_scale=None)
    plain.step()
    again = start(kept=False, loss_scale=None)
    again.optimizer.rates = {dict(again.model.named_parameters())[name]: 0.0 for name in factors}
    again.step()
    fresh = dict(make_model().named_parameters())
    for (name, parameter), other in zip(again.model.named_parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(parameter, fresh[name] if name in factors else other) or parameter.is_cuda, name


class Coloured(Training):
    """Of a model that learns colours of three cameras as well, whose rays take turns."""

    def __init__(self, model: RadianceField, make_rays, **options):
        device = model.field.encoding.mask_logits.device
        config = changed(model.config, "cameras.colors=affine")
        coloured = RadianceField(config, 1.0, torch.arange(3))
        coloured.load_state_dict(coloured.state_dict() | model.state_dict())
        super().__init__(coloured.to(device), make_rays, **options)

    def backward(self) -> None:
        make_rays = self.make_rays

        def of_cameras(*arguments, **options):
            rays = make_rays(*arguments, **options)
            return replace(rays, camera=torch.arange(len(rays), device=rays.times.device) % 3)

        self.make_rays = of_cameras
        super().backward()
        self.make_rays = make_rays


@COMPUTES
def test_what_autograd_moves_beside_kept_fields_leaves_their_scale_alone(make_model, make_rays, compute):
    """An overflow of theirs keeps them where they are; it says nothing of float16, so the scale stays."""
    spoilt, clean = (Coloured(make_model(), make_rays, compute=compute) for _ in range(2))
    for training in (spoilt, clean):
        training.step()
        training.optimizer.loss_scale.fill_(20.0)
        training.backward()
    colors = spoilt.model.colors.values
    before = colors.detach().clone()
    assert before.any(), "colours move beside kept fields"
    spoilt.model.colors.values.grad[0, 0] = float("inf")
    for training in (spoilt, clean):
        training.optimizer.step()
    assert torch.equal(colors, before) and not torch.equal(clean.model.colors.values, before)
    assert spoilt.optimizer.loss_scale.item() == clean.optimizer.loss_scale.item() == pytest.approx(20.02, rel=1e-5)
    for a, b in zip(spoilt.model.fields(), clean.model.fields(), strict=True):
        assert_equal(snapshot(spoilt, a), snapshot(clean, b))


def test_the_scale_of_the_loss_divides_gradients_of_all(make_model, make_rays):
    one, other = (Coloured(make_model(), make_rays, loss_scale=scale) for scale in (4.0, 4096.0))
    for training in (one, other):
        for _ in range(2):
            training.step()
    assert one.model.colors.values.abs().max() > 0.5 * RATE
    assert_close(one.model.colors.values, other.model.colors.values, 1e-4)


@COMPUTES
def test_gradients_of_two_passes_add_up_until_a_step_forgets_them(start, compute):
    """What losses that look at a field twice rely on."""
    once, twice = start(compute=compute), start(compute=compute)
    once.backward()
    twice.backward()
    twice.backward()
    for a, b in zip(once.model.fields(), twice.model.fields(), strict=True):
        pairs = zip(kept_gradients(a).values(), kept_gradients(b).values(), strict=True)
        for single, double in pairs:
            assert_gradients_close(double, 2 * single.float(), 1e-5 if compute == torch.float32 else 5e-3)
    twice.optimizer.step()
    for field in twice.model.fields():
        assert not field.encoding.sums.pending
        assert all(not gradient.any() for gradient in kept_gradients(field).values())
    twice.backward()
    alone = start(compute=compute)
    alone.model.load_state_dict(twice.model.state_dict())
    alone.backward()
    for a, b in zip(alone.model.fields(), twice.model.fields(), strict=True):
        for single, other in zip(kept_gradients(a).values(), kept_gradients(b).values(), strict=True):
            assert_gradients_close(other, single, 1e-5 if compute == torch.float32 else 5e-3)
