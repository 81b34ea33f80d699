"""What is annotated comes out of the .spacy file as it went in."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spacy.tokens import DocBin

from spacy_qlora.corpus.check import check
from spacy_qlora.corpus.docs import make_doc, make_nlp, pack
from spacy_qlora.corpus.locate import is_blank
from spacy_qlora.corpus.record import Mention, Place, Record, Row
from spacy_qlora.corpus.rules import Action

PLACE = Place("notes.jsonl", 1)
NLP = {fine: make_nlp("en", fine=fine) for fine in (True, False)}

BLANKS = st.text(" \n\t\r\xa0\u2009\u200a\u200b\x00\x1c", max_size=3)
# Clinical marks, emoji, a combining accent, right-to-left letters, a zero-width joiner, and whatever else Unicode has.
CHARS = st.sampled_from("abP5.,'-()/%_+\u0301\u200d\u05d0\u0627\U0001f637\ufb01") | st.characters(
    exclude_categories=["Cs"]
)
WORDS = st.text(CHARS, min_size=1, max_size=6).filter(lambda word: not is_blank(word) and word == word.strip())
# The gap before a word, the word, and whether it is outside, begins a mention of a label, or goes on with the last one.
ITEMS = st.lists(st.tuples(BLANKS, WORDS, st.sampled_from(["O", "B-Disease", "B-Drug", "I-"])), min_size=1, max_size=12)


def annotate(items: list[tuple[str, str, str]], tail: str) -> tuple[Row, list[Mention]]:
    text, words, tags, mentions = "", [], [], []
    for gap, word, tag in items:
        start, end = len(text) + len(gap), len(text) + len(gap) + len(word)
        text += gap + word
        if tag == "I-" and (not tags or tags[-1] == "O"):
            tag = "O"
        if tag == "I-":
            mentions[-1] = Mention(mentions[-1].start, end, mentions[-1].label)
            tag += mentions[-1].label
        elif tag != "O":
            mentions.append(Mention(start, end, tag[2:]))
        words.append(word)
        tags.append(tag)
    return Row(PLACE, text + tail, words, tags), mentions


@pytest.mark.parametrize("fine", [True, False])
@given(items=ITEMS, tail=BLANKS)
def test_text_and_mentions_come_back(fine: bool, items: list[tuple[str, str, str]], tail: str) -> None:
    row, mentions = annotate(items, tail)
    record, rules = check(row)
    assert record is not None
    assert all(rule.action is Action.KEPT for rule in rules)
    assert list(record.mentions) == mentions

    content, counts = pack(NLP[fine], [record])
    (doc,) = DocBin().from_bytes(content).get_docs(NLP[fine].vocab)
    assert doc.text == row.text
    assert [Mention(ent.start_char, ent.end_char, ent.label_) for ent in doc.ents] == mentions
    assert doc.has_annotation("ENT_IOB")
    assert counts["mentions"] == len(mentions)


def test_a_token_is_split_where_a_mention_ends_inside() -> None:
    record = Record(PLACE, "After PCP)-induced psychosis.", (Mention(6, 9, "Drug"), Mention(19, 28, "Disease")))
    doc, split = make_doc(NLP[False], record)
    assert split == 1
    assert [token.text for token in doc] == ["After", "PCP", ")-induced", "psychosis", "."]
    assert [ent.text for ent in doc.ents] == ["PCP", "psychosis"]
    assert doc.text == record.text
    assert make_doc(NLP[True], record)[1] == 0


def test_a_doc_without_mentions_says_so() -> None:
    doc, _ = make_doc(NLP[True], Record(PLACE, "No rash.", ()))
    assert doc.ents == ()
    assert [token.ent_iob_ for token in doc] == ["O", "O", "O"]


def test_a_text_longer_than_the_parser_takes() -> None:
    text = "rash " * 250_000
    doc, _ = make_doc(NLP[True], Record(PLACE, text, (Mention(0, 4, "Symptom"),)))
    assert len(text) > NLP[True].max_length
    assert (doc.text == text, len(doc.ents)) == (True, 1)


def test_compatibility_characters_are_not_normalised() -> None:
    row = Row(
        PLACE,
        "10 \ufb01bres, na\u0131\u0308ve",
        ["10", "\ufb01bres", ",", "na\u0131\u0308ve"],
        ["O", "B-X", "O", "B-X"],
    )
    record, _ = check(row)
    assert record is not None
    assert unicodedata.normalize("NFKC", row.text or "") != record.text == row.text
