"""The temperature, and the error that it mends."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import spacy
from spacy.cli._util import app
from spacy.language import Language
from spacy.tokens import Doc, DocBin
from spacy.training import Example
from typer.testing import CliRunner

import spacy_qlora.cli  # noqa: F401
from spacy_qlora.evaluation.calibration import (
    Found,
    best_threshold,
    calibration_error,
    collect,
    fit,
    probabilities,
)
from spacy_qlora.training.calibrate import calibrate_pipeline
from spacy_qlora.training.save import save_pipeline


def sure_by(factor: float, count: int = 4000) -> list[Found]:
    """Entities of one token that are right as often as their probability says, before the logits were multiplied."""
    random = np.random.default_rng(0)
    found = []
    for logit in random.normal(1.5, 1.0, count):
        scores = np.array([[0, logit, 0]], dtype=np.float32)
        right = random.random(1) < 1 / (1 + np.exp(-logit))
        found.append(Found(scores * factor, [(0, 1, 0)], right, int(right.sum())))
    return found


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_the_temperature_takes_back_what_made_the_model_too_sure(factor: float) -> None:
    # I-X, with logit 0, cannot stand first: the probability is that of B-X against O.
    calibration = fit(sure_by(factor))
    assert calibration.temperature == pytest.approx(factor, rel=0.1)
    assert calibration.after < 0.03
    assert calibration.after <= calibration.before + 0.01
    assert calibration.entities == 4000


def test_too_few_entities_tell_nothing() -> None:
    assert fit(sure_by(3.0, 20)).temperature is None
    assert fit([]).before == 0


def test_calibration_error() -> None:
    scores, right = np.array([0.95, 0.95, 0.15, 1.0]), np.array([True, False, False, True])
    # In the last bin 0.95, 0.95 and 1.0 against 2 of 3; in the second 0.15 against none.
    assert calibration_error(scores, right) == pytest.approx((abs(2.9 - 2) + 0.15) / 4)


def test_best_threshold() -> None:
    scores, right, docs = np.array([0.9, 0.31, 0.8, 0.2]), np.array([True, False, True, False]), np.zeros(4, dtype=int)
    assert best_threshold(scores, right, docs, gold=np.array([2])) == 0.35  # F1 1.0; 0.67 for all four
    assert best_threshold(scores, right, docs, gold=np.array([200])) == 0.35
    assert best_threshold(scores, ~right, docs, gold=np.array([2])) == 0.0  # the surer ones are wrong
    assert best_threshold(scores, right | True, docs, gold=np.array([4])) == 0.0


@pytest.mark.parametrize(("times", "threshold"), [(1, 0.0), (50, 0.35)])
def test_a_threshold_that_few_docs_speak_for_may_be_chance(times: int, threshold: float) -> None:
    """Of three docs, two would gain and one would lose: by chance, draws in which it loses are common."""
    scores, right = np.array([0.9, 0.31, 0.9, 0.31, 0.9, 0.31]), np.array([True, False, True, False, True, True])
    docs = np.array([0, 0, 1, 1, 2, 2])
    many = np.concatenate([docs + 3 * i for i in range(times)])
    gold = np.tile([1, 1, 2], times)
    assert best_threshold(np.tile(scores, times), np.tile(right, times), many, gold) == threshold


def test_entities_are_right_where_the_gold_has_just_them(trained: Path, corpus: Path) -> None:
    nlp = spacy.load(trained)
    docs = list(DocBin().from_disk(corpus / "train.spacy").get_docs(nlp.vocab))
    examples = pairs(nlp, docs)
    found = collect(nlp.get_pipe("qlora_ner"), examples)  # type: ignore[arg-type]
    assert sum(len(each.spans) for each in found) >= 5
    assert all(each.right.all() for each in found)
    assert ((probabilities(found, 1.0) > 0.5) & (probabilities(found, 1.0) <= 1)).all()


def test_what_has_no_annotation_tells_nothing(trained: Path, corpus: Path) -> None:
    nlp = spacy.load(trained)
    docs = list(DocBin().from_disk(corpus / "train.spacy").get_docs(nlp.vocab))
    docs[0].set_ents([], missing=[docs[0][:]])  # as where a doc was never read by an annotator
    docs[2].set_ents([docs[2].ents[0]], missing=[docs[2][1:]])
    examples = pairs(nlp, docs)
    found = collect(nlp.get_pipe("qlora_ner"), examples)  # type: ignore[arg-type]
    assert [len(each.spans) for each in found] == [0, 1, 1, 0, 3, 1]
    assert all(each.right.all() for each in found)


def test_what_is_found_is_saved(
    trained: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("spacy_qlora.evaluation.calibration.LEAST", 5)
    nlp, folder = spacy.load(trained), tmp_path / "pipeline"
    nlp.meta["performance"] = {"ents_f": 0.0, "ents_p": 0.0, "of_another": 1.0}
    save_pipeline(nlp, folder)
    (folder / "LICENSE").write_text("for all")
    docs = list(DocBin().from_disk(corpus / "dev.spacy").get_docs(nlp.vocab))
    docs[0].set_ents([])  # so that two of those found are wrong
    calibrate_pipeline(spacy.load(folder), pairs(nlp, docs), folder)
    saved = json.loads((folder / "qlora_ner" / "cfg").read_text())
    assert f"temperature {saved['temperature']}" in capsys.readouterr().out
    assert saved["temperature"] != 1.0
    calibrated = spacy.load(folder)
    scores, performance = calibrated.evaluate(pairs(calibrated, docs)), calibrated.meta["performance"]
    assert (performance["ents_f"], performance["ents_p"]) == pytest.approx((scores["ents_f"], scores["ents_p"]))
    assert performance["of_another"] == 1.0
    assert (folder / "LICENSE").read_text() == "for all"
    assert set(json.loads((folder / "vocab" / "strings.json").read_text())) == set(calibrated.pipe_labels["qlora_ner"])


def test_a_scorer_of_ones_own(
    trained: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("spacy_qlora.evaluation.calibration.LEAST", 5)
    nlp = spacy.load(trained, config={"components.qlora_ner.scorer": None})
    docs = list(DocBin().from_disk(corpus / "dev.spacy").get_docs(nlp.vocab))
    save_pipeline(nlp, tmp_path / "pipeline")
    calibrate_pipeline(nlp, pairs(nlp, docs), tmp_path / "pipeline")
    assert "F1" not in capsys.readouterr().out


def pairs(nlp: Language, docs: list[Doc]) -> list[Example]:
    return [Example(nlp.make_doc(doc.text), doc) for doc in docs]


def test_command(trained: Path, corpus: Path, tmp_path: Path) -> None:
    spacy.load(trained).to_disk(tmp_path / "pipeline")
    arguments = ["qlora", "calibrate", str(tmp_path / "pipeline"), str(corpus / "dev.spacy")]
    result = CliRunner().invoke(app, arguments, prog_name="spacy")
    assert result.exit_code == 0, result.output
    assert "not calibrated; that takes 30 entities found" in result.output
    ruler = (nlp := spacy.blank("en")).add_pipe("entity_ruler")
    ruler.add_patterns([{"label": label, "pattern": label} for label in ("Disease", "Drug", "Symptom")])
    nlp.to_disk(tmp_path / "ruler")
    for name, code in (("none", "Q001"), ("ruler", "Q800")):
        assert code in CliRunner().invoke(app, [*arguments[:2], str(tmp_path / name), arguments[3]]).stderr
    arguments[2] = str(tmp_path / "none")
    result = CliRunner().invoke(app, arguments, prog_name="spacy")
    assert result.exit_code == 1
    assert "[Q001]" in result.stderr
