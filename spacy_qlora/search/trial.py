"""One trial: a run of the engine's loop with some settings changed, given up where it falls behind the others."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState
from spacy.training.loop import create_evaluation_callback
from thinc.api import Config

from spacy_qlora.engine.memory import Job, forget_peak, is_out_of_memory
from spacy_qlora.engine.plan import fit
from spacy_qlora.engine.progress import Hooks, Progress
from spacy_qlora.engine.settings import read_size
from spacy_qlora.errors import QLoRAError
from spacy_qlora.search.display import Display
from spacy_qlora.search.rows import is_own, settings
from spacy_qlora.search.study import FAILURES, TOO_LARGE, Outcome, Taken
from spacy_qlora.training.config import read_loop_settings
from spacy_qlora.training.plan import LEAD, read_ner_settings
from spacy_qlora.training.run import Run, prepare
from spacy_qlora.training.stop import Stop

# A trial is compared with others after each sixth of its steps, the first time when its rates have risen, and evaluated
# at least so often.
PARTS = 6


def trial_config(config: Config, trial: Trial | FrozenTrial) -> Config:
    """The config with a trial's settings: `spacy qlora train` gives the same score with it."""
    changed = with_settings(config, settings(trial))
    if "eval_frequency" in trial.user_attrs:
        changed["training"]["eval_frequency"] = trial.user_attrs["eval_frequency"]
    return changed


def with_settings(config: Config, values: Mapping[str, Any]) -> Config:
    """values: By dotted names, which the config has."""
    changed = config.copy()
    for name, value in values.items():
        *sections, key = name.split(".")
        place: Any = changed
        for section in sections:
            place = place[section]
        place[key] = value
    return changed


@dataclass(frozen=True)
class Runner:
    """Runs trials.

    path: Of the config, for errors.  config: What all trials start from.  job: Its run, for the plan of others' memory.
    """

    path: Path
    config: Config
    job: Job
    stop: Stop
    display: Display

    def run(self, taken: Taken) -> Outcome:
        """Raises InputError where the settings are wrong, and StopRun where a signal came."""
        try:
            return Outcome(TrialState.COMPLETE, self._train(taken))
        except optuna.TrialPruned:
            return Outcome(TrialState.PRUNED)
        except QLoRAError as error:
            if error.code not in (*FAILURES, TOO_LARGE):
                raise
            return Outcome(TrialState.PRUNED if error.code == TOO_LARGE else TrialState.FAIL, reason=error.code)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return Outcome(TrialState.FAIL, reason="Q415")
        finally:
            gc.collect()  # a trial's tensors, before the next one needs the room

    def _train(self, taken: Taken) -> float:
        """RETURNS: The best score on the dev split."""
        config = trial_config(self.config, taken.trial)
        with self.stop.at_once():
            self._require_memory(config)
            run = prepare(self.path, config)
            loop = run.make_loop(checkpoints=None)
        forget_peak(loop.classifier.device)  # that of the trials before
        sixth = math.ceil(loop.total_steps / PARTS)
        if sixth and not 0 < loop.schedule.eval_frequency <= sixth:
            loop.schedule = replace(loop.schedule, eval_frequency=sixth)
            taken.trial.set_user_attr("eval_frequency", loop.schedule.eval_frequency)
        with self.display.steps(taken.trial.number, loop) as show:
            return loop.run(self._hooks(run, loop.total_steps, taken.trial, show)).best

    def _require_memory(self, config: Config) -> None:
        """Raises InputError where no plan makes a trial fit its budget, before anything is read or made for it."""
        loop = read_loop_settings(self.path, config["qlora"])
        if loop.memory_budget:
            settings, job = read_ner_settings(self.path, config), self.job
            length, words_a_piece = min(job.length, settings.max_pieces + LEAD), job.words / job.pieces
            job = Job.usual(job.shape, settings.classifier, loop, job.tags, length, words_a_piece, job.size, job.device)
            fit(job, loop.accumulate, read_size(loop.memory_budget))

    def _hooks(self, run: Run, steps: int, trial: Trial, show: Callable[[Progress], None]) -> Hooks:
        """steps: Of the whole run; 0 if it has no end, and then it is compared after each epoch."""
        weighted = create_evaluation_callback(run.nlp, run.config.dev, run.config.training["score_weights"])
        reported = 0

        def evaluate() -> float:
            with self.stop.at_once():
                return weighted()[0]

        def on_evaluation(progress: Progress, best: bool) -> None:
            nonlocal reported
            part = round(PARTS * progress.step / steps) if steps else progress.epoch
            if part > reported:
                reported = part
                trial.report(progress.best, part)
                if trial.should_prune() and not is_own(trial):
                    raise optuna.TrialPruned

        def on_step(progress: Progress) -> None:
            show(progress)
            self.stop.check()

        return Hooks(evaluate, on_evaluation, on_step)
