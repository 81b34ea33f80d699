from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
import spacy
from hypothesis import given, settings
from hypothesis import strategies as st
from spacy.language import Language
from spacy.util import registry

NAME = "spacy-qlora.FineTokenizer.v1"


def make_pipeline(language: str = "en") -> Language:
    return spacy.blank(language, config={"nlp": {"tokenizer": {"@tokenizers": NAME}}})


NLP = make_pipeline()


def tokens(text: str, nlp: Language = NLP) -> list[str]:
    return [token.text for token in nlp.make_doc(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("PCP)-induced", ["PCP", ")", "-", "induced"]),
        ("vitamin D.", ["vitamin", "D", "."]),
        ("K(+)", ["K", "(", "+", ")"]),
        ("IL-2/IL-6", ["IL", "-", "2", "/", "IL", "-", "6"]),
        ("x_y", ["x", "_", "y"]),
        ("rash;cough", ["rash", ";", "cough"]),
        ("fever.Denies", ["fever", ".", "Denies"]),
        ("3\u2013gb", ["3", "\u2013", "gb"]),
        (":)", [":", ")"]),
    ],
)
def test_splits_at_every_mark(text: str, expected: list[str]) -> None:
    assert tokens(text) == expected


@pytest.mark.parametrize(
    "text", ["0.5", "1,000", "1,000.25", "0.5mg", "Dr.", "e.g.", "a.m.", "cafe\u0301", "Zürich", "हिन्दी", "שָׁלוֹם"]
)
def test_keeps_numbers_abbreviations_and_accents_whole(text: str) -> None:
    assert tokens(text) == [text]


def test_contractions_are_split_as_the_language_does() -> None:
    assert tokens("can't we'll") == ["ca", "n't", "we", "'ll"]


def test_a_number_gives_up_the_mark_behind_it() -> None:
    assert tokens("81 mg, 0.5.") == ["81", "mg", ",", "0.5", "."]


@given(
    text=st.text(max_size=40)
    | st.lists(st.sampled_from(["a", "1", ".", ",", "-", " ", "\n", "\u0301", "(", "_"])).map("".join)
)
@settings(max_examples=200, deadline=None)
def test_no_character_is_lost(text: str) -> None:
    assert NLP.make_doc(text).text == text


WORDS = st.text(st.sampled_from("qxzQXZ"), min_size=1, max_size=5)  # no abbreviations among them
MARKS = st.characters(categories=["Pc", "Pd", "Ps", "Pe", "Po", "Sm", "Sc"], exclude_characters="'\u2019")


@given(word=WORDS, mark=MARKS, other=WORDS, number=st.integers(0, 10**6))
@settings(max_examples=200, deadline=None)
def test_a_mention_can_end_at_any_mark(word: str, mark: str, other: str, number: int) -> None:
    assert tokens(f"{word}{mark}{other}") == [word, mark, other]
    assert tokens(f"{mark}{word} {word}{mark}") == [mark, word, word, mark]
    assert tokens(f"{word}{mark}{number}") == [word, mark, str(number)]
    assert unicodedata.category(mark)[0] in "PS"


@pytest.mark.parametrize("language", ["en", "de", "fr", "xx"])
def test_other_languages(language: str) -> None:
    assert tokens("K(+)-Mangel", make_pipeline(language)) == ["K", "(", "+", ")", "-", "Mangel"]


def test_survives_saving(tmp_path: Path) -> None:
    text = "PCP)-induced Dr. vitamin D. 0.5"
    NLP.to_disk(tmp_path)
    assert tokens(text, spacy.load(tmp_path)) == tokens(text)
    assert tokens(text, make_pipeline().from_bytes(NLP.to_bytes())) == tokens(text)


def test_is_registered() -> None:
    assert callable(registry.tokenizers.get(NAME))
