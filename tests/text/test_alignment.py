from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import spacy
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from spacy.tokens import Doc
from spacy.vocab import Vocab
from tokenizers import Tokenizer

from spacy_qlora.text.alignment import NO_PIECE, doc_windows, encode_docs, end_pieces, token_pieces
from tests.conftest import unigram

FIXTURE_IS_CONSTANT = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
PARTS = [
    "chest pain", "a", "Zürich", "1,000.5", "PCP)-induced", "日本語", "שלום", "\u202eabc\u202c", "مرحبا",
    "😀", "👩\u200d👩\u200d👧", "🇩🇪", "e\u0301", "\u0301", "\u200b", "\ufeff", "\u00ad", "\u2028", "\u00a0", "\u3000",
    " ", "  ", "\n", "\r\n", "\t", " \n \n ", "\x00", "\x07", "\x1c", "\x85",
]  # fmt: skip
TEXTS = st.lists(st.sampled_from(PARTS) | st.text(max_size=4), max_size=12).map("".join)


@st.composite
def docs(draw: st.DrawFn) -> Doc:
    """A text cut into tokens by spaCy's rules, or anywhere at all."""
    text = draw(TEXTS)
    if draw(st.booleans()):
        return ENGLISH(text)
    cuts = sorted(draw(st.sets(st.integers(1, max(len(text) - 1, 1)), max_size=8)))
    words = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    words = [word for word in words if word]
    return Doc(Vocab(), words=words, spaces=[False] * len(words))


ENGLISH: Callable[[str], Doc] = spacy.blank("en").make_doc


def pieces_by_definition(doc: Doc, offsets: list[tuple[int, int]]) -> list[list[int]]:
    """Token by token and character by character."""
    found = []
    for token in doc:
        inside = [i for i in range(token.idx, token.idx + len(token.text)) if not doc.text[i].isspace()]
        found.append([p for p, (start, end) in enumerate(offsets) if any(start <= i < end for i in inside)])
    return found


@given(doc=docs())
@example(doc=ENGLISH(""))
@example(doc=ENGLISH(" \n\t \u3000"))
@example(doc=ENGLISH("chest  pain \x00 \u200b"))
@FIXTURE_IS_CONSTANT
def test_each_token_gets_the_pieces_over_its_characters(tokenizer: Tokenizer, doc: Doc) -> None:
    [encoding] = encode_docs(tokenizer, [doc])
    expected = pieces_by_definition(doc, encoding.offsets)
    pieces, lengths = token_pieces(doc, encoding.offsets)
    assert lengths.tolist() == list(map(len, expected))
    assert pieces.tolist() == [piece for own in expected for piece in own]
    ends = [[min(own, default=NO_PIECE), max(own, default=NO_PIECE)] for own in expected]
    assert end_pieces(doc, encoding.offsets).tolist() == ends


@given(doc=docs())
@FIXTURE_IS_CONSTANT
def test_no_token_but_blanks_goes_without_a_piece(tokenizer: Tokenizer, doc: Doc) -> None:
    [encoding] = encode_docs(tokenizer, [doc])
    last = end_pieces(doc, encoding.offsets)[:, 1]
    assert (last == NO_PIECE).tolist() == [token.text.isspace() for token in doc]
    for token, piece in zip(doc, last, strict=True):
        if piece != NO_PIECE:
            start, end = encoding.offsets[piece]
            final = token.idx + len(token.text.rstrip())
            assert start < final <= end, "reads the token to its end"


@given(doc=docs(), size=st.integers(1, 20), causal=st.booleans())
@FIXTURE_IS_CONSTANT
def test_windows_score_every_token_with_a_piece_once(tokenizer: Tokenizer, doc: Doc, size: int, causal: bool) -> None:
    [encoding] = encode_docs(tokenizer, [doc])
    last = end_pieces(doc, encoding.offsets)[:, 1]
    scored = {}
    for window in doc_windows(doc, encoding, size, size // 2, causal):
        assert len(window) <= size
        for word, position in zip(window.words, window.positions, strict=True):
            assert int(word) not in scored
            scored[int(word)] = window.pieces[position]
    assert scored == {i: encoding.ids[piece] for i, piece in enumerate(last) if piece != NO_PIECE}


def pieces_of(tokenizer: Tokenizer, doc: Doc) -> list[str | None]:
    [encoding] = encode_docs(tokenizer, [doc])
    return [encoding.tokens[p] if p != NO_PIECE else None for p in end_pieces(doc, encoding.offsets)[:, 1]]


def test_a_leading_blank_belongs_to_no_neighbour() -> None:
    """Offsets of "▁pain" begin at the blank, which spaCy counts to "chest"."""
    doc = ENGLISH("denies chest pain.")
    [encoding] = encode_docs(unigram(), [doc])
    assert encoding.offsets[encoding.tokens.index("▁pain")] == (12, 17)
    assert pieces_of(unigram(), doc) == ["s", "▁chest", "▁pain", "."]


def test_a_character_of_several_pieces_is_read_at_the_last(checkpoint: Path) -> None:
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    doc = Doc(Vocab(), words=["é", "😀", "x"], spaces=[False, False, False])
    [encoding] = encode_docs(tokenizer, [doc])
    assert encoding.offsets == [(0, 1)] * 2 + [(1, 2)] * 4 + [(2, 3)]
    assert end_pieces(doc, encoding.offsets)[:, 1].tolist() == [1, 5, 6]


def test_tokens_within_one_piece_share_it() -> None:
    doc = Doc(Vocab(), words=["ch", "est", "pain"], spaces=[False, True, False])
    assert end_pieces(doc, [(0, 5), (5, 10)])[:, 1].tolist() == [0, 0, 1]


def test_pieces_of_no_width_count_for_nothing() -> None:
    doc = Doc(Vocab(), words=["ab"], spaces=[False])
    assert end_pieces(doc, [(0, 0), (0, 2), (2, 2)])[:, 1].tolist() == [1]


@pytest.mark.parametrize("text", ["", " ", "\n\n", " \t\u3000\u2028"])
def test_texts_without_words_have_no_windows(tokenizer: Tokenizer, text: str) -> None:
    doc = ENGLISH(text)
    [encoding] = encode_docs(tokenizer, [doc])
    assert np.all(end_pieces(doc, encoding.offsets)[:, 1] == NO_PIECE)
    assert doc_windows(doc, encoding, 16, 8, causal=False) == []


def test_docs_are_encoded_without_special_pieces(tokenizer: Tokenizer) -> None:
    for encoding in encode_docs(tokenizer, [ENGLISH(text) for text in ("chest pain", "a", "")]):
        assert not any(encoding.special_tokens_mask)
        assert "<s>" not in encoding.tokens
