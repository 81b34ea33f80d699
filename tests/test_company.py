"""Components of others that read doc.ents."""

from __future__ import annotations

from pathlib import Path

import pytest
import spacy
from spacy import displacy

TEXT = "History of asthma. Started lisinopril; cough and chest pain resolved."
FOUND = ["asthma", "lisinopril", "cough", "chest pain"]


def test_negspacy(trained: Path) -> None:
    pytest.importorskip("negspacy")
    from negspacy.negation import Negex  # noqa: F401

    nlp = spacy.load(trained)
    nlp.add_pipe("sentencizer", first=True)
    nlp.add_pipe("negex", config={"ent_types": ["Disease", "Symptom"]})
    assert {ent.text: ent._.negex for ent in nlp(TEXT).ents} == dict.fromkeys(FOUND, False)
    denied = nlp("No history of asthma. Started lisinopril; denies cough and chest pain.")
    assert {ent.text: ent._.negex for ent in denied.ents if ent.text in ("asthma", "lisinopril")} == {
        "asthma": True,
        "lisinopril": False,
    }


def test_medspacy(trained: Path) -> None:
    pytest.importorskip("medspacy")
    import medspacy.context
    import medspacy.section_detection  # noqa: F401

    nlp = spacy.load(trained)
    nlp.add_pipe("sentencizer", first=True)
    nlp.add_pipe("medspacy_context")
    nlp.add_pipe("medspacy_sectionizer")
    doc = nlp("Past medical history:\nHistory of asthma.")
    assert [(ent.text, ent._.is_historical) for ent in doc.ents] == [("asthma", True)]
    assert doc.ents[0]._.section_category == "past_medical_history"


def test_displacy(trained: Path) -> None:
    html = displacy.render(spacy.load(trained)(TEXT), style="ent")
    assert all(name in html for name in FOUND)


@pytest.mark.parametrize("first", [True, False])
def test_a_sentencizer_before_and_behind(trained: Path, first: bool) -> None:
    nlp = spacy.load(trained)
    nlp.add_pipe("sentencizer", first=first or None, last=None if first else True)
    doc = nlp(TEXT)
    assert [ent.text for ent in doc.ents] == FOUND
    assert [[ent.text for ent in sentence.ents] for sentence in doc.sents] == [FOUND[:1], FOUND[1:]]


def test_a_ruler_behind_fills_in(trained: Path) -> None:
    nlp = spacy.load(trained)
    ruler = nlp.add_pipe("entity_ruler")
    patterns = [{"label": "Time", "pattern": "History"}, {"label": "Other", "pattern": "asthma"}]
    ruler.add_patterns(patterns)  # type: ignore[attr-defined]
    found = [(ent.text, ent.label_) for ent in nlp(TEXT).ents]
    assert found[:2] == [("History", "Time"), ("asthma", "Disease")]
