"""Neighbouring records as one text: a sentence is read best among those around it."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator
from dataclasses import replace

from spacy_qlora.corpus.record import Mention, Record

SHORTEST = 8  # words: of a limit that is drawn


def join_records(records: Iterable[Record], words: int, seed: int | None = None) -> Iterator[Record]:
    """Joins records that follow one another in their input and share their group, if any, by blanks.

    words (int): Most words of a joined text, as blanks divide it. A record that is longer stays alone.
    seed (int | None): Given one, the limit of each text is drawn up to `words`, evenly on a logarithmic scale: a model
        that was trained on texts of one length alone is lost on others.
    """
    chance = random.Random(seed)
    open_part: list[Record] = []
    size, limit = 0, words
    for record in records:
        length = len(record.text.split())
        if open_part and (size + length > limit or not _follows(open_part[-1], record)):
            yield _joined(open_part)
            open_part, size = [], 0
        if not open_part and seed is not None:
            limit = round(math.exp(chance.uniform(math.log(min(SHORTEST, words)), math.log(words))))
        open_part.append(record)
        size += length
    if open_part:
        yield _joined(open_part)


def _follows(one: Record, other: Record) -> bool:
    return one.group == other.group and one.place.record + 1 == other.place.record


def _joined(records: list[Record]) -> Record:
    mentions: list[Mention] = []
    start = 0
    for record in records:
        mentions += [replace(found, start=start + found.start, end=start + found.end) for found in record.mentions]
        start += len(record.text) + 1
    return replace(records[0], text=" ".join(record.text for record in records), mentions=tuple(mentions))
