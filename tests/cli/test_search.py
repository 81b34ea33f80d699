"""`spacy qlora search`: its options, and processes that are killed. Wrong spaces are in tests/search/."""

from __future__ import annotations

import csv
import importlib.util
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import Result
from spacy.cli._util import app
from typer.testing import CliRunner

import spacy_qlora.cli  # noqa: F401

DEFAULT = Path(__file__).parents[2] / "configs" / "default.cfg"


def arguments(corpus: Path, base: Path, output: Path, *more: object) -> list[str]:
    paths = ["--paths.train", corpus / "train.spacy", "--paths.dev", corpus / "dev.spacy", "--paths.base", base]
    return list(map(str, ["qlora", "search", DEFAULT, "--output", output, *paths, *more]))


def run(*given: str) -> Result:
    return CliRunner().invoke(app, list(given), prog_name="spacy")


def states(output: Path) -> list[str]:
    with (output / "trials.csv").open() as file:
        return [row["state"] for row in csv.DictReader(file)]


def test_a_killed_search_goes_on_while_another_process_takes_part(
    corpus: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The config as given has all but endless epochs, and is killed; the trial beside it is short."""
    (tmp_path / "space.cfg").write_text("[training]\nmax_epochs = [1]\n")
    given = arguments(corpus, base, tmp_path / "out", "--space", tmp_path / "space.cfg", "--training.max_epochs", 9999)
    command = [sys.executable, "-m", "spacy", *given]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as first:
        try:
            while not (tmp_path / "out" / "trial-0").exists():
                assert first.poll() is None
                time.sleep(0.1)
            beside = run(*given, "--trials", "2")
        finally:
            first.kill()
    assert beside.exit_code == 0, beside.output
    assert "Another process still runs a trial" in " ".join(beside.stdout.split())
    assert states(tmp_path / "out") == ["running", "complete"]

    monkeypatch.setattr("spacy_qlora.training.display.Bar.on_step", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    result = run(*given, "--trials", "2")
    assert result.exit_code == 0, "a scheduler that stops a job in good time is no failure"
    *_, last = result.stdout.splitlines()
    assert last.startswith("Stopped; a trial that had begun will be run anew. Go on with: python -m spacy")
    assert not list((tmp_path / "out").glob("trial-*"))
    with sqlite3.connect(tmp_path / "out" / "study.db") as database:
        found = [state for (state,) in database.execute("SELECT state FROM trials ORDER BY number")]
    assert found[0] == "FAIL"
    assert found[-1] == "WAITING", "the config as given, which was taken again and given back"
    assert "RUNNING" not in found


def test_optuna_is_asked_for(corpus: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr("spacy_qlora.cli.search.find_spec", lambda name: None if name == "optuna" else found(name))
    result = run(*arguments(corpus, base, tmp_path / "out"))
    assert result.exit_code == 1
    assert (
        result.stderr
        == "Error: [Q600] search needs the package optuna. Install it with 'pip install \"spacy-qlora[search]\"'.\n"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "code"),
    [
        (["--memory", "much"], "Q210"),
        (["--space", "none.cfg"], "Q001"),
        (["--qlora.batch_sise", 8], "Q401"),
        (["--paths.base", "no where"], "Q001"),
    ],
)
def test_wrong_input_is_one_line(corpus: Path, base: Path, tmp_path: Path, more: list[object], code: str) -> None:
    result = run(*arguments(corpus, base, tmp_path / "out", *more))
    assert result.exit_code == 1
    assert f"Error: [{code}]" in result.stderr.splitlines()[-1]


def test_it_does_not_write_over_something_else(corpus: Path, base: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("")
    result = run(*arguments(corpus, base, tmp_path))
    assert "[Q004]" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("more", [["--trials", 0], ["--minutes", -1], ["more"]])
def test_wrong_usage(corpus: Path, base: Path, tmp_path: Path, more: list[object]) -> None:
    assert run(*arguments(corpus, base, tmp_path, *more)).exit_code == 2


def test_help_needs_no_config() -> None:
    result = CliRunner().invoke(app, ["qlora", "search", "--help"], prog_name="spacy", env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert all(name in result.stdout for name in ("--space", "--trials", "--minutes", "--memory", "adapter_lr = {"))
