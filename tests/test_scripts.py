"""The scripts of the spaCy project: the made-up corpus and the drawn notes."""

from __future__ import annotations

import hashlib
import json
import runpy
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import spacy
from spacy.tokens import DocBin

SCRIPTS = Path(__file__).parent.parent / "scripts"
SPLITS = ("train", "dev", "test")

Corpus = dict[str, list[dict[str, Any]]]


def run(script: str, *args: object) -> str:
    command = [sys.executable, SCRIPTS / script, *map(str, args)]
    return subprocess.run(command, check=True, capture_output=True, encoding="utf8").stdout


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("demo")
    run("make_corpus.py", folder)
    return {split: json.loads((folder / f"{split}.json").read_text(encoding="utf8")) for split in SPLITS}


def mentions(record: dict[str, Any]) -> list[tuple[str, str]]:
    """The type and words of each mention; fails where the tags are no BIO."""
    found: list[tuple[str, list[str]]] = []
    before = "O"
    for label in record["labels"]:
        prefix, _, entity = label["entity"].partition("-")
        if prefix == "B":
            found.append((entity, [label["word"]]))
        elif prefix == "I":
            assert before in (f"B-{entity}", f"I-{entity}")
            found[-1][1].append(label["word"])
        else:
            assert label["entity"] == "O"
        before = label["entity"]
    return [(entity, " ".join(words).casefold()) for entity, words in found]


def names(corpus: Corpus, *splits: str) -> set[tuple[str, str]]:
    return {mention for split in splits for record in corpus[split] for mention in mentions(record)}


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    run("make_corpus.py", tmp_path, "--sentences", 200, "--seed", 7)
    digest = hashlib.md5(b"".join((tmp_path / f"{split}.json").read_bytes() for split in SPLITS))
    assert digest.hexdigest() == "3f45dec2f3a61c721782b57cfa502acc"  # under every Python, hence the figure


def test_another_seed_gives_another_corpus(tmp_path: Path) -> None:
    for seed in (0, 1):
        run("make_corpus.py", tmp_path / str(seed), "--sentences", 20, "--seed", seed)
    assert (tmp_path / "0/train.json").read_bytes() != (tmp_path / "1/train.json").read_bytes()


def test_splits_have_their_sizes_and_share_neither_text_nor_group(corpus: Corpus) -> None:
    assert {split: len(records) for split, records in corpus.items()} == {"train": 4000, "dev": 500, "test": 500}
    records = [record for split in SPLITS for record in corpus[split]]
    assert len({" ".join(record["text"].casefold().split()) for record in records}) == len(records)
    assert len({record["id"] for record in records}) == len(records)
    groups = [{record["group"] for record in corpus[split]} for split in SPLITS]
    assert len(set.union(*groups)) == sum(map(len, groups))


def test_words_make_up_the_text(corpus: Corpus) -> None:
    for record in (record for split in SPLITS for record in corpus[split]):
        assert "".join(label["word"] for label in record["labels"]) == "".join(record["text"].split())


def test_every_type_has_many_names_in_valid_bio(corpus: Corpus) -> None:
    count = Counter(entity for entity, _ in names(corpus, "train"))
    assert set(count) == {"Disease", "Medication", "Symptom", "Procedure", "LabTest"}
    assert min(count.values()) >= 150


@pytest.mark.parametrize("split", SPLITS)
def test_a_fifth_of_the_sentences_is_without_entities(corpus: Corpus, split: str) -> None:
    assert 0.15 <= sum(not mentions(record) for record in corpus[split]) / len(corpus[split]) <= 0.25


def test_held_out_names_stand_in_test_only(corpus: Corpus) -> None:
    generator = runpy.run_path(str(SCRIPTS / "make_corpus.py"))["Generator"](seed=0)
    held_out = {" ".join(name.split()) for name in map(spaced, generator.lexicon.only_in_test())}
    assert not held_out & {name for _, name in names(corpus, "train", "dev")}
    test = Counter(entity for entity, _ in names(corpus, "test"))
    unseen = Counter(entity for entity, name in names(corpus, "test") if name in held_out)
    assert all(unseen[entity] >= 0.2 * test[entity] for entity in test)


def spaced(name: str) -> str:
    """A name as the mentions above are spelt, with a blank around every punctuation mark."""
    return "".join(letter if letter.isalnum() else f" {letter} " for letter in name)


def test_notes_are_varied(corpus: Corpus) -> None:
    texts = [record["text"] for record in corpus["train"]]
    assert sum(text.islower() for text in texts) > 200
    assert sum(text.isupper() for text in texts) > 50
    assert sum("\n" in text for text in texts) > 100
    words = {entity: set() for entity in ("O", "B-Symptom", "B-LabTest")}
    for label in (label for record in corpus["train"] for label in record["labels"]):
        words.get(label["entity"], set()).add(label["word"].casefold())
    assert {"rash", "falls"} <= words["O"] & words["B-Symptom"]
    assert {"culture", "pt", "iron"} <= words["O"] & words["B-LabTest"]


def test_visualize_draws_the_most_varied_notes_and_what_differs(tmp_path: Path) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("entity_ruler").add_patterns(
        [{"label": "Symptom", "pattern": "cough"}, {"label": "Disease", "pattern": "asthma"}]
    )
    nlp.to_disk(tmp_path / "model")
    gold = [nlp(text) for text in ("Nothing to report", "A cough and no asthma", "Some fever & chills", "asthma")]
    gold[2].ents = [gold[2].char_span(5, 10, label="Symptom")]
    DocBin(docs=gold).to_disk(tmp_path / "gold.spacy")

    out = tmp_path / "metrics" / "notes.html"
    shown = run("visualize.py", tmp_path / "model", tmp_path / "gold.spacy", out, "--notes", 3)
    assert shown.split("\n\n")[:4] == [
        "\nNote 1: predicted as annotated\nA [cough](Symptom) and no [asthma](Disease)",
        "Note 2: annotated\nSome [fever](Symptom) & chills",
        "Note 2: predicted\nSome fever & chills",
        "Note 3: predicted as annotated\n[asthma](Disease)",
    ]
    page = out.read_text(encoding="utf8")
    assert page.count("Symptom") == page.count("Disease") == 2
    assert "Nothing" not in page
    assert "&amp; chills" in page


def test_a_label_is_no_code_in_the_page(tmp_path: Path) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("entity_ruler").add_patterns([{"label": "<img src=x onerror=alert()>", "pattern": "cough"}])
    nlp.to_disk(tmp_path / "model")
    DocBin(docs=[nlp("A cough")]).to_disk(tmp_path / "gold.spacy")
    run("visualize.py", tmp_path / "model", tmp_path / "gold.spacy", tmp_path / "notes.html")
    page = (tmp_path / "notes.html").read_text(encoding="utf8")
    assert "<img" not in page
    assert "&lt;img src=x" in page


def test_visualize_has_errors_of_one_line(tmp_path: Path) -> None:
    (tmp_path / "gold.spacy").write_bytes(b"no docs")
    command = [sys.executable, SCRIPTS / "visualize.py", "none", tmp_path / "gold.spacy", tmp_path / "a.html"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: [Q500]")
    assert done.stderr.count("\n") == 1
