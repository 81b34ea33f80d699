"""What an evaluation leaves: a table on the screen and a JSON file."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

from wasabi import msg

from spacy_qlora.engine.files import make_folder, write_whole
from spacy_qlora.errors import InputError

HEADER = ("", "P", "R", "F", "Support")


def print_scores(scores: dict[str, Any]) -> None:
    """Prints per cent per type, in total, by seqeval, and on unseen names where scored.

    scores (dict[str, Any]): From `evaluate`.
    """
    per_type = scores["ents_per_type"]
    total = {name: scores[f"ents_{name}"] for name in "prf"}
    total["support"] = sum(figures["support"] for figures in per_type.values())
    seqeval = {**scores["seqeval"], "support": total["support"]}
    _print_table("Entities", {**per_type, "total": total, "seqeval total": seqeval})
    if unseen := scores.get("unseen"):
        _print_table("Names unseen in training", {**unseen["per_type"], "total": unseen})
    if missing := scores["docs_without_annotation"]:
        msg.warn(f"{missing} of {scores['docs']} docs carry no entity annotation and were not scored.")


def _print_table(title: str, rows: dict[str, dict[str, float]]) -> None:
    data = [
        (name, *(f"{100 * figures[key]:.2f}" for key in "prf"), f"{figures['support']:,}")
        for name, figures in rows.items()
    ]
    msg.table(data, header=HEADER, title=title, divider=True, aligns=("l", "r", "r", "r", "r"))


def require_writable(path: Path, *inputs: Path | None) -> None:
    """Makes the folder of a file to come, so that a wrong path is known before the work and not after it.

    inputs (Path | None): Files that it must not take the place of.
    RAISES (InputError): It is one of them. (OSError): The path is a folder, or its folder cannot be made or written to.
    """
    make_folder(path.parent)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if any(given and given.exists() and path.exists() and path.samefile(given) for given in inputs):
        raise InputError("Q006", path=path)


def write_scores(path: Path, scores: dict[str, Any]) -> None:
    """Writes JSON. RAISES (OSError): As `write_whole`."""
    write_whole(path, json.dumps(scores, indent=2, allow_nan=False) + "\n")
