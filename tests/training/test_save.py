"""Pipelines that appear whole or not at all."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
import spacy

from spacy_qlora.errors import InputError
from spacy_qlora.training.save import save_pipeline


def test_an_old_pipeline_is_replaced(trained: Path, tmp_path: Path) -> None:
    nlp = spacy.load(trained)
    save_pipeline(nlp, tmp_path / "model")
    (tmp_path / "model" / "left_over").touch()
    nlp("ZQXPATIENT has asthma.")
    save_pipeline(nlp, tmp_path / "model")
    assert not (tmp_path / "model" / "left_over").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert json.loads((tmp_path / "model" / "vocab" / "strings.json").read_text()) == ["Disease", "Drug", "Symptom"]
    assert "ZQXPATIENT" in nlp.vocab.strings, "the pipeline in memory is left as it is"


def test_texts_are_left_out_of_two_components_as_well(trained: Path, tmp_path: Path) -> None:
    nlp = spacy.load(trained)
    nlp.add_pipe("qlora_ner", name="second", source=spacy.load(trained))
    nlp("ZQXPATIENT has asthma.")
    save_pipeline(nlp, tmp_path / "model")
    assert json.loads((tmp_path / "model" / "vocab" / "strings.json").read_text()) == ["Disease", "Drug", "Symptom"]


def test_what_else_stands_there_can_stay(trained: Path, tmp_path: Path) -> None:
    save_pipeline(spacy.load(trained), tmp_path / "model")
    (tmp_path / "model" / "LICENSE").write_text("MIT")
    (tmp_path / "model" / ".git").mkdir()
    (tmp_path / "model" / ".git" / "HEAD").write_text("main")
    save_pipeline(spacy.load(trained), tmp_path / "model", keep=True)
    assert (tmp_path / "model" / "LICENSE").read_text() == "MIT"
    assert (tmp_path / "model" / ".git" / "HEAD").read_text() == "main"


def test_labels_of_other_components_are_kept(trained: Path, tmp_path: Path) -> None:
    nlp = spacy.load(trained)
    nlp.add_pipe("entity_ruler").add_patterns([{"label": "Dose", "pattern": "81 mg"}])  # type: ignore[attr-defined]
    save_pipeline(nlp, tmp_path / "model")
    found = spacy.load(tmp_path / "model")("Aspirin 81 mg daily")
    assert ("81 mg", "Dose") in [(ent.text, ent.label_) for ent in found.ents]


def test_something_else_is_not_replaced(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(InputError) as raised:
        save_pipeline(spacy.load(trained), tmp_path)
    assert raised.value.code == "Q004"


def test_what_was_there_stays_where_saving_fails(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nlp = spacy.load(trained)
    save_pipeline(nlp, tmp_path / "model")
    before = {path: path.read_bytes() for path in (tmp_path / "model").rglob("*") if path.is_file()}

    def write_a_part(folder: Path) -> None:
        (folder / "meta.json").touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(nlp, "to_disk", write_a_part)
    with pytest.raises(OSError, match="No space left") as raised:
        save_pipeline(nlp, tmp_path / "model")
    assert raised.value.filename == str(tmp_path / "model")
    assert {path: path.read_bytes() for path in (tmp_path / "model").rglob("*") if path.is_file()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
