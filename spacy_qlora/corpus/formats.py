"""Which reader an input wants."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path, PureWindowsPath

from spacy_qlora.corpus.lines import BOM, read_lines
from spacy_qlora.corpus.read_conll import read_conll
from spacy_qlora.corpus.read_datasets import read_datasets
from spacy_qlora.corpus.read_json import read_json
from spacy_qlora.corpus.record import Row
from spacy_qlora.errors import InputError

# A bracket can be the first word of CoNLL columns too.
JSON_START = re.compile(r'\{\s*("|\}|$)|\[\s*(\{|\]|$)')


class Format(str, Enum):
    """How records are written."""

    AUTO = "auto"
    JSON = "json"
    CONLL = "conll"
    DATASETS = "datasets"


def detect(source: str) -> Format:
    """A folder, a Parquet file, and NAME:SPLIT that is no path, is of `datasets`; any other file is JSON if its name or
    its first mark says so.

    RAISES (InputError): There is no such file or folder.
    """
    path = Path(source)
    if path.is_dir() or (":" in source and not path.exists() and not PureWindowsPath(source).drive):
        return Format.DATASETS
    if not path.exists():
        raise InputError("Q001", path=source, kind="file or folder")
    if path.suffix == ".parquet":
        return Format.DATASETS
    if {".json", ".jsonl"} & set(path.suffixes[-2:]):
        return Format.JSON
    first = next((line for _, line in read_lines(path) if line.strip(f"{BOM} \t\r\n")), "")
    return Format.JSON if JSON_START.match(first.lstrip(f"{BOM} \t")) else Format.CONLL


def read_rows(source: str, format: Format) -> Iterator[Row]:
    """The records of an input, unchecked.

    source (str): A file, or for `datasets` also a folder or NAME[:SPLIT].
    format (Format): Not AUTO.
    """
    if format is Format.DATASETS:
        return read_datasets(source)
    return (read_json if format is Format.JSON else read_conll)(Path(source))
