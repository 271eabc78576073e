"""The learning rate and the proposals' updates over a training, held to values of the released presets."""

import itertools

import pytest

from msth_taichi.config import TrainingConfig
from msth_taichi.training.schedules import learning_rate, proposals_are_due

EXPONENTIAL = TrainingConfig(learning_rate=1e-2, learning_rate_end=2e-4)


@pytest.mark.parametrize(
    ("steps", "step", "rate"),
    [
        (35000, 20000, 1.0694e-3),
        (75000, 40000, 1.2413e-3),
        (35000, 0, 1e-2),
        (35000, 35000, 2e-4),
        (35000, 90000, 2e-4),
    ],
)
def test_exponential_rates(steps, step, rate):
    config = EXPONENTIAL.model_copy(update={"schedule_steps": steps})
    assert learning_rate(step, config) == pytest.approx(rate, rel=1e-4)


@pytest.mark.parametrize(("step", "rate"), [(0, 1e-2), (10000, (1e-2 + 2e-5) / 2), (20000, 2e-5), (30000, 2e-5)])
def test_cosine_rates(step, rate):
    config = TrainingConfig(steps=20000, schedule="cosine", learning_rate=1e-2, learning_rate_end=2e-5)
    assert learning_rate(step, config) == pytest.approx(rate, rel=1e-9)


@pytest.mark.parametrize("schedule", ["exponential", "cosine"])
def test_the_rate_falls_at_every_step(schedule):
    config = TrainingConfig(steps=100, schedule=schedule)
    rates = [learning_rate(step, config) for step in range(101)]
    assert all(a > b for a, b in itertools.pairwise(rates))


def test_the_schedule_spans_the_training_unless_told():
    assert learning_rate(50, TrainingConfig(steps=50)) == pytest.approx(2e-4)
    assert learning_rate(50, TrainingConfig(steps=50, schedule_steps=100)) > 1e-3


def proposal_updates(steps: int) -> list[int]:
    """Steps that train the proposals, counted as the trainer does."""
    updates, since = [], 1
    for step in range(steps):
        if proposals_are_due(step, since):
            updates.append(step)
            since = 1
        else:
            since += 1
    return updates


def test_proposals_are_updated_ever_more_rarely():
    updates = proposal_updates(20000)
    pauses = dict(zip(updates[1:], (b - a for a, b in itertools.pairwise(updates)), strict=True))

    def between(low: int, high: int) -> set[int]:
        return {pause for step, pause in pauses.items() if low < step < high}

    assert updates[:10] == list(range(10))
    assert between(0, 10) == {1}
    # the released code says: more than min(max(step / 1000, 1), 5) steps since the last
    assert between(12, 1000) == {2}
    assert between(1000, 2000) == {2}
    assert between(2005, 2995) == {3}
    assert between(4005, 4995) == {5}
    assert between(5010, 20000) == {6}
    # 2000 / 2 + 1000 / 3 + 1000 / 4 + 1000 / 5 + 15000 / 6, and five more among the first ten steps
    assert len(updates) == pytest.approx(4288, abs=3)
