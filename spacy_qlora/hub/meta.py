"""What the hub is told of meta.json and metrics.json: labels and figures, nothing else that may stand there."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import srsly

from spacy_qlora.errors import InputError
from spacy_qlora.hub.contents import META

Scores = dict[str, dict[str, float]]  # by label, and "all": precision, recall and F1 as "p", "r" and "f"
BROKEN = (ValueError, TypeError, KeyError, AttributeError)  # what comes of JSON that holds something else


@dataclass(frozen=True)
class Meta:
    """Of a pipeline's meta.json.  labels: Of all components.  scores: On the dev split in training, if on record."""

    lang: str
    license: str
    labels: frozenset[str]
    scores: Scores | None

    @classmethod
    def read(cls, folder: Path) -> Meta:
        """Raises InputError where meta.json is missing or broken."""
        try:
            fields = srsly.read_json(folder / META)
            performance = fields.get("performance") or {}
            return cls(
                lang=str(fields["lang"]),
                license=str(fields.get("license") or ""),
                labels=frozenset(label for labels in fields["labels"].values() for label in labels),
                scores=only_scores(performance) if performance.get("ents_f") is not None else None,
            )
        except (OSError, *BROKEN) as error:
            raise InputError("Q800", path=folder) from error


def read_scores(path: Path) -> Scores:
    """Raises InputError where the file is not what `evaluate` writes."""
    try:
        return only_scores(json.loads(path.read_text(encoding="utf8")))
    except BROKEN as error:
        raise InputError("Q803", path=path) from error


def only_scores(found: dict[str, Any]) -> Scores:
    """The entity scores of metrics.json or of meta.json's performance. Raises one of BROKEN where they are missing."""
    rows = {**(found["ents_per_type"] or {}), "all": {key: found[f"ents_{key}"] for key in "prf"}}
    return {str(label): {key: float(row[key]) for key in "prf"} for label, row in rows.items()}
