"""The trials of a search, in an SQLite file that several processes work on and that outlives each of them."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import optuna
from filelock import FileLock, Timeout
from optuna.distributions import distribution_to_json
from optuna.exceptions import OptunaError
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy import URL
from sqlalchemy.exc import SQLAlchemyError

from spacy_qlora.errors import InputError
from spacy_qlora.search.space import Space

FILE, LOCK = "study.db", ".lock"
# What a trial may end by and still counts as one; no other error is the trial's own. The latter come before it starts:
# too little memory, and settings that do not go together.
FAILURES, TOO_LARGE, IMPOSSIBLE = ("Q402", "Q415", "Q416"), "Q414", "Q210"
REPEATED = "repeated"
RANDOM = 5  # trials before TPE learns from them
COMPLETE = 2  # trials before others are pruned by their median
VAIN = 50  # trials in a row that cost no run: the space holds nothing new that fits
KILLS = 3  # of the process that ran it, and a trial is not tried again


@dataclass(frozen=True)
class Taken:
    """A trial that this process runs.  folder: For its files, gone once it is given back.  lock: Shows that it runs."""

    trial: Trial
    folder: Path
    lock: FileLock


@dataclass(frozen=True)
class Outcome:
    """How a trial ended.  value: The best score, of a complete one.  reason: The code of the error, of others."""

    state: TrialState
    value: float | None = None
    reason: str = ""


class SharedStudy:
    """A study in a folder.

    Each trial is locked by the process that runs it. The system gives up the lock of a process that is killed, so that
    any other knows at once; the same settings are then tried again.

    folder (Path): Of the study and its trials' files.  space (Space): See there.  study (Study): Optuna's.
    lock (FileLock): To be held while several things have to fit together.
    """

    def __init__(self, folder: Path, space: Space, made_of: Mapping[str, object], seed: int) -> None:
        """made_of: What all trials have in common, to be the same when the search goes on.  seed: Of what is tried.

        Raises InputError where the folder holds another search, or its file is damaged.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.space, self.seed = folder, space, seed
        self.lock = FileLock(folder / LOCK)
        with self.lock:
            try:
                self.study = self._open()
            except (SQLAlchemyError, OptunaError, RuntimeError, AssertionError) as error:
                raise InputError("Q603", path=folder / FILE) from error
            self._require(made_of)
            if not self.study.get_trials(deepcopy=False):
                self.study.enqueue_trial(space.own, user_attrs={"own": True})

    def _open(self) -> Study:
        url = URL.create("sqlite", database=str(self.folder.absolute() / FILE)).render_as_string()
        storage = optuna.storages.RDBStorage(url, engine_kwargs={"connect_args": {"timeout": 60}})
        pruner = optuna.pruners.MedianPruner(COMPLETE)
        return optuna.create_study(
            storage=storage, study_name="search", direction="maximize", load_if_exists=True, pruner=pruner
        )

    def _require(self, made_of: Mapping[str, object]) -> None:
        space = {name: distribution_to_json(each) for name, each in self.space.distributions.items()}
        now = {**made_of, "space": space}
        before = self.study.user_attrs.get("made_of")
        if before is None:
            self.study.set_user_attr("made_of", now)
        elif changed := [name for name in now if now[name] != before.get(name)]:
            raise InputError("Q601", path=self.folder, changed=", ".join(changed))

    def trials(self) -> list[FrozenTrial]:
        """All that were begun, in the order of their numbers, but for settings that were drawn again."""
        return [trial for trial in self._drawn() if trial.user_attrs.get("reason") != REPEATED]

    def _drawn(self) -> list[FrozenTrial]:
        return [trial for trial in self.study.get_trials() if trial.state != TrialState.WAITING]

    def best(self) -> FrozenTrial | None:
        complete = [trial for trial in self.trials() if trial.state == TrialState.COMPLETE]
        return max(complete, key=lambda trial: trial.value or 0.0, default=None)

    def take(self, most: float) -> Taken | None:
        """The next trial; None where so many were run or are under way, or where the space holds nothing new."""
        with self.lock:
            self._give_up_lost()
            while True:
                trials = self._drawn()
                if sum(map(is_run, trials)) >= most or (not any(map(is_run, trials[-VAIN:])) and len(trials) >= VAIN):
                    return None
                # By the number of trials: the same search tries the same again, also where processes take turns.
                self.study.sampler = optuna.samplers.TPESampler(
                    n_startup_trials=RANDOM, constant_liar=True, seed=self.seed + len(trials)
                )
                trial = self.study.ask(self.space.distributions)
                if not any(is_known(each) and each.params == trial.params for each in trials):
                    return self._claim(trial)
                trial.set_user_attr("reason", REPEATED)
                self.study.tell(trial, state=TrialState.FAIL)

    def _claim(self, trial: Trial) -> Taken:
        folder = self._place(trial.number)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        lock = FileLock(folder / LOCK)
        lock.acquire()
        return Taken(trial, folder, lock)

    def finish(self, taken: Taken, outcome: Outcome) -> None:
        with self.lock:
            if outcome.reason:
                taken.trial.set_user_attr("reason", outcome.reason)
            self.study.tell(taken.trial, outcome.value, outcome.state)
            self._clear(taken)

    def give_back(self, taken: Taken) -> None:
        """The trial has not run to its end: the same settings shall be tried again."""
        with self.lock:
            self._again(taken.trial, kills=0)
            self._clear(taken)

    def _clear(self, taken: Taken) -> None:
        taken.lock.release()
        shutil.rmtree(taken.folder, ignore_errors=True)

    def _give_up_lost(self) -> None:
        """Trials whose process is gone, and the folders that killed ones left."""
        own = (path for path in self.folder.glob("trial-*") if re.fullmatch(r"trial-\d+", path.name) and path.is_dir())
        dead = {path for path in own if not is_held(path / LOCK)}
        for trial in self.trials():
            place = self._place(trial.number)
            if trial.state == TrialState.RUNNING and (place in dead or not place.exists()):
                self._again(trial, kills=1)
        for path in dead:
            shutil.rmtree(path, ignore_errors=True)

    def _again(self, trial: Trial | FrozenTrial, kills: int) -> None:
        """kills: How often, since it was taken, the process that ran it was killed."""
        kills += trial.user_attrs.get("kills", 0)
        if kills < KILLS:  # first, so that a process killed in between leaves it twice rather than never
            self.study.enqueue_trial(trial.params, user_attrs={**trial.user_attrs, "kills": kills})
        self.study.tell(trial.number, state=TrialState.FAIL)

    def _place(self, number: int) -> Path:
        return self.folder / f"trial-{number}"


def is_study(folder: Path) -> bool:
    """Whether a search has been there, or another process begins one right now."""
    return (folder / FILE).exists() or (folder / LOCK).exists()


def is_run(trial: FrozenTrial) -> bool:
    """Whether it counts: it runs, or ran to an end of its own."""
    reason = trial.user_attrs.get("reason")
    return reason in FAILURES if trial.state == TrialState.FAIL else reason not in (TOO_LARGE, IMPOSSIBLE)


def is_known(trial: FrozenTrial) -> bool:
    """Whether there is nothing to gain from trying its settings again."""
    return is_run(trial) or trial.state == TrialState.PRUNED


def is_held(lock: Path) -> bool:
    """Whether a process holds the lock."""
    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True
