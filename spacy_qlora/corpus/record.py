"""Annotated text, as it is read and as it is kept."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from spacy_qlora.corpus.rules import Rule


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record stands: the input, the record's number from 1, and the line that it begins at, if it has one."""

    path: str
    record: int
    line: int | None = None

    def __str__(self) -> str:
        line = "" if self.line in (None, self.record) else f" (line {self.line})"
        return f"{self.path}, record {self.record}{line}"


@dataclass(frozen=True, slots=True)
class Row:
    """A record as a reader found it, still to be checked.

    text (str | None): The running text; None where the format keeps words only.
    words, tags (list[str]): As written, in order.
    group (str | None): Records of one group, such as a patient or a document, stay in one split.
    rules (tuple[Rule, ...]): The rules that the reader saw broken.
    """

    place: Place
    text: str | None
    words: list[str]
    tags: list[str]
    group: str | None = None
    rules: tuple[Rule, ...] = ()


def read_group(value: Any) -> Any:
    """A group as it was written. RETURNS: A string, or None where there is none; anything else is no group.

    A column of numbers with gaps, as pandas writes it, holds 17.0 and NaN for 17 and nothing.
    """
    if isinstance(value, float):
        value = None if math.isnan(value) else int(value) if value.is_integer() else value
    return None if value == "" else str(value) if isinstance(value, int) else value


@dataclass(frozen=True, slots=True)
class Mention:
    """Characters start to end (exclusive) of a text, under a label."""

    start: int
    end: int
    label: str


@dataclass(frozen=True, slots=True)
class Record:
    """A checked record: its text and the mentions in it, in order and without overlap."""

    place: Place
    text: str
    mentions: tuple[Mention, ...]
    group: str | None = None

    @property
    def folded(self) -> str:
        """The text with its blanks made alike: records equal in this are the same text to a split."""
        return " ".join(self.text.split())
