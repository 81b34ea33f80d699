from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
import spacy
from click.testing import Result
from spacy.cli._util import app
from spacy.tokens import Doc, DocBin
from typer.testing import CliRunner

import spacy_qlora.cli  # noqa: F401
from spacy_qlora.corpus.rules import Action, Rule
from tests.conftest import file_size_limit

MARK = "ZQXPATIENT"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["qlora", "convert", *map(str, arguments)], prog_name="spacy")


def record(text: str, *tags: str, **more: Any) -> dict[str, Any]:
    labels = [{"word": word, "entity": tag} for word, tag in zip(text.split(), tags, strict=True)]
    return {"text": text, "labels": labels, **more}


def notes(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [record(f"Note {i} has fever", "O", "O", "O", "B-Symptom") for i in range(start, start + count)]


def write(path: Path, records: list[Any]) -> Path:
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in records), "utf8")
    return path


def read(out: Path, split: str) -> list[Doc]:
    return list(DocBin().from_disk(out / f"{split}.spacy").get_docs(spacy.blank("en").vocab))


def report(out: Path) -> dict[str, Any]:
    return json.loads((out / "report.json").read_text("utf8"))


def names(out: Path) -> list[str]:
    return sorted(path.name for path in out.iterdir())


# What converts


def test_one_input_is_split(tmp_path: Path) -> None:
    grouped = [{**note, "group": f"patient {i // 4}"} for i, note in enumerate(notes(40))]
    source, out = write(tmp_path / "a.jsonl", grouped), tmp_path / "out"
    result = run(source, out)
    assert result.exit_code == 0, result.output
    assert names(out) == ["dev.spacy", "report.json", "test.spacy", "train.spacy"]
    docs = {split: read(out, split) for split in ("train", "dev", "test")}
    assert {split: len(part) for split, part in docs.items()} == {"train": 32, "dev": 4, "test": 4}
    assert {ent.text for part in docs.values() for doc in part for ent in doc.ents} == {"fever"}
    groups = [{int(doc[1].text) // 4 for doc in part} for part in docs.values()]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 10

    found = report(out)
    assert (found["mentions_in"], found["mentions_out"], found["seed"]) == (40, 40, 0)
    assert found["splits"]["dev"]["labels"] == {"Symptom": 4}
    assert found["inputs"]["all"]["records_in"] == found["inputs"]["all"]["records_out"] == 40
    assert "Symptom" in result.output
    assert "40 of 40 mentions kept" in " ".join(result.output.split())


def test_neighbours_of_a_group_are_joined(tmp_path: Path) -> None:
    grouped = [{**note, "group": f"patient {i // 4}"} for i, note in enumerate(notes(40))]
    source, out = write(tmp_path / "a.jsonl", grouped), tmp_path / "out"
    result = run(source, out, "--join", "1000")
    assert result.exit_code == 0, result.output
    assert {split: len(read(out, split)) for split in ("train", "dev", "test")} == {"train": 8, "dev": 1, "test": 1}
    assert report(out)["mentions_out"] == 40
    assert {ent.text for doc in read(out, "train") for ent in doc.ents} == {"fever"}


def test_sentences_that_many_notes_share_stay_in_each(tmp_path: Path) -> None:
    """A note without them would have holes; notes that are wholly alike stay in one split."""
    grouped = []
    for patient in range(30):
        own = notes(1, start=patient // 2)[0]  # two patients with the same notes
        grouped += [{**note, "group": f"patient {patient}"} for note in (*notes(2, start=100), own)]
    source, out = write(tmp_path / "a.jsonl", grouped), tmp_path / "out"
    result = run(source, out, "--join", "1000", "--split", "0.6,0.2,0.2")
    assert result.exit_code == 0, result.output
    assert report(out)["mentions_out"] == report(out)["mentions_in"] == 90
    texts = {split: [doc.text for doc in read(out, split)] for split in ("dev", "test")}
    assert all(len(found) == 6 and len(set(found)) == 3 for found in texts.values())
    assert not set(texts["dev"]) & set(texts["test"])
    assert "2 texts of dev.spacy stand in train.spacy too, in other groups." in result.stderr
    assert "joined nothing" not in result.stderr


def test_a_join_that_finds_no_neighbours_says_so(tmp_path: Path) -> None:
    grouped = [{**note, "group": f"patient {i % 4}"} for i, note in enumerate(notes(40))]
    result = run(write(tmp_path / "a.jsonl", grouped), tmp_path / "out", "--join", "1000")
    assert "joined nothing" in result.stderr


def test_labels_that_differ_in_case_alone_are_named_and_kept(tmp_path: Path) -> None:
    records = [*notes(20), *(record(f"Note {i} has pain", "O", "O", "O", "B-SYMPTOM") for i in range(20))]
    result = run(write(tmp_path / "a.jsonl", records), tmp_path / "out")
    assert "differ in case alone are labels of their own: SYMPTOM, Symptom." in " ".join(result.stderr.split())
    assert report(tmp_path / "out")["splits"]["train"]["labels"].keys() == {"SYMPTOM", "Symptom"}
    assert "differ in case" not in run(write(tmp_path / "b.jsonl", notes(20)), tmp_path / "out").stderr


@pytest.mark.parametrize("first", [("1", "2"), ("1", "1")])
def test_columns_that_number_the_words_are_refused(tmp_path: Path, first: tuple[str, str]) -> None:
    (tmp_path / "a.conll").write_text(f"{first[0]}\tNo\tO\n{first[1]}\tfever\tB-Symptom\n\n" * 5)
    assert_fails(run(tmp_path / "a.conll", tmp_path / "out"), "Q130")


def test_comments_between_columns_are_no_words(tmp_path: Path) -> None:
    (tmp_path / "a.conll").write_text(
        "".join(f"# sent_id = {i}\nNo\tO\nfever\tB-Symptom\n{i}\tO\n#\tO\n\n" for i in range(10))
    )
    result = run(tmp_path / "a.conll", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert report(tmp_path / "out")["mentions_out"] == 10
    assert all(doc[-1].text == "#" for doc in read(tmp_path / "out", "train"))


@pytest.mark.parametrize("comment", ["# newdoc", "# id 3f\tdomain=en", "# text = No fever"])
def test_comments_of_many_kinds(tmp_path: Path, comment: str) -> None:
    (tmp_path / "a.conll").write_text(f"{comment}\nNo\tO\nfever\tB-Symptom\n\n" + "A\tO\n\nB\tO\n\nC\tO\n")
    assert run(tmp_path / "a.conll", tmp_path / "out").exit_code == 0
    assert report(tmp_path / "out")["inputs"]["all"]["problems"] == {}


@pytest.mark.parametrize("line", ["#flu S-Disease", "#flu Disease", "#flu\tS-Disease"])
def test_words_that_look_like_comments_are_not_left_out_unseen(tmp_path: Path, line: str) -> None:
    blank = "\t" if "\t" in line else " "
    lines = "".join(
        f"Note{i} O\nfever B-Symptom\n{line}\n\n{line}\n\nPain{i} B-Symptom\n\n".replace(" ", blank) for i in range(5)
    )
    (tmp_path / "a.conll").write_text(lines)
    run(tmp_path / "a.conll", tmp_path / "out", "--split", "1,0,0")
    assert report(tmp_path / "out")["inputs"]["all"]["problems"]["unknown_tag"]["count"] == 10


def test_lines_that_carriage_returns_end(tmp_path: Path) -> None:
    lines = "".join(f"Note{i}\tO\rfever\tB-Symptom\r\r" for i in range(10))
    (tmp_path / "a.conll").write_bytes(lines.encode())
    assert run(tmp_path / "a.conll", tmp_path / "out").exit_code == 0
    assert report(tmp_path / "out")["mentions_out"] == 10
    assert {ent.text for doc in read(tmp_path / "out", "train") for ent in doc.ents} == {"fever"}


def test_labels_that_the_training_split_lacks_are_named(tmp_path: Path) -> None:
    train, test = (
        write(tmp_path / "a.jsonl", notes(20)),
        write(tmp_path / "b.jsonl", [record("Took 5 mg", *"OO", "B-Dose")]),
    )
    result = run("--train", train, "--test", test, tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "test.spacy has labels that train.spacy lacks: Dose." in " ".join(result.stderr.split())


def test_the_training_split_is_joined_in_several_ways(tmp_path: Path) -> None:
    grouped = [{**note, "group": f"patient {i // 40}"} for i, note in enumerate(notes(400))]
    source, out, once = write(tmp_path / "a.jsonl", grouped), tmp_path / "out", tmp_path / "once"
    for folder, more in ((out, ("--views", 3)), (once, ())):
        result = run(source, folder, "--join", 100, "--split", "0.5,0.25,0.25", *more)
        assert result.exit_code == 0, result.output
    texts, first = ([doc.text for doc in read(folder, "train")] for folder in (out, once))
    assert texts[: len(first)] == first
    assert len(set(texts)) > 2 * len(first)
    assert report(out)["splits"]["train"]["mentions"] == 3 * report(once)["splits"]["train"]["mentions"]
    assert report(out)["mentions_out"] == report(out)["mentions_in"] == 400
    assert (out / "dev.spacy").read_bytes() == (once / "dev.spacy").read_bytes()


def test_views_without_joining_are_refused(tmp_path: Path) -> None:
    result = run(write(tmp_path / "a.jsonl", notes(9)), tmp_path / "out", "--views", 2)
    assert (result.exit_code, "--views needs --join" in result.output) == (2, True)


def test_the_same_seed_gives_the_same_files(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", notes(30))
    for out, seed in [("one", 5), ("two", 5), ("three", 6)]:
        assert run(source, tmp_path / out, "--seed", seed, "--split", "0.5,0.25,0.25").exit_code == 0
    one, two, three = ((tmp_path / out / "dev.spacy").read_bytes() for out in ("one", "two", "three"))
    assert one == two != three


def test_split_inputs_are_not_split_again_and_leaks_are_named(tmp_path: Path) -> None:
    train = write(tmp_path / "train.jsonl", [*notes(3), notes(1)[0]])
    dev = write(tmp_path / "dev.jsonl", [*notes(2, start=2), notes(1, start=3)[0]])
    test = write(tmp_path / "test.jsonl", notes(1, start=9))
    result = run("--train", train, "--dev", dev, "--test", test, tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert [len(read(tmp_path / "out", split)) for split in ("train", "dev", "test")] == [2 + 1, 3, 1]
    inputs = report(tmp_path / "out")["inputs"]
    assert inputs["train"]["lost"] == {"duplicate": 1}
    assert inputs["dev"]["problems"]["leak"] == {"code": "Q128", "action": "kept", "count": 1, "records": [1]}
    assert inputs["dev"]["problems"]["repeated"]["records"] == [3]
    assert f"kept: [Q128] {dev}, record 1: " in result.stderr
    assert run("--train", train, "--test", test, tmp_path / "out", "--strict").exit_code == 1


def test_dev_is_taken_from_train_where_none_is_given(tmp_path: Path) -> None:
    train, out = write(tmp_path / "train.jsonl", notes(20)), tmp_path / "out"
    assert run(train, out).exit_code == 0
    assert run("--train", train, out).exit_code == 0
    assert names(out) == ["dev.spacy", "report.json", "train.spacy"], "an earlier test.spacy would leak into this run"
    assert (len(read(out, "train")), len(read(out, "dev"))) == (18, 2)
    assert run("--train", train, out, "--split", "1,0,0").exit_code == 0
    assert names(out) == ["report.json", "train.spacy"]


def test_the_language_tokenizer_keeps_mentions_too(tmp_path: Path) -> None:
    text = "After PCP)-induced psychosis"
    words = [("After", "O"), ("PCP", "B-Drug"), (")", "O"), ("-", "O"), ("induced", "O"), ("psychosis", "B-Disease")]
    labels = [{"word": word, "entity": tag} for word, tag in words]
    train = write(tmp_path / "a.jsonl", [{"text": text, "labels": labels}])
    for tokenizer, count in [("fine", 0), ("spacy", 1)]:
        assert run("--train", train, tmp_path, "--tokenizer", tokenizer, "--split", "1,0,0").exit_code == 0
        (doc,) = read(tmp_path, "train")
        assert (doc.text, [ent.text for ent in doc.ents]) == (text, ["PCP", "psychosis"])
        assert report(tmp_path)["splits"]["train"]["tokens_split"] == count


# What does not. Each record holds the mark, which no message may repeat.

BAD = record(f"{MARK} has fever", "O", "O", "B-Symptom")
FAULTS: dict[Rule, list[Any]] = {
    Rule.NOT_JSON: [json.dumps(BAD)[:-5]],
    Rule.MISSING_KEY: [{"text": MARK}],
    Rule.WRONG_TYPE: [{**BAD, "labels": MARK}],
    Rule.NOT_UNICODE: [{**BAD, "text": f"{MARK} has fever \ud83d"}],
    Rule.EMPTY: [{**BAD, "text": " "}],
    Rule.UNKNOWN_TAG: [record(f"{MARK} has fever", "O", MARK, "B-Symptom")],
    Rule.EMPTY_LABEL: [record(f"{MARK} has fever", "O", "O", "B-")],
    Rule.WORDS_NOT_IN_TEXT: [{**BAD, "text": f"fever {MARK} has"}],
    Rule.AMBIGUOUS_WORDS: [{**BAD, "text": f"{MARK} has fever, high fever"}],
    Rule.DUPLICATE: [BAD, BAD],
    Rule.CONFLICT: [BAD, record(f"{MARK} has fever", "O", "O", "O")],
    Rule.BOM: ["\ufeff" + json.dumps(BAD)],
    Rule.BLANK_WORD: [{**BAD, "labels": [*BAD["labels"], {"word": " ", "entity": "O"}]}],
    Rule.BROKEN_BIO: [record(f"{MARK} has fever", "O", "O", "I-Symptom")],
    Rule.UNCOVERED_TEXT: [{**BAD, "text": f"{MARK} has fever."}],
    Rule.CONTROL_CHARACTER: [{**BAD, "text": f"{MARK} \x07 has fever"}],
}


def assert_fails(result: Result, code: str, lines: int = 1) -> None:
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)
    shown = [line for line in result.stderr.splitlines() if line and "examples/s" not in line]
    assert len(shown) == lines, result.stderr
    assert shown[-1].startswith(f"Error: [{code}] ")
    assert MARK not in result.output + result.stderr
    assert "Traceback" not in result.output + result.stderr


@pytest.mark.parametrize("rule", FAULTS, ids=lambda rule: rule.name)
def test_strict_stops_at_a_broken_rule(tmp_path: Path, rule: Rule) -> None:
    source = write(tmp_path / "a.jsonl", [*notes(4), *FAULTS[rule]])
    result = run(source, tmp_path / "out", "--strict")
    assert_fails(result, rule.code)
    assert f"{source}, record {4 + len(FAULTS[rule])}: " in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("rule", FAULTS, ids=lambda rule: rule.name)
def test_the_default_goes_on_and_counts(tmp_path: Path, rule: Rule) -> None:
    source = write(tmp_path / "a.jsonl", [*notes(4), *FAULTS[rule], *notes(4, start=4)])
    result = run(source, tmp_path / "out")
    assert result.exit_code == 0, result.output
    number = 4 + len(FAULTS[rule])
    assert f"{rule.action.value}: [{rule.code}] {source}, record {number}: " in result.stderr
    assert MARK not in result.output + result.stderr + (tmp_path / "out/report.json").read_text("utf8")
    found = report(tmp_path / "out")
    problems = found["inputs"]["all"]["problems"]
    expected = {"code": rule.code, "action": rule.action.value, "count": 1, "records": [number]}
    assert problems == {rule.name.lower(): expected}
    lost = sum(found["inputs"]["all"]["lost"].values())
    assert found["mentions_in"] - lost == found["mentions_out"] == sum(s["mentions"] for s in found["splits"].values())
    assert (rule.action is Action.DROPPED) == (found["inputs"]["all"]["records_out"] == number + 3)


def test_many_records_that_break_a_rule_are_named_in_few_lines(tmp_path: Path) -> None:
    result = run(write(tmp_path / "a.jsonl", [*notes(9), *[{"text": MARK}] * 200]), tmp_path / "out")
    assert len(result.stderr.splitlines()) == 4
    assert "197 more, see report.json" in result.stderr
    assert "200 of 209 records were dropped" in " ".join(result.stdout.split())
    assert len(report(tmp_path / "out")["inputs"]["all"]["problems"]["missing_key"]["records"]) == 100


LINE = json.dumps(BAD)
COLUMNS = f"{MARK}\tO\nhas\tO\nfever\tB-Symptom\n"
FILES: dict[str, tuple[str, bytes, str]] = {
    "empty": ("a.jsonl", b"", "Q100"),
    "blanks": ("a.txt", b"\n \n", "Q100"),
    "empty list": ("a.json", b"[]", "Q100"),
    "not utf-8": ("a.jsonl", LINE.encode() + b"\n\xe9", "Q101"),
    "utf-16": ("a.json", f"[{LINE}]".encode("utf-16"), "Q101"),
    "columns in latin-1": ("a.tsv", (COLUMNS + "caf\xe9\tO").encode("latin-1"), "Q101"),
    "gzip cut short": ("a.jsonl.gz", gzip.compress(LINE.encode())[:-9], "Q102"),
    "gzip damaged": ("a.jsonl.gz", gzip.compress(LINE.encode())[:-8] + b"\0" * 8, "Q102"),
    "list cut short": ("a.json", f"[{LINE}, {LINE[:30]}".encode(), "Q103"),
    "deep list": ("a.json", f'["{MARK}"'.encode() + b"[" * 100_000, "Q103"),
    "too few": ("a.json", f"[{LINE}]".encode(), "Q108"),
}


@pytest.mark.parametrize(("name", "content", "code"), FILES.values(), ids=FILES)
def test_a_wrong_file(tmp_path: Path, name: str, content: bytes, code: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert_fails(run(tmp_path / name, tmp_path / "out"), code)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "content", "rule"),
    [("a.json", json.dumps([{"text": MARK}]), Rule.MISSING_KEY), ("a.tsv", f"{MARK}\nhas\tO\n", Rule.UNPAIRED)],
)
def test_no_record_left(tmp_path: Path, name: str, content: str, rule: Rule) -> None:
    (tmp_path / name).write_text(content)
    result = run(tmp_path / name, tmp_path / "out")
    assert_fails(result, "Q107", lines=2)
    assert rule.code in result.stderr


@pytest.mark.parametrize("tag", ["Symptom", "S-Symptom"])
def test_no_mention_left(tmp_path: Path, tag: str) -> None:
    rows = [f"{word} {i}\t{'O' if i % 2 else tag}\n\n" for i, word in enumerate([MARK] * 10)]
    (tmp_path / "a.tsv").write_text("".join(rows))
    result = run(tmp_path / "a.tsv", tmp_path / "out")
    assert_fails(result, "Q129", lines=5)  # three records, and how many more
    assert "5 of 10 records" in result.stderr
    assert not (tmp_path / "out").exists()


def saved(path: Path, **columns: Any) -> str:
    datasets.Dataset.from_dict(columns).save_to_disk(path)
    return str(path)


def two_splits(path: Path) -> str:
    data = datasets.Dataset.from_dict({"tokens": [[MARK]], "ner_tags": [["O"]]})
    datasets.DatasetDict({"train": data, "test": data}).save_to_disk(path)
    return str(path)


def broken_files(path: Path) -> str:
    path.mkdir()
    (path / "train.json").write_text(f'{{"tokens": ["{MARK}"], "ner_tags": {MARK}')
    return str(path)


SETS: dict[str, tuple[Callable[[Path], str], str]] = {
    "no tags": (lambda path: saved(path, tokens=[[MARK]]), "Q106"),
    "numbers without names": (lambda path: saved(path, tokens=[[MARK]], ner_tags=[[0]]), "Q106"),
    "no split named": (two_splits, "Q105"),
    "another split named": (lambda path: two_splits(path) + ":dev", "Q105"),
    "broken files": (broken_files, "Q104"),
    "no files": (lambda path: path.mkdir() or str(path), "Q104"),
}


@pytest.mark.parametrize(("make", "code"), SETS.values(), ids=SETS)
def test_a_wrong_dataset(
    tmp_path: Path,
    make: Callable[[Path], str],
    code: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture,
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    source = make(tmp_path / "set")
    capfd.readouterr()
    assert_fails(run(source, tmp_path / "out"), code)
    assert MARK not in "".join(capfd.readouterr())


def test_no_such_input_or_language(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", notes(9))
    assert_fails(run(tmp_path / "b.jsonl", tmp_path / "out"), "Q001")
    assert_fails(run(tmp_path / "b.jsonl", tmp_path / "out", "--format", "json"), "Q003")
    assert_fails(run(source, tmp_path / "out", "--lang", "klingon"), "Q109")


def test_the_output_folder_is_a_file(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", notes(9))
    assert_fails(run(source, source), "Q003")


def test_no_space_left_keeps_what_was_there(tmp_path: Path) -> None:
    source, out = write(tmp_path / "a.jsonl", notes(200)), tmp_path / "out"
    assert run(source, out).exit_code == 0
    before = {path: path.read_bytes() for path in out.iterdir()}
    (out / "dev.spacy.part").symlink_to("/dev/full")
    result = run(source, out, "--seed", 1)
    assert_fails(result, "Q002")
    assert "dev.spacy.part" in result.stderr
    with file_size_limit(1000):
        result = run(source, out, "--seed", 1)
    assert_fails(result, "Q002")
    assert "no space left" in result.stderr
    assert {path: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["out"],
        ["a.jsonl", "b.jsonl", "out"],
        ["a.jsonl", "out", "--train", "a.jsonl"],
        ["a.jsonl", "out", "--dev", "a.jsonl"],
        ["out", "--dev", "a.jsonl"],
        ["a.jsonl", "out", "--split", "0.8,0.2"],
        ["out", "--train", "a.jsonl", "--dev", "b.jsonl", "--split", "0.8,0.1,0.1"],
        ["a.jsonl", "out", "--split", "0.8,0.1,0.2"],
        ["a.jsonl", "out", "--split", "0,0.5,0.5"],
        ["a.jsonl", "out", "--split", "nan,0,0"],
        ["a.jsonl", "out", "--split", "1.5,-0.5,0"],
        ["a.jsonl", "out", "--format", "xml"],
    ],
)
def test_wrong_usage(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Traceback" not in result.output


# What is not its own


@pytest.mark.parametrize("name", ["report.json", "test.spacy"])
@pytest.mark.parametrize("content", ["{}", "mine", "1"])
def test_files_of_another_origin_are_left_alone(tmp_path: Path, name: str, content: str) -> None:
    source = write(tmp_path / "a.jsonl", notes(20))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text(content)
    result = run("--train", source, tmp_path / "out")
    assert result.exit_code == 1
    assert f"[Q004] {tmp_path / 'out' / name}" in result.stderr
    assert names(tmp_path / "out") == [name]
    assert (tmp_path / "out" / name).read_text() == content


def test_groups_may_be_numbers_of_a_table_with_gaps(tmp_path: Path) -> None:
    groups = [float(i // 4) if i < 12 else float("nan") for i in range(16)]
    source = write(tmp_path / "a.jsonl", [note | {"group": groups[i]} for i, note in enumerate(notes(16))])
    result = run(source, tmp_path / "out", "--split", "0.5,0.25,0.25")
    assert result.exit_code == 0, result.output
    assert report(tmp_path / "out")["inputs"]["all"]["records_out"] == 16
    splits = [{int(doc[1].text) // 4 for doc in read(tmp_path / "out", split)} for split in ("train", "dev", "test")]
    assert not any(one & other & {0, 1, 2} for one in splits for other in splits if one is not other)
