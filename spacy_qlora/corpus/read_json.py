"""BIO-JSON: a JSON list of records, or JSON Lines with one record a line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from spacy_qlora.corpus.lines import BOM, read_lines
from spacy_qlora.corpus.record import Place, Row, read_group
from spacy_qlora.corpus.rules import Rule
from spacy_qlora.errors import InputError


def read_json(path: Path) -> Iterator[Row]:
    """Yields the records of a file: {"text", "labels": [{"word", "entity"}, ...]}, optionally "group".

    Other keys are let be.
    RAISES (InputError): A JSON list that is not JSON; a line of JSON Lines that is not only breaks a rule.
    """
    lines = ((number, line) for number, line in read_lines(path) if line.strip(f"{BOM} \t\r\n"))
    first = next(lines, None)
    if first is None:
        return
    is_list = first[1].lstrip(f"{BOM} \t").startswith("[")
    yield from (_read_list if is_list else _read_json_lines)(path, chain([first], lines))


def _read_list(path: Path, lines: Iterable[tuple[int, str]]) -> Iterator[Row]:
    numbers, texts = zip(*lines, strict=True)
    text = "".join(texts).rstrip()
    try:
        records = json.loads(text.removeprefix(BOM))
    except json.JSONDecodeError as error:
        raise InputError("Q103", path=path, line=numbers[error.lineno - 1], column=error.colno) from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets within brackets
        raise InputError("Q103", path=path, line=numbers[0], column=1) from error
    for number, record in enumerate(records, 1):
        yield _row(Place(str(path), number), record, has_bom=number == 1 and text.startswith(BOM))


def _read_json_lines(path: Path, lines: Iterable[tuple[int, str]]) -> Iterator[Row]:
    for number, (line_number, line) in enumerate(lines, 1):
        place = Place(str(path), number, line_number)
        try:
            record = json.loads(line.removeprefix(BOM))
        except (ValueError, RecursionError):
            yield Row(place, None, [], [], rules=(Rule.NOT_JSON,))
        else:
            yield _row(place, record, has_bom=line.startswith(BOM))


def _row(place: Place, record: Any, *, has_bom: bool) -> Row:
    rules = (Rule.BOM,) if has_bom else ()
    fault = _fault(record)
    if fault:
        # The tags that can be read, so that the mentions lost with the record are counted.
        labels = record.get("labels") if isinstance(record, dict) else None
        tags = [item.get("entity") for item in labels if isinstance(item, dict)] if isinstance(labels, list) else []
        return Row(place, None, [], [tag for tag in tags if isinstance(tag, str)], rules=(*rules, fault))
    labels = record["labels"]
    return Row(
        place,
        record["text"],
        [item["word"] for item in labels],
        [item["entity"] for item in labels],
        read_group(record.get("group")),
        rules,
    )


def _fault(record: Any) -> Rule | None:
    """The rule that a record's form breaks."""
    if not isinstance(record, dict):
        return Rule.WRONG_TYPE
    if not record.keys() >= {"text", "labels"}:
        return Rule.MISSING_KEY
    text, labels, group = record["text"], record["labels"], read_group(record.get("group"))
    if not isinstance(text, str) or not isinstance(labels, list) or not isinstance(group, str | None):
        return Rule.WRONG_TYPE
    if not all(isinstance(item, dict) for item in labels):
        return Rule.WRONG_TYPE
    if not all(item.keys() >= {"word", "entity"} for item in labels):
        return Rule.MISSING_KEY
    if not all(isinstance(item["word"], str) and isinstance(item["entity"], str) for item in labels):
        return Rule.WRONG_TYPE
    return None
