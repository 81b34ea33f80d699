"""The evaluations of a run on disk, through stops and kills."""

from __future__ import annotations

from pathlib import Path

import pytest

from spacy_qlora.engine.progress import Progress
from spacy_qlora.errors import InputError
from spacy_qlora.training.history import History, read_history


def steps(path: Path) -> list[int]:
    return [each.step for each in read_history(path)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The history of a run evaluated at steps 3, 6 and 9."""
    history = History(tmp_path / "history.jsonl", Progress())
    for step in (3, 6, 9):
        history.add(Progress(step=step, score=0.5), {"ents_f": 0.5}, memory=1)
    return history.path


@pytest.mark.parametrize(
    ("start", "kept"),
    [
        (Progress(), []),  # a new run
        (Progress(step=4), [3]),  # killed, and the checkpoint after step 4 was the last
        (Progress(step=6), [3, 6]),
        (Progress(step=6, due=True), [3]),  # stopped while it was evaluated, and killed right after it was
        (Progress(step=12), [3, 6, 9]),
    ],
)
def test_what_comes_again_takes_the_place_of_what_was(path: Path, start: Progress, kept: list[int]) -> None:
    history = History(path, start)
    assert steps(path) == [3, 6, 9], "nothing changes before there is something new"
    history.add(Progress(step=15), {}, memory=1)
    assert steps(path) == [*kept, 15]
    assert [each.name for each in path.parent.iterdir()] == ["history.jsonl"]


@pytest.mark.parametrize("line", [b"{", b"[1]", b'{"step": 1}', b"\xff", b""])
def test_a_foreign_line_is_named(path: Path, line: bytes) -> None:
    path.write_bytes(path.read_bytes() + line + b"\n")
    for read in (lambda: read_history(path), lambda: History(path, Progress(step=9))):
        with pytest.raises(InputError, match=r"\[Q510\].*history.jsonl, line 4:"):
            read()
    assert History(path, Progress()).evaluations == []
