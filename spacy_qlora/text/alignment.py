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


def token_pieces(doc: Doc, offsets: Sequence[tuple[int, int]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The pieces of each token: those that overlap its non-blank characters.

    The blank that a piece carries before or after its word makes it no part of the neighbour, and pieces that share a
    character all belong to that character's token.

    offsets: (first character, character behind the last) of each piece in `doc.text`, in order.
    RETURNS: Piece numbers, token after token and rising in each, and [tokens] how many each has; blanks have none.
    """
    text, count = doc.text, max(len(offsets), 1)
    starts, ends = np.array(offsets, dtype=np.int64).reshape(-1, 2).T
    widths = ends - starts
    pieces = np.repeat(np.arange(len(widths)), widths)  # of each character that a piece covers, piece after piece
    chars = np.arange(len(pieces)) + np.repeat(starts - (np.cumsum(widths) - widths), widths)
    edges = np.append(doc.to_array("IDX").astype(np.int64), len(text)) if len(doc) else np.zeros(1, dtype=np.int64)
    # The blank behind a token is counted with it, which changes nothing: it belongs to no piece.
    token_at = np.repeat(np.arange(len(doc)), np.diff(edges))
    seen = ~np.fromiter((char.isspace() for char in text), dtype=bool, count=len(text))[chars]
    tokens, pieces = np.divmod(np.unique(token_at[chars[seen]] * count + pieces[seen]), count)
    return pieces, np.bincount(tokens, minlength=len(doc))


def end_pieces(doc: Doc, offsets: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    """The first and the last piece of each token; with the last, a causal model has read all of it.

    offsets: As in `token_pieces`.  RETURNS: [tokens, 2] piece numbers, NO_PIECE for tokens of blanks alone.
    """
    pieces, lengths = token_pieces(doc, offsets)
    found, behind = lengths > 0, np.cumsum(lengths)
    ends = np.full((len(doc), 2), NO_PIECE, dtype=np.int64)
    ends[found, 0] = pieces[(behind - lengths)[found]]
    ends[found, 1] = pieces[behind[found] - 1]
    return ends


def doc_windows(
    doc: Doc,
    encoding: Encoding,
    size: int,
    overlap: int,
    causal: bool,
    tags: NDArray[np.int64] | None = None,
    reads: int = 1,
) -> list[Window]:
    """The windows of a doc, each of at most `size` pieces; every token with a piece is scored by exactly one of them.

    overlap: Pieces that neighbouring windows share, at most half of `size`.
    causal: Whether a piece sees only those before it; decides which window serves a token best.
    tags: [tokens] tag numbers for training.  reads: 1 to read a token at its last piece, 2 at its first and last.
    """
    ends = end_pieces(doc, encoding.offsets)
    tokens = np.flatnonzero(ends[:, -1] != NO_PIECE)
    read = ends[tokens, -1] if reads == 1 else ends[tokens]
    return cut_windows(np.asarray(encoding.ids), read, tokens, size, overlap, causal, tags)
