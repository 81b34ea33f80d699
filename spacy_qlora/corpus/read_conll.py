"""CoNLL columns: one word a line, sentences parted by empty lines."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from spacy_qlora.corpus.lines import BOM, read_lines
from spacy_qlora.corpus.record import Place, Row
from spacy_qlora.corpus.rules import Rule
from spacy_qlora.errors import InputError

DOCUMENT = "-DOCSTART-"
TAG = re.compile(r"O$|[BI]-")
NUMBERED = 3  # sentences at the beginning of a file, in which numbers stand for the words: no chance


def read_conll(path: Path) -> Iterator[Row]:
    """Yields the sentences of a file. The first column is the word, the last its tag; tabs part them, or else blanks.

    A line that starts with -DOCSTART- begins a document: its sentences are one group. Comments before a sentence, as
    of CoNLL-U, are left out. Raises InputError where the first column numbers the words.
    """
    sentence: list[list[str]] = []
    record = start = document = numbered = 0
    rules: tuple[Rule, ...] = ()
    for number, line in chain(_lines(path), [(0, "")]):
        rules = (Rule.BOM,) if line.startswith(BOM) else rules
        line = line.removeprefix(BOM)
        columns = _columns(line)
        is_document = columns[0].startswith(DOCUMENT)
        if not sentence and _is_comment(line, columns):
            continue
        if columns != [""] and not is_document:
            start = start if sentence else number
            sentence.append(columns)
        elif sentence:
            record += 1
            numbered += _is_numbered(sentence)
            if record == numbered == NUMBERED:
                raise InputError("Q130", path=path, line=start)
            yield _row(Place(str(path), record, start), sentence, str(document) if document else None, rules)
            sentence, rules = [], ()
        document += is_document


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines with their numbers and without their ends; a carriage return ends one, too."""
    parts = (part for _, line in read_lines(path) for part in line.rstrip("\r\n").split("\r"))
    return enumerate(parts, 1)


def _columns(line: str) -> list[str]:
    if not line.strip(" \t"):
        return [""]
    return line.split("\t") if "\t" in line else re.split(" +", line.strip(" "))


def _is_comment(line: str, columns: list[str]) -> bool:
    """Whether a line is "# name = value" or the like, and not the word # with a tag."""
    if not line.startswith("#") or TAG.match(columns[-1]):
        return False
    return " " in columns[0] if "\t" in line else len(columns) > 2 or columns[0] == "#"


def _is_numbered(sentence: list[list[str]]) -> bool:
    """Whether the first of three and more columns counts the words, or is a number that they share."""
    first = [columns[0] for columns in sentence]
    counted = [str(i) for i in range(1, len(first) + 1)]
    is_shared = first[0].isdigit() and len(set(first)) == 1
    return min(map(len, sentence)) > 2 and (first == counted or is_shared)


def _row(place: Place, sentence: list[list[str]], group: str | None, rules: tuple[Rule, ...]) -> Row:
    if any(len(columns) < 2 for columns in sentence):
        rules = (*rules, Rule.UNPAIRED)
    words = [columns[0] for columns in sentence]
    return Row(place, None, words, [columns[-1] for columns in sentence], group, rules)
