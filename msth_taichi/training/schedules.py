"""What changes over a training: the learning rate, and how often the proposals are updated."""

import math

from msth_taichi.config import TrainingConfig

# released MSTH code, after nerfacto: the pause between updates grows to 5 steps over the first 5000
_PROPOSAL_PAUSE = 5.0
_PROPOSAL_WARMUP = 5000
_PROPOSAL_ALWAYS = 10


def learning_rate(step: int, config: TrainingConfig) -> float:
    """Adam's rate at a step, with t = min(step / schedule_steps, 1):

        exponential: lr0^(1 - t) lr1^t          cosine: lr1 + (lr0 - lr1) (1 + cos pi t) / 2

    Example:
        >>> round(learning_rate(20000, TrainingConfig(schedule_steps=35000)), 7)
        0.0010694
    """
    t = min(step / (config.schedule_steps or config.steps), 1.0)
    start, end = config.learning_rate, config.learning_rate_end
    if config.schedule == "cosine":
        return end + (start - end) * (1 + math.cos(math.pi * t)) / 2
    return start ** (1 - t) * end**t


def proposals_are_due(step: int, since_update: int) -> bool:
    """Whether a step trains the proposals, which change slowly once the scene stands.

    Args:
        step: of the training.
        since_update: steps since the last one that trained them, itself included: 1 right after it.

    Example:
        >>> proposals_are_due(3, 1), proposals_are_due(6000, 5), proposals_are_due(6000, 6)
        (True, False, True)
    """
    pause = min(max(step / _PROPOSAL_WARMUP * _PROPOSAL_PAUSE, 1.0), _PROPOSAL_PAUSE)
    return step < _PROPOSAL_ALWAYS or since_update > pause
