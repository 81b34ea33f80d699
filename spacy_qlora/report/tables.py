"""Rows of scores with their intervals, by type or any other group, and who was taken for whom."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from spacy.training import Example

from spacy_qlora.evaluation.bootstrap import figures, intervals
from spacy_qlora.evaluation.unseen import normalised
from spacy_qlora.report.cases import ERRORS, Case, Entity, Kind

LONG = 5  # tokens; mentions as long or longer are one group


@dataclass(frozen=True)
class Score:
    """All between 0 and 1.  low, high: The 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Row:
    """p, r, f: Precision, recall, F1.  gold, found, right: Numbers of entities."""

    name: str
    p: Score
    r: Score
    f: Score
    gold: int
    found: int
    right: int


Group = Callable[[int, Entity], str]  # the name of the group that an entity of a record is in


def count(cases: Sequence[Case], records: int, names: Sequence[str], group: Group) -> NDArray[np.int64]:
    """RETURNS: [records, names, 3] right, spurious and missed entities, as a strict score counts them."""
    counts = np.zeros((records, len(names), 3), dtype=np.int64)
    number = {name: i for i, name in enumerate(names)}
    for case in cases:
        columns = ((case.gold, 0),) if case.kind is Kind.RIGHT else ((case.found, 1), (case.gold, 2))
        for entity, column in columns:
            if entity is not None:
                counts[case.record - 1, number[group(case.record, entity)], column] += 1
    return counts


def score_rows(cases: Sequence[Case], records: int, names: Sequence[str], group: Group) -> list[Row]:
    """A row for each name.  records: How many there are, with or without entities."""
    counts = count(cases, records, names, group)
    sums, (low, high) = counts.sum(0), intervals(counts)
    numbers = np.stack([figures(sums), low, high], -1).tolist()
    rows = []
    for name, (right, spurious, missed), scores in zip(names, sums.tolist(), numbers, strict=True):
        p, r, f = (Score(*each) for each in scores)
        rows.append(Row(name, p, r, f, gold=right + missed, found=right + spurious, right=right))
    return rows


def length_rows(cases: Sequence[Case], records: int) -> list[Row]:
    """Scores by the number of tokens of a mention."""
    names = [str(n) for n in range(1, LONG)] + [f"{LONG} or more"]

    def group(_: int, entity: Entity) -> str:
        return names[min(entity.mention.end - entity.mention.start, LONG) - 1]

    return [row for row in score_rows(cases, records, names, group) if row.gold or row.found]


def seen_rows(cases: Sequence[Case], examples: Sequence[Example], known: set[str]) -> list[Row]:
    """Scores of the mentions whose text is a known name, and of the others.

    known: From `known_names`.
    """
    names = ["Seen in training", "Unseen in training"]

    def group(record: int, entity: Entity) -> str:
        _, start, end = entity.mention
        return names[normalised(examples[record - 1].reference[start:end].text) not in known]

    return score_rows(cases, len(examples), names, group)


@dataclass(frozen=True)
class Table:
    """counts: [rows][columns]."""

    rows: Sequence[str]
    columns: Sequence[str]
    counts: Sequence[Sequence[int]]


def confusion(cases: Sequence[Case], labels: Sequence[str]) -> Table:
    """Gold types, and none, by predicted types, and none. Boundaries make no difference."""
    pairs = Counter((case.gold and case.gold.label, case.found and case.found.label) for case in cases)
    sides = [*labels, None]
    counts = [[pairs[gold, found] for found in sides] for gold in sides]
    return Table([*labels, "no entity (spurious)"], [*labels, "none (missed)"], counts)


def error_counts(cases: Sequence[Case], labels: Sequence[str]) -> Table:
    """Errors by kind and by type: the gold type, or the predicted one of what is spurious."""
    counts = Counter((case.kind, case.entities[0].label) for case in cases)
    rows = [[counts[kind, label] for label in labels] for kind in ERRORS]
    return Table([kind.value for kind in ERRORS], labels, rows)
