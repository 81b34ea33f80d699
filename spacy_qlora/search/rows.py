"""A trial in a few words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, Trial, TrialState

DIGITS = 3  # of a number that was drawn from a range


def is_own(trial: FrozenTrial | Trial) -> bool:
    """Whether it is the config as given."""
    return bool(trial.user_attrs.get("own"))


def settings(trial: FrozenTrial | Trial) -> dict[str, Any]:
    """What a trial trains with, by dotted names."""
    if is_own(trial):
        return dict(trial.params)
    drawn = {name for name, each in trial.distributions.items() if isinstance(each, FloatDistribution)}
    return {name: float(f"{value:.{DIGITS}g}") if name in drawn else value for name, value in trial.params.items()}


def row(trial: FrozenTrial) -> dict[str, Any]:
    """score: The best so far on the dev split.  reason: The code of the error, if any.  seconds: None while it runs."""
    scores = list(trial.intermediate_values.values())
    score = trial.value if trial.value is not None else max(scores, default=None)
    stopped = trial.state == TrialState.FAIL and "reason" not in trial.user_attrs
    return {
        "trial": trial.number,
        "state": "stopped" if stopped else trial.state.name.lower(),
        "reason": trial.user_attrs.get("reason", ""),
        "score": None if score is None else round(score, 4),
        "seconds": round(trial.duration.total_seconds()) if trial.duration else None,
    }


def changes(trial: FrozenTrial, own: Mapping[str, Any]) -> str:
    """The settings that differ from the config's own, by the last part of their names."""
    changed = [(name.rpartition(".")[2], value) for name, value in settings(trial).items() if value != own[name]]
    return ", ".join(f"{name} {shown(value)}" for name, value in changed) or "as given"


def shown(value: object) -> str:
    """As a config spells it."""
    return "null" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
