"""What a training run is asked for, and what it tells. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class Progress:
    """Where a run stands.

    epoch, step: Finished ones.  position: Steps finished within the epoch.
    score, best: Of the last and the best evaluation, -1 before the first.  best_step: When that was.
    loss: Mean cross-entropy of a word since the last evaluation, in nats; over `words`.
    pieces, seconds: Trained and spent so far.  rate: Pieces a second in the last step.
    backed_off: Whether memory ran out once, so that micro-batches are halved since.
    due: Whether an evaluation is due that has not been made.
    """

    epoch: int = 0
    position: int = 0
    step: int = 0
    score: float = -1.0
    best: float = -1.0
    best_step: int = 0
    loss: float = 0.0
    words: int = 0
    pieces: int = 0
    seconds: float = 0.0
    rate: float = 0.0
    backed_off: bool = False
    due: bool = False


class StopRun(BaseException):
    """Raised by a hook to end a run that shall go on later. No error, so that no handler of errors takes it for one."""


@dataclass(frozen=True)
class Hooks:
    """What the loop calls.  evaluate: Gives the dev score.
    on_evaluation: After each evaluation; its second argument says whether it is the best so far.
    on_step: After each step.  `evaluate` and `on_step` may raise StopRun.
    """

    evaluate: Callable[[], float]
    on_evaluation: Callable[[Progress, bool], None] = lambda progress, best: None
    on_step: Callable[[Progress], None] = lambda progress: None


@dataclass(frozen=True)
class Schedule:
    """When to evaluate and to stop.  max_epochs, max_steps: 0 for no limit.
    eval_frequency: Evaluate after so many steps too, besides the end of each epoch; 0 for epochs alone.
    patience: Stop when so many steps brought nothing better; 0 for never.
    seed: Of the order of batches and of the dropout.
    """

    max_epochs: int = 0
    max_steps: int = 0
    eval_frequency: int = 0
    patience: int = 0
    seed: int = 0
