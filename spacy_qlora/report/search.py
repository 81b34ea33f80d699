"""What `spacy qlora search` left: its table of trials and its plots."""

from __future__ import annotations

import base64
import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from spacy_qlora.errors import InputError
from spacy_qlora.search import HISTORY, IMPORTANCE, TRIALS

PLOTS = {HISTORY: "Best score by trial", IMPORTANCE: "Importance of each setting"}


@dataclass(frozen=True)
class Search:
    """columns, rows: Of the table of trials.  plots: Images as data URLs, by title."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    plots: dict[str, str]


def read_search(folder: Path) -> Search:
    """Raises InputError where the folder has no table of trials, or a damaged one."""
    path = folder / TRIALS
    if not path.is_file():
        raise InputError("Q001", path=path, kind="table of trials")
    try:
        with path.open(encoding="utf-8", newline="") as file:
            columns, *rows = csv.reader(file, strict=True)
    except (ValueError, csv.Error) as error:  # not UTF-8, not even a header, or no CSV
        raise InputError("Q511", path=path) from error
    plots = {title: _data_url(folder / name) for name, title in PLOTS.items() if (folder / name).is_file()}
    return Search(columns, rows, plots)


def _data_url(path: Path) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(path.read_bytes()).decode()}"
