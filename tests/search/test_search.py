"""Whole searches of tiny runs."""

from __future__ import annotations

import csv
import json
import math
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from spacy.tokens import DocBin

from spacy_qlora.engine import base as engine_base
from spacy_qlora.engine.progress import Progress, StopRun
from spacy_qlora.errors import QLoRAError
from spacy_qlora.search import study
from spacy_qlora.search.search import search
from spacy_qlora.training import display
from spacy_qlora.training.config import load_config
from spacy_qlora.training.run import train

load = engine_base._load
DEFAULT = Path(__file__).parents[2] / "configs" / "default.cfg"
RATES = "[training.optimizer]\nadapter_lr = {}\nhead_lr = {}\n"
FILES = [".lock", "best.cfg", "history.svg", "search.json", "study.db", "trials.csv"]
SETTINGS = {"training.optimizer.adapter_lr": 3e-3, "training.optimizer.head_lr": 1e-2, "training.max_epochs": 4}


class Place:
    """A folder for a search of the tiny corpus on the tiny base."""

    def __init__(self, folder: Path, corpus: Path, base: Path) -> None:
        self.folder, self.corpus, self.base = folder, corpus, base
        self.output = folder / "output"

    def run(self, trials: float, space: str = "default", minutes: float = math.inf, **more: Any) -> None:
        """space: A preset, or the text of a file.  more: Overrides, with __ for the dots."""
        paths = {"train": self.corpus / "train.spacy", "dev": self.corpus / "dev.spacy", "base": self.base}
        overrides = {**SETTINGS, **{f"paths.{name}": str(path) for name, path in paths.items()}}
        overrides |= {name.replace("__", "."): value for name, value in more.items()}
        if "\n" in space:
            (self.folder / "space.cfg").write_text(space)
            space = str(self.folder / "space.cfg")
        search(DEFAULT, load_config(DEFAULT, overrides), self.output, space, trials, minutes)

    def rows(self) -> list[dict[str, str]]:
        with (self.output / "trials.csv").open() as file:
            return list(csv.DictReader(file))

    def column(self, name: str) -> list[str]:
        return [row[name] for row in self.rows()]

    def files(self) -> list[str]:
        return sorted(path.name for path in self.output.iterdir())


@pytest.fixture
def place(tmp_path: Path, corpus: Path, base: Path) -> Place:
    return Place(tmp_path, corpus, base)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Of the frozen layers' states."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPACY_QLORA_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def finished(corpus: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """After five trials, in two calls."""
    place = Place(tmp_path_factory.mktemp("finished"), corpus, base)
    place.run(2)
    assert place.files() == FILES
    loaded: list[Path] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "COMPLETE", 9)  # none is pruned
        patch.setattr(engine_base, "_load", lambda *given: loaded.append(given[0]) or load(*given))
        place.run(5)
    assert loaded == [base], "once for all trials"
    return place


def test_a_search_goes_on_and_leaves_its_files(finished: Place, cache: Path) -> None:
    assert finished.files() == sorted([*FILES, "importance.svg"])
    assert finished.column("trial") == ["0", "1", "2", "3", "4"]
    assert finished.column("state") == ["complete"] * 5
    assert list(cache.glob("states/*.states")), "trials on the top layers share what the others give"
    for name in ("history.svg", "importance.svg"):
        assert "<svg" in (finished.output / name).read_text()


def test_the_first_trial_is_the_config_as_given(finished: Place) -> None:
    first = finished.rows()[0]
    assert {name: first[name] for name in SETTINGS} == {name: f"{value:g}" for name, value in SETTINGS.items()}
    assert first["components.qlora_ner.adapted_layers"] == "null"
    found = json.loads((finished.output / "search.json").read_text())
    assert found["own"]["score"] == float(first["score"])
    assert found["best"]["score"] == max(map(float, finished.column("score"))) >= found["own"]["score"]
    assert found["states"] == {"complete": 5}
    assert sum(found["importances"].values()) == pytest.approx(1)


def test_the_best_config_gives_its_score_again(finished: Place, tmp_path: Path) -> None:
    best = finished.output / "best.cfg"
    score = max(map(float, finished.column("score")))
    assert f": {score:.4f} on the dev split." in best.read_text().splitlines()[0]
    progress = train(best, load_config(best, {}), tmp_path)
    assert progress.best == pytest.approx(score, abs=1e-4)


def test_nothing_is_left_to_do(finished: Place, capsys: pytest.CaptureFixture) -> None:
    finished.run(5)
    assert "5 of 5 trials, best " in capsys.readouterr().out
    assert len(finished.rows()) == 5


def test_trials_far_behind_are_pruned(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "COMPLETE", 1)
    monkeypatch.setattr(study, "VAIN", 5)
    place.run(3, RATES.format("[1e-8]", "[1e-8]"))
    states = {(row["training.optimizer.adapter_lr"], row["training.optimizer.head_lr"]): row for row in place.rows()}
    assert states["0.003", "0.01"]["state"] == "complete"
    assert [row["state"] for row in place.rows()].count("pruned") >= 1
    assert all(float(row["score"]) < 0.4 for row in place.rows() if row["state"] == "pruned")


def test_a_trial_that_fails_does_not_end_the_search(place: Place, capsys: pytest.CaptureFixture) -> None:
    place.run(2, RATES.format("[1e30]", "[1e30]"))
    assert place.column("state") == ["complete", "fail"]
    assert place.column("reason") == ["", "Q402"]
    shown = capsys.readouterr().out
    assert ": fail Q402, " in shown
    assert "No importance.svg: that takes 4 complete trials, and there are 1." in " ".join(shown.split())
    assert place.files() == FILES


def test_a_search_without_a_complete_trial(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "VAIN", 2)
    with pytest.raises(QLoRAError, match="none of its 2 trials") as raised:
        place.run(9, qlora__memory_budget="100MiB")
    assert raised.value.code == "Q604"
    assert place.column("reason") == ["Q414", "Q414"]


def test_what_does_not_fit_into_memory_is_not_run(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "VAIN", 9)
    steps: list[int] = []
    monkeypatch.setattr(display.Bar, "on_step", lambda bar, progress: steps.append(progress.step))
    place.run(9, "[components.qlora_ner]\nr = [20000]\n", qlora__memory_budget="1GiB")
    assert place.column("state") == ["complete", "pruned"]
    assert place.column("reason") == ["", "Q414"]
    assert len(steps) == 4, "those of the config as given"
    assert 'memory_budget = "1GiB"' in (place.output / "best.cfg").read_text()


def test_a_signal_gives_the_trial_back(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def send(bar: display.Bar, progress: Progress) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(display.Bar, "on_step", send)
        with pytest.raises(StopRun) as raised:
            place.run(1)
    assert raised.value.args == (signal.SIGINT,)
    assert place.files() == [".lock", "study.db"]
    place.run(1)
    assert place.column("state") == ["stopped", "complete"]
    stopped, again = [list(row.values())[5:] for row in place.rows()]
    assert stopped == again


def test_wrong_input_ends_a_search_at_once(place: Place) -> None:
    with pytest.raises(QLoRAError, match="adapted_layers = 99") as raised:
        place.run(9, "[components.qlora_ner]\nadapted_layers = [99]\n")
    assert raised.value.code == "Q210"
    assert place.files() == FILES
    with pytest.raises(QLoRAError, match="memory_budget = much"):
        place.run(9, qlora__memory_budget="much")


@pytest.mark.parametrize(
    "setting", ['[components.qlora_ner]\nr = [4, "x"]\n', '[training.optimizer]\ndecay = ["steep", "linear"]\n']
)
def test_each_value_is_looked_at_before_the_first_trial(place: Place, setting: str) -> None:
    with pytest.raises(QLoRAError, match=r"space\.cfg.* cannot be (x|steep)") as raised:
        place.run(9, setting)
    assert raised.value.code == "Q602"
    assert not place.output.exists()


def test_settings_that_do_not_go_together_are_not_tried_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "VAIN", 9)
    space = "[components.qlora_ner]\nadapted_layers = [99, 1]\n"
    with pytest.raises(QLoRAError, match="adapted_layers = 99"):
        place.run(9, space)
    place.run(9, space)
    assert place.column("state").count("complete") == 2


def test_a_study_that_breaks(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def damage(bar: display.Bar, progress: Progress) -> None:
        (place.output / "study.db").write_bytes(b"no database" * 20_000)

    monkeypatch.setattr(display.Bar, "on_step", damage)
    with pytest.raises(QLoRAError, match="Check the disk") as raised:
        place.run(1)
    assert raised.value.code == "Q605"


def test_no_trial_begins_when_the_time_is_over(place: Place) -> None:
    place.run(9, minutes=0)
    assert place.files() == [".lock", "study.db"]


def test_a_changed_corpus_is_another_search(place: Place) -> None:
    place.run(0)
    docs = DocBin().from_disk(place.corpus / "train.spacy")
    docs.tokens.pop()
    for name in ("train", "dev"):
        docs.to_disk(place.folder / f"{name}.spacy")
    place.corpus = place.folder
    with pytest.raises(QLoRAError, match="changed: dev, train") as raised:
        place.run(1)
    assert raised.value.code == "Q601"


def test_a_table_on_a_terminal(place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr("spacy_qlora.search.display.PAUSE", 0.0)
    place.run(1)
    out, err = capsys.readouterr()
    assert "step 2 of 4" in out
    assert "as given" in out
    assert "Training:" not in err
