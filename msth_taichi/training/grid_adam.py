"""Adam for a field, with one launch for each part whose gradients are summed in fixed point.

Letters: W weights of a field's MLPs.
"""

import math
from collections.abc import Callable, Iterable

import torch
from torch.optim.adam import adam

from msth_taichi.kernels.cells import joined_constants
from msth_taichi.kernels.grid_adam import grid_adam_kernels
from msth_taichi.kernels.launch import Held
from msth_taichi.model.field import Field
from msth_taichi.model.renderer import RadianceField
from msth_taichi.ops.masked_encoding import Copies

BETAS = 0.9, 0.999

EPSILON = 1e-15
"""Makes Adam blind to the scale of a gradient, however small: the mask loss relies on it (released MSTH code)."""

# a loss scale that overflowed once is tried again some hundred steps later
_GROWTH = 1.001


class GridAdam:
    """Adam that takes from a field what `Field.keep_gradients` keeps, and the rest from autograd.

    A part without a gradient, such as a proposal in a step that does not train it, is not moved. With a loss
    scale, gradients are divided by it; a step with one that is not finite moves nothing and halves the scale.

    Not a `torch.optim.Optimizer`, which imports the whole of torch's compiler: a second of each start.

    Args:
        model: main field and proposals.
        learning_rate: of the next step; may be changed.
        loss_scale: what the loss is multiplied by before its backward pass, so that float16 gradients do not vanish;
            None where they are float32.

    Example:
        >>> optimizer = GridAdam(model, 1e-2)
        >>> loss.backward(optimizer.loss_scale)
        >>> optimizer.step()
    """

    def __init__(self, model: RadianceField, learning_rate: float, loss_scale: float | None = None):
        self.learning_rate = learning_rate
        self.state: dict[torch.Tensor, dict[str, torch.Tensor]] = {}
        """Of each parameter that has moved: `exp_avg` and `exp_avg_sq`, its moments, and `step`, their number."""
        self.fields = model.fields()
        self._parameters: list[torch.Tensor] = list(model.parameters())
        self.mask_weights: dict[Field, float] = {}
        """Weight of the mask loss of fields that keep their gradients: added here, where the mask is read anyway."""
        self.rates: dict[torch.Tensor, float] = {}
        """Factor of the learning rate of parameters that have one of their own."""
        self.decay = 0.0
        """Share of a table entry that is lost in each step of learning rate 1."""
        self.add: Callable[[Iterable[torch.Tensor]], None] = lambda tensors: None
        """Adds gradients up over the processes that train together."""
        self._scaled, self._limit = loss_scale is not None, loss_scale or 1.0
        device = next(model.parameters()).device
        # a number of its own in memory, so that kernels change it while the host runs ahead
        self._loss_scale = torch.full((1,), self._limit, device=device)
        self._overflow = torch.zeros(2, device=device)
        self._held: dict[Field, tuple[Copies | None, list[Held]]] = {}
        self._kept = {field: self._keep_state(field) for field in self.fields if field.flat is not None}

    @property
    def loss_scale(self) -> torch.Tensor:
        """Scalar on the device; 1 without a scale."""
        return self._loss_scale[0]

    def zero_grad(self) -> None:
        """Forget the gradients that autograd left."""
        for parameter in self._parameters:
            parameter.grad = None

    def forget(self) -> None:
        """Forget all gradients, kept ones too: of a backward pass that did not come to its end."""
        self.zero_grad()
        for field in self.fields:
            if field.encoding.sums is not None:
                field.encoding.sums.clear()
            if field.flat is not None:
                field.flat.gradients.zero_()

    @torch.no_grad()
    def step(self) -> None:
        """One step of everything that has a gradient."""
        moved, pending = self.meet()
        if moved:
            self._step_others(moved)
        for field in reversed(pending):  # the last one changes the scale that all divide by
            self._step_field(field, _GROWTH if field is pending[0] else 0.0)

    def meet(self) -> tuple[list[torch.Tensor], list[Field]]:
        """Add gradients up over the processes; returns which parameters and which fields have any."""
        moved = [p for p in self._parameters if p.grad is not None]
        pending = [f for f in self.fields if f.encoding.sums is not None and f.encoding.sums.pending]
        gradients = [p.grad for p in moved if p.grad is not None]
        for field in pending:
            sums, flat = field.encoding.sums, field.flat
            assert sums is not None and flat is not None
            total = sums.all
            if not field.encoding.static_table.requires_grad:
                sums.static.zero_()  # an entry that no gradient ever reached stays as it is
                total = sums.all[len(sums.static) :]
            gradients += [total, flat.gradients]
        self.add(gradients)
        return moved, pending

    def _step_others(self, parameters: list[torch.Tensor]) -> None:
        gradients = [p.grad for p in parameters if p.grad is not None]
        scale = overflow = None
        if self._scaled:
            # what torch's fused kernels read where a GradScaler is used
            scale = self.loss_scale.clone()
            overflow = (~torch.nn.utils.get_total_norm(gradients).isfinite()).float()
        for p in parameters:
            if p not in self.state:
                moments = {"exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
                self.state[p] = {"step": torch.zeros((), device=p.device), **moments}
        if self.decay:
            moved = set(parameters)
            lost = self.decay * self.learning_rate
            remains = 1 - lost if overflow is None else 1 - lost * (1 - overflow)
            for encoding in (field.encoding for field in self.fields):
                for table in (encoding.static_table, encoding.dynamic_table):
                    if table in moved:
                        table.mul_(remains)
        for rate in sorted({self.rates.get(p, 1.0) for p in parameters}):
            group = [p for p in parameters if self.rates.get(p, 1.0) == rate]
            states = [self.state[p] for p in group]
            adam(
                group,
                [p.grad for p in group],  # type: ignore[misc] chosen because they have one
                [state["exp_avg"] for state in states],
                [state["exp_avg_sq"] for state in states],
                [],
                [state["step"] for state in states],
                fused=True,
                grad_scale=scale,
                found_inf=overflow,
                amsgrad=False,
                beta1=BETAS[0],
                beta2=BETAS[1],
                lr=self.learning_rate * rate,
                weight_decay=0.0,
                eps=EPSILON,
                maximize=False,
            )
        # which does not tell those that keep copies of a table
        torch.autograd.graph.increment_version(parameters)
        if overflow is not None and not self._kept:  # else the last field's launch looks after the scale
            grown = (self._loss_scale * _GROWTH).clamp_(max=self._limit)
            self._loss_scale.copy_(torch.where(overflow > 0, self._loss_scale / 2, grown))

    def _step_field(self, field: Field, growth: float) -> None:
        encoding, flat = field.encoding, field.flat
        sums = encoding.sums
        assert sums is not None and flat is not None
        steps = self._kept[field][0]
        steps += 1
        count = steps.item()
        beta1, beta2 = BETAS
        held = self._held.get(field)
        # torch may have changed the tables, as a checkpoint does when it is loaded: then there are new copies
        if held is None or held[0] is not encoding.copies:
            held = self._held[field] = (encoding.copies, self._hold(field))
        grid_adam_kernels(flat.copies.dtype).step(
            *held[1],
            growth,
            self._limit,
            self.mask_weights.get(field, 0.0) / encoding.mask_spec.num_entries,
            beta1,
            beta2,
            self.learning_rate / (1 - beta1**count),
            1 - self.decay * self.learning_rate,
            1 / math.sqrt(1 - beta2**count),
            EPSILON,
            max(sums.specs[1].entries),
            max(sums.specs[2].entries),
        )
        sums.pending = False

    def _hold(self, field: Field) -> list[Held]:
        """All tensors that the launch of a field takes, in its order."""
        encoding, flat = field.encoding, field.flat
        sums = encoding.sums
        assert sums is not None and flat is not None
        _, averages, squares = self._kept[field]
        # without copies a table is read as it is
        copies = encoding.copies or [sums.static.new_empty(0, 1, dtype=torch.int32)] * 2
        tensors: list[torch.Tensor] = []
        tables = zip((encoding.static_table, encoding.dynamic_table), copies, (sums.static, sums.dynamic), strict=True)
        for table, copy, total in tables:
            state = self.state[table]
            moved = (x.view(torch.int64) for x in (table.detach(), state["exp_avg"], state["exp_avg_sq"]))
            tensors += [*moved, copy.view(torch.int32), total]
        mask, state = encoding.mask_logits.detach(), self.state[encoding.mask_logits]
        tensors += [joined_constants(sums.specs, mask.device, torch.float32)[1], sums.bounds, sums.scales]
        tensors += [mask, state["exp_avg"], state["exp_avg_sq"], sums.mask]
        tensors += [flat.values, averages, squares, flat.copies, flat.gradients, self._loss_scale, self._overflow]
        return [Held(tensor) for tensor in tensors]

    def load_moments(self, parameter: torch.Tensor, moments: dict[str, torch.Tensor]) -> None:
        """Continue a parameter where `exp_avg`, `exp_avg_sq` and `step` of an earlier optimiser stand."""
        state = self.state.setdefault(parameter, {})
        if state:  # kept: other tensors look at the same memory
            for key, value in moments.items():
                state[key].copy_(value)
        else:
            # the fused Adam keeps even the step count beside the parameter
            state.update({key: value.to(parameter.device) for key, value in moments.items()})

    def _keep_state(self, field: Field) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Make the state of all parameters of a field: its count of steps, and both moments of its MLPs (W,), of
        which the state of each weight is a view."""
        assert field.flat is not None
        steps = torch.zeros(())  # on the host, which corrects the biases
        for table in field.encoding.parameters():
            self.state[table] = {
                "step": steps, "exp_avg": torch.zeros_like(table), "exp_avg_sq": torch.zeros_like(table)
            }  # fmt: skip
        averages, squares = torch.zeros_like(field.flat.values), torch.zeros_like(field.flat.values)
        start = 0
        for weight in (weight for mlp in field.mlps() for weight in mlp.weights):
            part = slice(start, start + weight.numel())
            views = averages[part].view_as(weight), squares[part].view_as(weight)
            self.state[weight] = {"step": steps, "exp_avg": views[0], "exp_avg_sq": views[1]}
            start = part.stop
        return steps, averages, squares
