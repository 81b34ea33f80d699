from __future__ import annotations

import pytest
import spacy
from spacy.tokens import Doc, Span
from spacy.training import Example
from spacy.vocab import Vocab

from spacy_qlora.engine.window import IGNORED
from spacy_qlora.text.bio import BIO
from spacy_qlora.text.gold import gold_tags

XY = BIO(["X", "Y"])
OUT, BX, IX, BY, IY = range(5)
VOCAB = Vocab()


def make(words: list[str], spaces: list[bool] | None = None) -> Doc:
    return Doc(VOCAB, words=words, spaces=spaces)


def tags_of(predicted: Doc, reference: Doc) -> list[int]:
    return gold_tags(Example(predicted, reference), XY).tolist()


def annotated(words: list[str], *spans: tuple[int, int, str], spaces: list[bool] | None = None) -> Doc:
    doc = make(words, spaces)
    doc.ents = [Span(doc, start, end, label) for start, end, label in spans]
    return doc


def test_mentions_of_one_two_and_more_tokens() -> None:
    words = ["a", "b", "c", "d", "e", "f", "g"]
    gold = annotated(words, (0, 1, "X"), (1, 3, "Y"), (3, 6, "X"))
    assert tags_of(make(words), gold) == [BX, BY, IY, BX, IX, IX, OUT]


def test_adjacent_mentions_of_one_label() -> None:
    words = ["a", "b", "c"]
    assert tags_of(make(words), annotated(words, (0, 1, "X"), (1, 3, "X"))) == [BX, BX, IX]


def test_no_entities_is_annotation_and_unset_is_none() -> None:
    words = ["a", "b"]
    assert tags_of(make(words), annotated(words)) == [OUT, OUT]
    assert tags_of(make(words), make(words)) == [IGNORED, IGNORED]


def test_missing_tokens_are_ignored() -> None:
    words = ["a", "b", "c"]
    gold = make(words)
    gold.set_ents([Span(gold, 0, 1, "X")], default="missing")
    assert tags_of(make(words), gold) == [BX, IGNORED, IGNORED]


def test_a_mention_that_cuts_a_token_is_ignored_there_and_nowhere_else() -> None:
    nlp = spacy.blank("en")  # keeps "PCP)-induced" whole
    text = "the PCP)-induced rash"
    example = Example.from_dict(nlp.make_doc(text), {"entities": [(4, 7, "X"), (17, 21, "Y")]})
    assert [token.text for token in example.predicted] == ["the", "PCP)-induced", "rash"]
    assert gold_tags(example, XY).tolist() == [OUT, IGNORED, BY]


def test_a_mention_that_ends_inside_a_token_is_ignored_in_all_its_tokens() -> None:
    gold = annotated(["took", "vitamin", "D", "."], (1, 3, "X"), spaces=[True, True, False, False])
    predicted = make(["took", "vitamin", "D."], [True, True, False])
    assert tags_of(predicted, gold) == [OUT, IGNORED, IGNORED]


@pytest.mark.parametrize(
    ("words", "spaces", "expected"),
    [
        (["chest", "pain", "today"], [True, True, False], [BX, IX, OUT]),
        (["ch", "est", "pain", "to", "day"], [False, True, True, False, False], [BX, IX, IX, OUT, OUT]),
        (["chest pain", "today"], [True, False], [BX, OUT]),
        (["chest", "pain today"], [True, False], [IGNORED, IGNORED]),
    ],
)
def test_other_tokens_than_the_gold(words: list[str], spaces: list[bool], expected: list[int]) -> None:
    gold = annotated(["chest", "pain", "today"], (0, 2, "X"), spaces=[True, True, False])
    assert tags_of(make(words, spaces), gold) == expected


def test_an_empty_doc() -> None:
    assert tags_of(make([]), make([])) == []


def test_a_mention_begins_where_there_is_something_to_read() -> None:
    words = ["\n", "\t", "chest", "pain", "\n", "a"]
    gold = annotated(words, (0, 5, "X"), spaces=[False] * 6)
    assert tags_of(make(words, [False] * 6), gold)[2:4] == [BX, IX]
    gold = annotated(words, (0, 1, "X"), (2, 4, "X"), spaces=[False] * 6)
    assert tags_of(make(words, [False] * 6), gold)[2:4] == [BX, IX]


def test_a_mention_of_the_last_blank_alone() -> None:
    words = ["chest", "\n"]
    assert tags_of(make(words), annotated(words, (1, 2, "X"))) == [OUT, BX]
