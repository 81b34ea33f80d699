import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc, Span

from spacy_qlora.errors import InputError
from spacy_qlora.evaluation.pipeline import load_pipeline, predict, unknown_labels


@pytest.fixture
def nlp():
    nlp = spacy.blank("en")
    nlp.add_pipe("entity_ruler").add_patterns([{"label": "Drug", "pattern": "aspirin"}])
    return nlp


def gold_doc(nlp, words, label):
    doc = Doc(nlp.vocab, words=words)
    doc.ents = [Span(doc, 0, 1, label=label)]
    return doc


def test_labels_of_the_components_that_set_entities_are_known(nlp):
    nlp.add_pipe("ner").add_label("Dose")
    nlp.add_pipe("textcat").add_label("Note")
    docs = [gold_doc(nlp, ["aspirin"], label) for label in ("Drug", "Dose", "Note")]
    assert unknown_labels(nlp, docs) == (["Note"], ["Dose", "Drug"])


def test_a_component_that_publishes_no_labels_may_predict_any(nlp):
    Language.component("open_vocabulary", assigns=["doc.ents"], func=lambda doc: doc)
    nlp.add_pipe("open_vocabulary")
    assert unknown_labels(nlp, [gold_doc(nlp, ["aspirin"], "Dose")]) == ([], ["Drug"])


def test_a_pipeline_without_entities_knows_no_label():
    nlp = spacy.blank("en")
    assert unknown_labels(nlp, [gold_doc(nlp, ["aspirin"], "Drug")]) == (["Drug"], [])


def test_predicts_from_the_raw_text_in_order(nlp, capsys):
    gold = [gold_doc(nlp, [f"{word}-induced"], "Drug") for word in ("aspirin", "heparin")]
    examples, seconds = predict(nlp, gold)
    assert [example.reference for example in examples] == gold
    assert [[ent.text for ent in example.predicted.ents] for example in examples] == [["aspirin"], []]
    assert seconds > 0
    assert "words/s" in capsys.readouterr().err


def test_what_a_load_error_quotes_is_not_repeated(nlp, tmp_path):
    nlp.to_disk(tmp_path)
    (tmp_path / "entity_ruler" / "patterns.jsonl").write_text('{"label": "Drug", "pattern": "ZQXPATIENT\n')
    with pytest.raises(InputError, match="Q501") as caught:
        load_pipeline(str(tmp_path))
    assert "ZQXPATIENT" not in str(caught.value)
