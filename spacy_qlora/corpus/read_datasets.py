"""Token-classification sets of the `datasets` library: tokens and ner_tags."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spacy_qlora.corpus.record import Place, Row, read_group
from spacy_qlora.corpus.rules import Rule
from spacy_qlora.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset

WORDS, TAGS = "tokens", "ner_tags"


def read_datasets(source: str) -> Iterator[Row]:
    """Yields the rows of a set: tokens (strings) and ner_tags (class labels or strings), optionally group.

    source (str): A folder of `save_to_disk`, a file of JSON or Parquet, or what `load_dataset` takes (a folder of data
        files, a hub id); `:SPLIT` behind it names one of several splits. `load_dataset` keeps a copy in its own cache.
    RAISES (InputError): It cannot be loaded, has several splits and none is named, or other columns.
    """
    data = _load(source)
    names = _tag_names(source, data)
    for number, row in enumerate(data, 1):
        yield _row(Place(source, number), row, names)


def _load(source: str) -> Dataset:
    from datasets import Dataset, load_dataset, load_from_disk
    from datasets.utils import logging

    name, split = source, ""
    if not Path(source).exists() and ":" in source:
        name, _, split = source.rpartition(":")
    saved = any((Path(name) / file).is_file() for file in ("state.json", "dataset_dict.json"))
    verbosity = logging.get_verbosity()
    try:
        logging.set_verbosity(logging.CRITICAL)
        if Path(name).is_file():
            data = load_dataset("parquet" if name.endswith(".parquet") else "json", data_files=name)
        else:
            data = load_from_disk(name) if saved else load_dataset(name)
    except Exception as error:  # its errors, logged or raised, can quote the data: name the kind alone
        raise InputError("Q104", path=name, reason=type(error).__name__) from error
    finally:
        logging.set_verbosity(verbosity)
    if isinstance(data, Dataset):
        return data
    splits = list(data)
    split = split or (splits[0] if len(splits) == 1 else "")
    if split not in splits:
        raise InputError("Q105", path=name, splits=", ".join(splits), first=splits[0])
    return data[split]


def _tag_names(source: str, data: Dataset) -> list[str] | None:
    """The names of the class labels; None where tags are strings."""
    tags = data.features.get(TAGS)
    item = tags[0] if isinstance(tags, list) else getattr(tags, "feature", None)
    names = getattr(item, "names", None)
    if WORDS not in data.features or (names is None and getattr(item, "dtype", None) != "string"):
        # Where a file has no header, the first record stands for it: name no other columns.
        missing = [name for name in (WORDS, TAGS) if name not in data.features]
        problem = f"it has no {' and no '.join(missing)}" if missing else f"its {TAGS} are neither"
        raise InputError("Q106", path=source, problem=problem)
    return names


def _row(place: Place, row: dict[str, Any], names: list[str] | None) -> Row:
    words, tags, group = row[WORDS] or [], row[TAGS] or [], read_group(row.get("group"))
    if names is not None:
        tags = [names[tag] if tag in range(len(names)) else None for tag in tags]
    rules = () if len(words) == len(tags) else (Rule.UNPAIRED,)
    if not all(isinstance(item, str) for item in [*words, *tags]) or not isinstance(group, str | None):
        rules = (*rules, Rule.WRONG_TYPE)
        tags = [tag for tag in tags if isinstance(tag, str)]
    return Row(place, None, words, tags, group if isinstance(group, str) else None, rules)
