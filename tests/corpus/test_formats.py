from __future__ import annotations

import gzip
import json
from pathlib import Path

import datasets
import pytest

from spacy_qlora.corpus.formats import Format, detect, read_rows
from spacy_qlora.corpus.record import Row
from spacy_qlora.corpus.rules import Rule
from spacy_qlora.errors import InputError

RECORDS = [
    {"text": "No rash.", "labels": [{"word": "No", "entity": "O"}, {"word": "rash.", "entity": "B-X"}], "group": 7},
    {"text": "\u2028Fever\x85", "labels": [{"word": "Fever", "entity": "B-X"}], "id": "a"},
]
LINES = "\n".join(json.dumps(record, ensure_ascii=False) for record in RECORDS)
COLUMNS = "No\tO\nrash\tB-X\n\nFever\tB-X\n"


def write(path: Path, content: str | bytes) -> str:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def rows(source: str) -> list[Row]:
    return list(read_rows(source, detect(source)))


def content(source: str) -> list[tuple[str | None, list[str], list[str], str | None, tuple[Rule, ...]]]:
    return [(row.text, row.words, row.tags, row.group, row.rules) for row in rows(source)]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.txt", "a"])
@pytest.mark.parametrize("text", [LINES, LINES + "\n", LINES.replace("\n", "\r\n\r\n"), json.dumps(RECORDS, indent=1)])
@pytest.mark.parametrize("zipped", [True, False])
def test_json(tmp_path: Path, name: str, text: str, zipped: bool) -> None:
    source = write(tmp_path / (name + ".gz" * zipped), gzip.compress(text.encode()) if zipped else text)
    assert content(source) == [
        ("No rash.", ["No", "rash."], ["O", "B-X"], "7", ()),
        ("\u2028Fever\x85", ["Fever"], ["B-X"], None, ()),
    ]


@pytest.mark.parametrize(
    "text", [COLUMNS, COLUMNS.replace("\t", " "), COLUMNS.replace("\t", " NN  _ "), "\n" + COLUMNS[:-1]]
)
@pytest.mark.parametrize("name", ["a.tsv", "a.conll.gz"])
def test_conll(tmp_path: Path, text: str, name: str) -> None:
    assert content(write(tmp_path / name, text.replace("\n", "\r\n"))) == [
        (None, ["No", "rash"], ["O", "B-X"], None, ()),
        (None, ["Fever"], ["B-X"], None, ()),
    ]


def test_conll_documents_are_groups_and_brackets_are_words(tmp_path: Path) -> None:
    text = "[\tO\n\n-DOCSTART-\tO\n\nNo\tO\n-DOCSTART- -X- O\nFever\tB-X\n\n]\tO"
    read = rows(write(tmp_path / "a.txt", text))
    assert [(row.words, row.group) for row in read] == [(["["], None), (["No"], "1"), (["Fever"], "2"), (["]"], "2")]
    assert [(row.place.record, row.place.line) for row in read] == [(1, 1), (2, 5), (3, 7), (4, 9)]


def test_a_byte_order_mark_is_taken_off_and_noted(tmp_path: Path) -> None:
    for name, text in [("a.jsonl", LINES), ("a.json", json.dumps(RECORDS)), ("a.tsv", f"-DOCSTART- O\n{COLUMNS}")]:
        read = rows(write(tmp_path / name, "\ufeff" + text))
        assert [row.rules for row in read] == [(Rule.BOM,), ()]
        assert read[0].words[0] == "No"


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ('{"text": "ZQ", "labels": [{"word": "Z', Rule.NOT_JSON),
        ("[" * 100_000, Rule.NOT_JSON),
        ('{"text": ' + "9" * 5000 + "}", Rule.NOT_JSON),
        ("3", Rule.WRONG_TYPE),
        ('{"text": null, "labels": []}', Rule.WRONG_TYPE),
        ('{"text": "ZQ", "labels": {}}', Rule.WRONG_TYPE),
        ('{"text": "ZQ", "labels": ["ZQ"]}', Rule.WRONG_TYPE),
        ('{"text": "ZQ", "labels": [{"word": "ZQ", "entity": 1}]}', Rule.WRONG_TYPE),
        ('{"text": "ZQ", "labels": [], "group": ["a"]}', Rule.WRONG_TYPE),
        ('{"labels": []}', Rule.MISSING_KEY),
        ('{"text": "ZQ"}', Rule.MISSING_KEY),
        ('{"text": "ZQ", "labels": [{"word": "ZQ"}]}', Rule.MISSING_KEY),
    ],
)
def test_a_wrong_line_is_noted_and_the_next_is_read(tmp_path: Path, line: str, rule: Rule) -> None:
    read = rows(write(tmp_path / "a.jsonl", f"\n{LINES}\n{line}\n{LINES}"))
    assert [row.rules for row in read] == [(), (), (rule,), (), ()]
    assert (read[2].place.record, read[2].place.line) == (3, 4)


def test_tags_of_a_faulty_record_are_read_as_far_as_they_can_be(tmp_path: Path) -> None:
    labels = [{"word": 1, "entity": "B-X"}, {"word": "a", "entity": "I-X"}, {"word": "b"}, 3]
    (row,) = rows(write(tmp_path / "a.jsonl", json.dumps({"text": "a", "labels": labels})))
    assert row.tags == ["B-X", "I-X"]


@pytest.mark.parametrize(
    ("text", "line"),
    [('[\n{"text": "ZQ",\n"labels" []}]', 3), ('[\n\n{"text": "ZQ"},\n', 3), ("[" * 100_000, 1)],
)
def test_a_broken_list_is_named_by_line(tmp_path: Path, text: str, line: int) -> None:
    with pytest.raises(InputError, match=rf"Q103.*line {line}, column"):
        rows(write(tmp_path / "a.json", text))


SET = {"tokens": [["No", "rash"], ["Fever"]], "ner_tags": [[0, 1], [1]], "group": ["a", None]}
TAGS = datasets.ClassLabel(names=["O", "B-X"])
EXPECTED = [(None, ["No", "rash"], ["O", "B-X"], "a", ()), (None, ["Fever"], ["B-X"], None, ())]


def features(tag: object) -> datasets.Features:
    words, group = datasets.Sequence(datasets.Value("string")), datasets.Value("string")
    return datasets.Features({"tokens": words, "ner_tags": datasets.Sequence(tag), "group": group})


def test_a_saved_dataset(tmp_path: Path) -> None:
    data = datasets.Dataset.from_dict(SET, features(TAGS))
    data.save_to_disk(tmp_path / "one")
    assert content(str(tmp_path / "one")) == EXPECTED
    datasets.DatasetDict({"train": data, "test": data}).save_to_disk(tmp_path / "two")
    assert content(f"{tmp_path / 'two'}:train") == EXPECTED
    with pytest.raises(InputError, match=r"Q105.*train, test"):
        rows(str(tmp_path / "two"))


def test_a_dataset_that_load_dataset_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "set").mkdir()
    datasets.Dataset.from_dict(SET, features(TAGS)).to_parquet(tmp_path / "set" / "train.parquet")
    assert content(str(tmp_path / "set")) == content(f"{tmp_path / 'set'}:train") == EXPECTED


def test_a_dataset_with_tags_as_strings(tmp_path: Path) -> None:
    named = {**SET, "ner_tags": [["O", "B-X"], ["B-X"]]}
    datasets.Dataset.from_dict(named, features(datasets.Value("string"))).save_to_disk(tmp_path / "set")
    assert content(str(tmp_path / "set")) == EXPECTED


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_a_dataset_in_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    data = datasets.Dataset.from_dict({**SET, "ner_tags": [["O", "B-X"], ["B-X"]]}, features(datasets.Value("string")))
    (data.to_parquet if name.endswith("parquet") else data.to_json)(tmp_path / name)
    assert name == "a.jsonl" or detect(str(tmp_path / name)) is Format.DATASETS
    read = read_rows(str(tmp_path / name), Format.DATASETS)
    assert [(row.text, row.words, row.tags, row.group, row.rules) for row in read] == EXPECTED


def test_groups_of_a_dataset_are_those_of_json(tmp_path: Path) -> None:
    columns = {"tokens": [["a"]] * 3, "ner_tags": [["O"]] * 3}
    datasets.Dataset.from_dict({**columns, "group": [17.0, float("nan"), None]}).save_to_disk(tmp_path / "numbers")
    assert [row.group for row in rows(str(tmp_path / "numbers"))] == ["17", None, None]
    datasets.Dataset.from_dict({**columns, "group": [["x"]] * 3}).save_to_disk(tmp_path / "lists")
    assert {row.rules for row in rows(str(tmp_path / "lists"))} == {(Rule.WRONG_TYPE,)}


def test_faulty_rows_of_a_dataset(tmp_path: Path) -> None:
    faulty = {"tokens": [["a"], ["a", None], ["a"], None], "ner_tags": [[1, 0], [1, 0], [-1], None], "group": [""] * 4}
    datasets.Dataset.from_dict(faulty, features(TAGS)).save_to_disk(tmp_path / "set")
    rules = [row.rules for row in rows(str(tmp_path / "set"))]
    assert rules == [(Rule.UNPAIRED,), (Rule.WRONG_TYPE,), (Rule.WRONG_TYPE,), ()]


def test_a_missing_input() -> None:
    with pytest.raises(InputError, match="Q001"):
        detect("nowhere.jsonl")
    assert detect("some/name:train") is Format.DATASETS
    with pytest.raises(InputError, match="Q001"):
        detect(r"C:\Users\me\notes.json")
