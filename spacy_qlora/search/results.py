"""What a search leaves beside its study: the best config, the trials as a table, figures and plots."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from typing import Any

from matplotlib import pyplot
from matplotlib.axes import Axes
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from optuna.visualization.matplotlib import plot_optimization_history, plot_param_importances
from thinc.api import Config

from spacy_qlora.engine.files import write_whole
from spacy_qlora.search import BEST, FIGURES, HISTORY, IMPORTANCE, TRIALS
from spacy_qlora.search.rows import is_own, row, settings, shown
from spacy_qlora.search.study import SharedStudy
from spacy_qlora.search.trial import trial_config

ENOUGH = 4  # complete trials for the importance of settings


def write_results(shared: SharedStudy, config: Config) -> None:
    """config: What all trials start from. Raises OSError where a file cannot be written."""
    with shared.lock:  # what another process wrote is never replaced by something older
        study, trials, best, folder = shared.study, shared.trials(), shared.best(), shared.folder
        importances = measure(study, trials)
        write_whole(folder / TRIALS, as_csv(trials, list(shared.space.own)))
        write_whole(folder / FIGURES, json.dumps(figures(trials, best, importances), indent=1) + "\n")
        if best:
            said = f"# Trial {best.number} of a search: {best.value:.4f} on the dev split."
            write_whole(folder / BEST, f"{said}\n\n{trial_config(config, best).to_str()}\n")
            write_whole(folder / HISTORY, draw(plot_optimization_history(study, target_name="Dev score")))
        if importances:
            evaluator = FanovaImportanceEvaluator(seed=0)
            write_whole(folder / IMPORTANCE, draw(plot_param_importances(study, evaluator, target_name="Dev score")))


def as_csv(trials: list[FrozenTrial], names: list[str]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, ["trial", "state", "reason", "score", "seconds", *names], lineterminator="\n")
    writer.writeheader()
    for trial in trials:
        writer.writerow({**row(trial), **{name: shown(value) for name, value in settings(trial).items()}})
    return text.getvalue()


def measure(study: Study, trials: list[FrozenTrial]) -> dict[str, float]:
    """The importance of each setting, as fANOVA sees it; empty where too few trials are complete."""
    scores = [trial.value for trial in trials if trial.state == TrialState.COMPLETE]
    if len(scores) < ENOUGH or len(set(scores)) == 1:
        return {}
    return get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))


def figures(trials: list[FrozenTrial], best: FrozenTrial | None, importances: dict[str, float]) -> dict[str, Any]:
    """For a report: how the trials ended, the config's own score and the best, and which settings matter."""
    rows = [row(trial) for trial in trials]
    own = next((trial for trial in trials if is_own(trial) and trial.state == TrialState.COMPLETE), None)
    return {
        "states": Counter(each["state"] for each in rows),
        "seconds": sum(each["seconds"] or 0 for each in rows),
        "own": own and {**row(own), "settings": settings(own)},
        "best": best and {**row(best), "settings": settings(best)},
        "importances": importances,
    }


def draw(axes: Axes) -> str:
    """The figure as SVG, without the time it was drawn."""
    text = io.StringIO()
    axes.figure.savefig(text, format="svg", bbox_inches="tight", metadata={"Date": None})  # type: ignore[union-attr]
    pyplot.close("all")
    return text.getvalue()
