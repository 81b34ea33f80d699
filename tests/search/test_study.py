"""A study that several processes share, and what becomes of a trial when one of them is gone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState

from spacy_qlora.errors import InputError
from spacy_qlora.search import study as module
from spacy_qlora.search.space import Space
from spacy_qlora.search.study import KILLS, Outcome, SharedStudy, Taken

OWN = {"r": 16, "rate": 4e-4}
SPACE = Space({"r": CategoricalDistribution([8, 16]), "rate": FloatDistribution(1e-4, 1e-3, log=True)}, OWN)
MADE_OF = {"config": "one", "corpus": "two"}


def opened(folder: Path, space: Space = SPACE, **made_of: str) -> SharedStudy:
    return SharedStudy(folder, space, {**MADE_OF, **made_of}, seed=0)


def taken(study: SharedStudy, most: float = 9) -> Taken:
    found = study.take(most)
    assert found is not None
    return found


def complete(study: SharedStudy, value: float = 0.5) -> dict[str, object]:
    each = taken(study)
    study.finish(each, Outcome(TrialState.COMPLETE, value))
    return each.trial.params


def killed(study: SharedStudy, most: float = 9) -> dict[str, object]:
    """Takes a trial as a process does that is killed: the system gives up its lock, and no more."""
    each = taken(study, most)
    each.lock.release()
    return each.trial.params


def folders(study: SharedStudy) -> list[str]:
    return sorted(path.name for path in study.folder.glob("trial-*"))


def test_the_config_as_given_comes_first(tmp_path: Path) -> None:
    study = opened(tmp_path)
    assert complete(study) == OWN
    assert complete(study) != OWN
    assert study.take(2) is None
    assert folders(study) == []


def test_processes_share_the_trials(tmp_path: Path) -> None:
    one, other = opened(tmp_path), opened(tmp_path)
    first, second = taken(one, 2), taken(other, 2)
    assert first.trial.number != second.trial.number
    assert first.trial.params != second.trial.params
    assert folders(one) == ["trial-0", "trial-1"]
    assert one.take(2) is None, "those that run count"
    other.finish(second, Outcome(TrialState.COMPLETE, 0.7))
    one.finish(first, Outcome(TrialState.COMPLETE, 0.6))
    assert one.best() == other.best()
    assert (best := one.best()) is not None
    assert best.value == 0.7


def test_a_trial_whose_process_was_killed_is_run_again(tmp_path: Path) -> None:
    study = opened(tmp_path)
    complete(study)
    lost = killed(study)
    again = taken(opened(tmp_path), 2)
    assert again.trial.params == lost
    assert again.trial.number == 2
    assert [trial.state for trial in study.trials()][:2] == [TrialState.COMPLETE, TrialState.FAIL]
    assert folders(study) == ["trial-2"], "what the killed one left is gone"
    (tmp_path / "trial-notes").mkdir()
    (tmp_path / "trial-7").touch()
    opened(tmp_path).take(2)
    assert {"trial-7", "trial-notes"} < set(folders(study)), "what it did not make stays"
    assert study.take(2) is None, "and it does not count"


def test_settings_that_kill_each_process_are_given_up(tmp_path: Path) -> None:
    study = opened(tmp_path)
    assert [killed(study) for _ in range(KILLS)] == [OWN] * KILLS
    assert taken(study).trial.params != OWN


def test_a_trial_that_was_given_back_is_run_again(tmp_path: Path) -> None:
    study = opened(tmp_path)
    for _ in range(KILLS + 1):
        study.give_back(each := taken(study))
        assert each.trial.params == OWN
    assert folders(study) == []


@pytest.mark.parametrize(("reason", "counts"), [("Q402", True), ("Q415", True), ("Q414", False)])
def test_which_trials_count(tmp_path: Path, reason: str, counts: bool) -> None:
    study = opened(tmp_path)
    state = TrialState.PRUNED if reason == "Q414" else TrialState.FAIL
    study.finish(taken(study, 1), Outcome(state, reason=reason))
    assert (study.take(1) is None) == counts
    assert study.best() is None


def test_no_settings_are_run_twice_and_a_space_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "VAIN", 20)
    study = opened(tmp_path, Space({"r": CategoricalDistribution([4, 8, 16])}, {"r": 8}))
    values = []
    while each := study.take(9):
        study.finish(each, Outcome(TrialState.COMPLETE, 0.5))
        values.append(each.trial.params["r"])
    assert sorted(values) == [4, 8, 16]


def test_the_same_search_tries_the_same(tmp_path: Path) -> None:
    def tried(folder: Path, processes: int) -> Iterator[dict[str, object]]:
        studies = [opened(folder) for _ in range(processes)]
        yield from (complete(studies[i % processes], value=i / 10) for i in range(8))

    assert list(tried(tmp_path / "one", 1)) == list(tried(tmp_path / "two", 2))


@pytest.mark.parametrize("changed", ["config", "corpus", "space"])
def test_another_search_is_refused(tmp_path: Path, changed: str) -> None:
    opened(tmp_path)
    other = Space({"r": CategoricalDistribution([16, 32])}, {"r": 16})
    with pytest.raises(InputError, match=f"changed: {changed}") as raised:
        opened(tmp_path, other) if changed == "space" else opened(tmp_path, **{changed: "other"})
    assert raised.value.code == "Q601"


@pytest.mark.parametrize("content", [b"no database" * 99, b""])
def test_a_damaged_study(tmp_path: Path, content: bytes) -> None:
    (tmp_path / module.FILE).write_bytes(content)
    if not content:
        assert complete(opened(tmp_path)) == OWN, "SQLite takes an empty file for a new one"
        return
    with pytest.raises(InputError) as raised:
        opened(tmp_path)
    assert raised.value.code == "Q603"


def test_a_folder_that_looks_like_a_quoted_one(tmp_path: Path) -> None:
    folder = tmp_path / "50%20of #1"
    complete(opened(folder))
    assert len(opened(folder).trials()) == 1
    assert (folder / "study.db").exists()
