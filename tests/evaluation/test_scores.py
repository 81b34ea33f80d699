import time
from itertools import pairwise

import pytest
import spacy
from hypothesis import given, settings
from hypothesis import strategies as st
from spacy.scorer import get_ner_prf
from spacy.tokens import Doc, Span
from spacy.training import Example

from spacy_qlora.evaluation.scores import entity_scores
from spacy_qlora.evaluation.unseen import unseen_scores

VOCAB = spacy.blank("en").vocab
LABELS = ["Drug", "Disease", "X", "X-", "-"]


@st.composite
def tokens(draw, text):
    """Any tokenisation of a text without blanks."""
    cuts = sorted(draw(st.sets(st.integers(1, len(text) - 1)))) if len(text) > 1 else []
    words = [text[start:end] for start, end in pairwise([0, *cuts, len(text)])]
    return Doc(VOCAB, words=words, spaces=[False] * len(words))


@st.composite
def annotated(draw, doc, missing):
    """Entities on a doc, adjacent ones among them; with `missing`, tokens or the whole doc may lack annotation."""
    bounds = sorted(draw(st.sets(st.integers(0, len(doc)))))
    pieces = [(start, end, draw(st.sampled_from([None, "missing", *LABELS]))) for start, end in pairwise(bounds)]
    if missing and draw(st.booleans()):
        return doc
    doc.set_ents(
        [Span(doc, start, end, label=label) for start, end, label in pieces if label in LABELS],
        missing=[doc[start:end] for start, end, label in pieces if label == "missing"] if missing else [],
        default="outside",
    )
    return doc


@st.composite
def examples(draw, same_tokens):
    text = "".join(draw(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=12)))
    gold = draw(tokens(text))
    predicted = (
        Doc(VOCAB, words=[t.text for t in gold], spaces=[False] * len(gold)) if same_tokens else draw(tokens(text))
    )
    return Example(draw(annotated(predicted, missing=False)), draw(annotated(gold, missing=True)))


def assert_agreement(batch):
    scores = entity_scores(batch)
    for name in "prf":
        assert scores["seqeval"][name] == pytest.approx(scores[f"ents_{name}"], abs=1e-9)
    expected = get_ner_prf(batch)
    unseen = unseen_scores(batch, known=set())
    assert [unseen[name] for name in "prf"] == pytest.approx([expected[f"ents_{name}"] or 0.0 for name in "prf"])
    assert unseen["support"] == sum(figures["support"] for figures in scores["ents_per_type"].values())
    for label, figures in scores["ents_per_type"].items():
        # spaCy's scorer lists a type even where each of its predictions fell on missing annotation.
        assert figures == unseen["per_type"].get(label, {"p": 0.0, "r": 0.0, "f": 0.0, "support": 0})


@settings(max_examples=150, deadline=None)
@given(st.lists(examples(same_tokens=True), max_size=4))
def test_seqeval_agrees_with_spacy_on_the_same_tokens(batch):
    assert_agreement(batch)


@settings(max_examples=300, deadline=None)
@given(st.lists(examples(same_tokens=False), max_size=4))
def test_seqeval_agrees_with_spacy_on_different_tokens(batch):
    assert_agreement(batch)


def doc_of(words, ents, missing=()):
    doc = Doc(VOCAB, words=words)
    spans = [Span(doc, start, end, label=label) for start, end, label in ents]
    doc.set_ents(spans, missing=[doc[start:end] for start, end in missing], default="outside")
    return doc


def test_figures_and_support_per_type():
    gold = doc_of(["aspirin", "for", "chest", "pain"], [(0, 1, "Drug"), (2, 4, "Symptom")])
    predicted = doc_of(["aspirin", "for", "chest", "pain"], [(0, 1, "Drug"), (3, 4, "Symptom"), (1, 2, "Dose")])
    scores = entity_scores([Example(predicted, gold)])
    assert (scores["ents_p"], scores["ents_r"]) == pytest.approx((1 / 3, 1 / 2))
    assert scores["ents_per_type"] == {
        "Dose": {"p": 0.0, "r": 0.0, "f": 0.0, "support": 0},
        "Drug": {"p": 1.0, "r": 1.0, "f": 1.0, "support": 1},
        "Symptom": {"p": 0.0, "r": 0.0, "f": 0.0, "support": 1},
    }
    assert (scores["docs"], scores["docs_without_annotation"], scores["tokens"]) == (1, 0, 4)


def test_two_predictions_that_meet_on_one_gold_token_both_count():
    gold = doc_of(["PCP)-induced"], [(0, 1, "Drug")])
    predicted = Doc(VOCAB, words=["PCP", ")-", "induced"], spaces=[False, False, False])
    predicted.ents = [Span(predicted, 0, 1, label="Drug"), Span(predicted, 2, 3, label="Drug")]
    scores = entity_scores([Example(predicted, gold)])
    assert (scores["ents_p"], scores["ents_r"]) == (0.5, 1.0)
    assert (scores["seqeval"]["p"], scores["seqeval"]["r"]) == (0.5, 1.0)


def test_predictions_on_missing_annotation_are_neither_right_nor_wrong():
    gold = doc_of(["aspirin", "helped"], [(0, 1, "Drug")], missing=[(1, 2)])
    predicted = doc_of(["aspirin", "helped"], [(0, 1, "Drug"), (1, 2, "Drug")])
    assert entity_scores([Example(predicted, gold)])["seqeval"]["p"] == 1.0


def test_a_doc_without_annotation_is_left_out_and_counted():
    unset = Doc(VOCAB, words=["aspirin"])
    scores = entity_scores([Example(doc_of(["aspirin"], [(0, 1, "Drug")]), unset)])
    assert (scores["ents_f"], scores["seqeval"]["f"], scores["ents_per_type"]) == (0.0, 0.0, {})
    assert scores["docs_without_annotation"] == 1


def test_five_thousand_docs_take_seconds():
    words = ["the", "patient", "took", "aspirin", "against", "chest", "pain", ".", *["and"] * 17]
    batch = [
        Example(doc_of(words, [(3, 4, "Drug"), (6, 7, "Symptom")]), doc_of(words, [(3, 4, "Drug"), (5, 7, "Symptom")]))
        for _ in range(5000)
    ]
    start = time.process_time()
    assert entity_scores(batch)["ents_f"] == pytest.approx(0.5)
    assert time.process_time() - start < 15
