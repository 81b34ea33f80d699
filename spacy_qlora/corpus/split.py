"""A seeded split that keeps groups whole and a text in one part."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence

from spacy_qlora.corpus.record import Record
from spacy_qlora.errors import InputError


def split_records(
    records: Sequence[Record], shares: Mapping[str, float], seed: int, by_text: bool = True
) -> dict[str, list[Record]]:
    """Divides records by shares of their number. What shares a group or a text stays together, so shares hold roughly.

    shares (Mapping[str, float]): The share of each split. One with a share of 0 is left out.
    by_text (bool): False lets groups part that share some text but not all, as notes do.
    RETURNS (dict[str, list[Record]]): The records of each split in their order, at least one in each.
    RAISES (InputError): There are fewer groups than splits.
    """
    parts: dict[str, list[int]] = {name: [] for name, share in shares.items() if share > 0}
    units = _units(records, by_text)
    if len(units) < len(parts):
        raise InputError("Q108", splits=len(parts), groups=len(units))
    random.Random(seed).shuffle(units)
    for done, unit in enumerate(units):
        empty = [name for name, part in parts.items() if not part]
        choice = empty if len(units) - done == len(empty) else list(parts)
        name = max(choice, key=lambda name: shares[name] * len(records) - len(parts[name]))
        parts[name] += unit
    return {name: [records[i] for i in sorted(part)] for name, part in parts.items()}


def _units(records: Sequence[Record], by_text: bool) -> list[list[int]]:
    """Positions of records, together where a chain of equal groups and equal texts joins them.

    by_text: If not, the text of a record in a group is that of the whole group.
    """
    texts = [record.folded for record in records]
    if not by_text:
        notes: dict[str, list[str]] = defaultdict(list)
        for record in records:
            if record.group is not None:
                notes[record.group].append(record.folded)
        whole: dict[str | None, str] = {group: "\n".join(parts) for group, parts in notes.items()}
        texts = [whole.get(record.group, text) for record, text in zip(records, texts, strict=True)]
    parent: dict[tuple[str, str], tuple[str, str]] = {}

    def root(node: tuple[str, str]) -> tuple[str, str]:
        while parent.setdefault(node, node) != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for record, text in zip(records, texts, strict=True):
        if record.group is not None:
            parent[root(("text", text))] = root(("group", record.group))
    units = defaultdict(list)
    for i, text in enumerate(texts):
        units[root(("text", text))].append(i)
    return list(units.values())
