"""From annotated records in files to train.spacy, dev.spacy, test.spacy and report.json."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from tqdm import tqdm

from spacy_qlora.corpus.check import check
from spacy_qlora.corpus.docs import make_nlp, pack
from spacy_qlora.corpus.formats import Format, detect, read_rows
from spacy_qlora.corpus.join import join_records
from spacy_qlora.corpus.log import Log
from spacy_qlora.corpus.record import Record
from spacy_qlora.corpus.rules import Rule
from spacy_qlora.corpus.split import split_records
from spacy_qlora.corpus.write import write_files
from spacy_qlora.errors import InputError

ALL = "all"
SPLITS = ("train", "dev", "test")
REPORT = "report.json"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to convert.

    shares (tuple[float, float, float]): Of train, dev and test; they sum to 1. A split with a share of 0 is not made.
    seed (int): Of the split.
    join (int): Most words of a doc into which neighbouring records of a split are joined; 0 leaves each alone. The
        training split gets docs of all lengths up to that.
    views (int): How many times the training split is joined, each time at other places.
    format (Format): Of every input.
    lang (str): Language of the tokenizer.
    fine (bool): Whether the package's finer tokenizer makes the tokens, or the language's own.
    strict (bool): Whether the first broken rule is an error.
    """

    shares: tuple[float, float, float] = (0.8, 0.1, 0.1)
    seed: int = 0
    join: int = 0
    views: int = 1
    format: Format = Format.AUTO
    lang: str = "en"
    fine: bool = True
    strict: bool = False


@dataclass(frozen=True)
class Input:
    """An input as read: where from, the records that are kept, and what the checks found."""

    source: str
    format: Format
    records: list[Record]
    log: Log


def convert(
    sources: Mapping[str, str], out: Path, settings: Settings | None = None, tell: Callable[[str], None] = print
) -> dict[str, Any]:
    """Checks annotated records, splits them where they are not split, and writes train.spacy, dev.spacy, test.spacy and
    report.json, all or none. A file that an earlier run left in `out` and this run has no records for is removed.
    Files of another origin are never touched.

    sources (Mapping[str, str]): "all", one input to split; or "train", perhaps "dev" and "test", inputs that are split.
        Given no "dev", the share of dev is taken from "train" for it.
    out (Path): The folder to write to.
    tell (Callable[[str], None]): Receives a line for each of the first records that broke a rule, and for what else may
        be amiss.
    RETURNS (dict[str, Any]): The content of report.json.
    RAISES (InputError): An input cannot be read or has no records or mentions left, a split would be empty, or the
        settings are strict and a rule is broken, or a file of another origin is in the way. (OSError): Something cannot
        be written.
    """
    settings = settings or Settings()
    _require_ours(out)
    nlp = make_nlp(settings.lang, fine=settings.fine)
    inputs: dict[str, Input] = {}
    for name in sorted(sources, key=[ALL, *SPLITS].index):
        earlier = {record.folded for input in inputs.values() for record in input.records}
        inputs[name] = _read(sources[name], settings, earlier, whole=name in ("dev", "test"))
        for line in inputs[name].log.lines():
            tell(line)
        _require_records(inputs[name])
    if settings.join and ALL in inputs and any(record.group is None for record in inputs[ALL].records):
        tell("Records without a group are split one by one, and few neighbours are left to join. Give each its group.")
    files: dict[str, bytes] = {}
    counts = {}
    splits = _splits(inputs, settings)
    for name, records in splits.items():
        texts = _texts(name, records, settings)
        files[f"{name}.spacy"], counts[name] = pack(nlp, tqdm(texts, desc=f"{name}.spacy", unit=" docs", delay=1))
    for line in _notices(inputs, splits, counts, settings):
        tell(line)
    report = _report(inputs, counts, settings)
    files = {REPORT: f"{json.dumps(report, indent=2)}\n".encode(), **files}  # first: it tells whose the others are
    write_files(out, files, remove=[f"{name}.spacy" for name in SPLITS if name not in counts])
    return report


def _read(source: str, settings: Settings, earlier: set[str], *, whole: bool) -> Input:
    """Reads and checks an input. earlier: Folded texts of the inputs before. whole: Whether repeated records stay."""
    format = detect(source) if settings.format is Format.AUTO else settings.format
    read = Input(source, format, [], Log(strict=settings.strict))
    firsts: dict[str, Record] = {}
    for row in read_rows(source, format):
        record, rules = check(row)
        in_note = settings.join and record and record.group is not None  # which would have a hole without it
        if record and record.text in firsts and not in_note:
            rules.append(_repeat(firsts[record.text], record, whole=whole))
            record = record if whole else None
        if record and record.folded in earlier:
            rules.append(Rule.LEAK)
        read.log.add(row, record, rules)
        if record:
            firsts.setdefault(record.text, record)
            read.records.append(record)
    return read


def _repeat(first: Record, record: Record, *, whole: bool) -> Rule:
    """The rule for a record with the text of an earlier one.

    Dev and test sets that are given stay whole: published figures are measured on all of them.
    """
    if whole:
        return Rule.REPEATED
    return Rule.DUPLICATE if first.mentions == record.mentions else Rule.CONFLICT


def _require_ours(out: Path) -> None:
    """Raises InputError where a file that would be replaced or removed is not from an earlier run."""
    try:
        if "mentions_out" in json.loads((out / REPORT).read_text(encoding="utf8")):
            return
    except (OSError, ValueError, TypeError):  # no such file, or another's
        pass
    for name in (REPORT, *(f"{split}.spacy" for split in SPLITS)):
        if (out / name).exists():
            raise InputError("Q004", path=out / name)


def _require_records(read: Input) -> None:
    if not read.log.records_in:
        raise InputError("Q100", path=read.source)
    if not read.records:
        raise InputError("Q107", path=read.source, records=read.log.records_in)
    had_mentions = read.log.mentions_in or read.log.counts[Rule.UNKNOWN_TAG]
    if had_mentions and not read.log.mentions_out:
        dropped = read.log.records_in - read.log.records_out
        raise InputError("Q129", path=read.source, dropped=dropped, records=read.log.records_in)


def _notices(
    inputs: Mapping[str, Input],
    splits: Mapping[str, list[Record]],
    counts: Mapping[str, Mapping[str, Any]],
    settings: Settings,
) -> Iterator[str]:
    """What may be amiss with the corpus as a whole. counts: Of each split's docs, as in the report."""
    spellings: dict[str, set[str]] = defaultdict(set)
    for label in chain.from_iterable(split["labels"] for split in counts.values()):
        spellings[label.casefold()].add(label)
    for labels in spellings.values():
        if len(labels) > 1:
            several = ", ".join(sorted(labels))
            yield f"Labels that differ in case alone are labels of their own: {several}. Give one spelling."
    if settings.join and all(counts[name]["docs"] == len(splits[name]) * _views(name, settings) for name in splits):
        yield "--join has joined nothing. The records of a group have to follow one another."
    if "train" not in splits:
        return
    texts, known = {record.folded for record in splits["train"]}, counts["train"]["labels"].keys()
    for name in splits:
        shared = {record.folded for record in splits[name]} & texts
        if shared and name not in ("train", *inputs):  # of an input, each such record is told of
            yield f"{len(shared):,} texts of {name}.spacy stand in train.spacy too, in other groups."
        if lacking := sorted(counts[name]["labels"].keys() - known):
            yield (
                f"{name}.spacy has labels that train.spacy lacks: {', '.join(lacking)}. "
                "'evaluate' refuses it with a pipeline that was trained without them."
            )


def _splits(inputs: Mapping[str, Input], settings: Settings) -> dict[str, list[Record]]:
    alone = not settings.join
    if ALL in inputs:
        shares = dict(zip(SPLITS, settings.shares, strict=True))
        return split_records(inputs[ALL].records, shares, settings.seed, by_text=alone)
    splits = {name: read.records for name, read in inputs.items()}
    if "dev" not in splits:
        share = settings.shares[1]
        splits |= split_records(splits["train"], {"train": 1 - share, "dev": share}, settings.seed, by_text=alone)
    return {name: splits[name] for name in SPLITS if name in splits}


def _views(split: str, settings: Settings) -> int:
    """How many times each record of a split stands in its docs."""
    return settings.views if split == "train" and settings.join else 1


def _texts(split: str, records: list[Record], settings: Settings) -> list[Record]:
    """The records of a split, joined as the settings say."""
    if not settings.join:
        return records
    seeds = range(settings.seed, settings.seed + settings.views) if split == "train" else [None]
    return [text for seed in seeds for text in join_records(records, settings.join, seed)]


def _report(inputs: Mapping[str, Input], counts: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    logs = [read.log for read in inputs.values()]
    return {
        "mentions_in": sum(log.mentions_in for log in logs),
        "mentions_out": sum(split["mentions"] // _views(name, settings) for name, split in counts.items()),
        "lang": settings.lang,
        "tokenizer": "fine" if settings.fine else "spacy",
        "seed": settings.seed,
        "shares": settings.shares,
        "join": settings.join,
        "views": settings.views,
        "splits": counts,
        "inputs": {
            name: {"path": read.source, "format": read.format.value, **read.log.report()}
            for name, read in inputs.items()
        },
    }
