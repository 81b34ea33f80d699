"""Which pieces of the model stand for which tokens of spaCy, by characters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from spacy.tokens import Doc
from tokenizers import Encoding, Tokenizer

from spacy_qlora.engine.window import Window
from spacy_qlora.text.windows import cut_windows

NO_PIECE = -1


def encode_docs(tokenizer: Tokenizer, docs: Sequence[Doc]) -> list[Encoding]:
    """Each doc's raw text, tokenised once; no special pieces."""
    return tokenizer.encode_batch([doc.text for doc in docs], add_special_tokens=False)


def last_pieces(doc: Doc, offsets: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    """The last piece of each token: the one by which a causal model has read all of it.

    A piece belongs to the tokens that its non-blank characters overlap: the blank that a piece carries before or after
    its word makes it no part of the neighbour, and pieces that share a character all belong to that character's token.

    offsets: (first character, character behind the last) of each piece in `doc.text`, in order.
    RETURNS: [tokens] piece numbers, NO_PIECE for tokens of blanks alone.
    """
    text = doc.text
    piece_at = np.full(len(text) + 1, NO_PIECE, dtype=np.int64)  # the last piece over each character
    for piece, (start, end) in enumerate(offsets):
        piece_at[start:end] = piece
    blank = np.fromiter((char.isspace() for char in text), dtype=bool, count=len(text))
    piece_at[:-1][blank] = NO_PIECE
    starts = doc.to_array("IDX").astype(np.int64) if len(doc) else np.zeros(0, dtype=np.int64)
    # The blank behind a token is counted with it, which changes nothing: it belongs to no piece.
    return np.maximum.reduceat(piece_at, starts) if len(doc) else starts


def doc_windows(
    doc: Doc, encoding: Encoding, size: int, overlap: int, causal: bool, tags: NDArray[np.int64] | None = None
) -> list[Window]:
    """The windows of a doc, each of at most `size` pieces; every token with a piece is scored by exactly one of them.

    overlap: Pieces that neighbouring windows share, at most half of `size`.
    causal: Whether a piece sees only those before it; decides which window serves a token best.
    tags: [tokens] tag numbers for training.
    """
    last = last_pieces(doc, encoding.offsets)
    tokens = np.flatnonzero(last != NO_PIECE)
    return cut_windows(np.asarray(encoding.ids), last[tokens], tokens, size, overlap, causal, tags)
