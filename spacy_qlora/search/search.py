"""Trial after trial on a study, until there are as many as there shall be."""

from __future__ import annotations

import time
import warnings
from dataclasses import asdict
from pathlib import Path

import matplotlib
import optuna
from optuna.exceptions import OptunaError
from optuna.trial import TrialState
from sqlalchemy.exc import SQLAlchemyError
from thinc.api import Config
from wasabi import msg

from spacy_qlora.engine.files import require_place
from spacy_qlora.engine.plan import usual_job
from spacy_qlora.errors import InputError, RunError
from spacy_qlora.search import BEST, IMPORTANCE, TRIALS
from spacy_qlora.search.display import Display
from spacy_qlora.search.results import ENOUGH, write_results
from spacy_qlora.search.rows import is_own, shown
from spacy_qlora.search.space import Space, ends, make_space
from spacy_qlora.search.study import FILE, IMPOSSIBLE, Outcome, SharedStudy, Taken, is_study
from spacy_qlora.search.trial import Runner, with_settings
from spacy_qlora.training.config import resolve
from spacy_qlora.training.corpus import digest, read_corpus
from spacy_qlora.training.plan import make_untrained
from spacy_qlora.training.run import Run, digest_config, prepare
from spacy_qlora.training.stop import stop_on_signals


def search(path: Path, config: Config, output: Path, space: str, trials: float, minutes: float) -> None:
    """Runs trials on the study in `output`, which is made or goes on, and writes what they gave after each.

    path: Of the config, for errors.  space: As in `make_space`.  trials: How many there shall be in the study.
    minutes: After so many, this process begins no other.
    Raises InputError where something given is wrong, RunError where no trial came to its end, and StopRun with the
    number of a signal that came.
    """
    until = time.monotonic() + 60 * minutes
    quieten()
    require_place(output, is_ours=is_study)
    given = prepare(path, config)
    classifier = given.ner.model.classifier
    base, job = classifier.base, usual_job(classifier, given.windows, given.config.loop)  # all trials share this base
    config = filled(given)
    seed, fixed = given.config.schedule.seed, made_of(path, given, config)
    made = make_space(space, given, config)
    check_values(space, made, path, config)
    shared = SharedStudy(output, made, fixed, seed)
    del given, classifier  # its adapter, but not the base
    print(f"{base.info.id}, searched over\n{shared.space}")
    try:
        with stop_on_signals() as stop, Display(shared, trials) as display:
            runner = Runner(path, config, job, stop, display)
            while time.monotonic() < until and (taken := shared.take(trials)):
                run_trial(runner, shared, taken)
                write_results(shared, config)
                display.finished(taken.trial.number)
    except (SQLAlchemyError, OptunaError) as error:
        raise RunError("Q605", path=output / FILE) from error
    conclude(shared)


def check_values(name: str, space: Space, path: Path, config: Config) -> None:
    """Raises InputError where a value, in place of the config's own, makes no config.

    name: Of the space, for errors.  path: Of the config.
    """
    for key, values in space.distributions.items():
        for value in ends(values):
            try:
                resolve(path, make_untrained(path, with_settings(config, {key: value})))
            except InputError as error:
                problem = f"{key} cannot be {shown(value)}: {error}".rstrip(".")
                raise InputError("Q602", path=name, problem=problem) from error


def run_trial(runner: Runner, shared: SharedStudy, taken: Taken) -> None:
    """The trial is given back where anything but its own end ends it, or settings that would do so each time."""
    try:
        outcome = runner.run(taken)
    except BaseException as error:
        if isinstance(error, InputError) and error.code == IMPOSSIBLE:
            shared.finish(taken, Outcome(TrialState.PRUNED, reason=IMPOSSIBLE))
        else:
            shared.give_back(taken)
        raise
    shared.finish(taken, outcome)


def quieten() -> None:
    """No word from optuna beside our own, and no window for a plot."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    matplotlib.use("Agg")


def filled(run: Run) -> Config:
    """The config of a run with the defaults that it leaves out, so that each setting of a space has a value."""
    config, settings = run.nlp.config.copy(), run.config
    config["qlora"] = {**asdict(settings.loop), **config.get("qlora", {})}
    optimizer = config["training"]["optimizer"]
    config["training"]["optimizer"] = {**asdict(settings.training["optimizer"].settings), **optimizer}
    return config


def made_of(path: Path, run: Run, config: Config) -> dict[str, object]:
    """What all trials have in common: their scores compare only while it stays as it is.

    config: What they start from.
    """
    train = (example.reference for example in read_corpus(path, "train", run.config.train, run.nlp))
    base = run.ner.model.classifier.base.info.fingerprint
    return {**run.made_of, "config": digest_config(config, run.ner.name), "train": digest(train), "base": base}


def conclude(shared: SharedStudy) -> None:
    """Says what came out. Raises RunError where no trial came to its end."""
    trials, best = shared.trials(), shared.best()
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    if any(trial.state == TrialState.RUNNING for trial in trials):
        msg.info("Another process still runs a trial, and will write what comes of it.")
    elif best is None and trials:
        raise RunError("Q604", path=shared.folder / TRIALS, count=len(trials))
    if best is None:
        return
    if len(complete) < ENOUGH:
        msg.info(f"No {IMPORTANCE}: that takes {ENOUGH} complete trials, and there are {len(complete)}.")
    given = "".join(f", and {trial.value:.4f} with the config as given" for trial in complete if is_own(trial))
    msg.good(f"{shared.folder / BEST}: {best.value:.4f} on the dev split{given}")
