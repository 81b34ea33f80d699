import spacy
from spacy.tokens import Doc, Span
from spacy.training import Example

from spacy_qlora.evaluation.unseen import known_names, unseen_scores

VOCAB = spacy.blank("en").vocab


def doc_of(words, ents, spaces=None):
    doc = Doc(VOCAB, words=words, spaces=spaces)
    doc.ents = [Span(doc, start, end, label=label) for start, end, label in ents]
    return doc


def test_names_are_compared_without_case_and_white_space():
    assert known_names([doc_of(["Chest", "\n", "PAIN"], [(0, 3, "Symptom")])]) == {"chest pain"}


def test_known_names_are_left_out_of_both_sides():
    words = ["Aspirin", ",", "warfarin", ",", "heparin", ",", "ibuprofen"]
    gold = doc_of(words, [(0, 1, "Drug"), (2, 3, "Drug"), (4, 5, "Drug")])
    predicted = doc_of(words, [(0, 1, "Disease"), (2, 3, "Drug"), (6, 7, "Drug")])
    scores = unseen_scores([Example(predicted, gold)], known={"aspirin"})
    figures = {"p": 0.5, "r": 0.5, "f": 0.5, "support": 2}
    assert scores == {**figures, "per_type": {"Drug": figures}}


def test_a_right_prediction_on_finer_tokens_has_the_gold_text():
    gold = doc_of(["PCP)-induced"], [(0, 1, "Drug")], spaces=[False])
    predicted = doc_of(["PCP", ")-", "induced"], [(0, 1, "Drug")], spaces=[False] * 3)
    assert unseen_scores([Example(predicted, gold)], known={"pcp"})["f"] == 1.0
    assert unseen_scores([Example(predicted, gold)], known={"pcp)-induced"})["support"] == 0


def test_without_unseen_names_every_figure_is_zero():
    gold = doc_of(["aspirin"], [(0, 1, "Drug")])
    assert unseen_scores([Example(gold.copy(), gold)], known={"aspirin"}) == {
        "p": 0.0,
        "r": 0.0,
        "f": 0.0,
        "support": 0,
        "per_type": {},
    }
