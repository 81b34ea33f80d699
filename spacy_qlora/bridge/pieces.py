"""Pieces as spacy-transformers lays them out: one row a doc, and the tokens that they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from spacy.tokens import Doc
from spacy_transformers.data_classes import WordpieceBatch
from thinc.types import Ragged
from tokenizers import Encoding

from spacy_qlora.text.alignment import token_pieces


def lay_out(docs: Sequence[Doc], encodings: Sequence[Encoding], width: int) -> tuple[WordpieceBatch, Ragged]:
    """The pieces of each doc as a row, padded to `width`, and for each token of all docs, which of them are its own.

    docs: At least one.  RETURNS: The rows, and numbers of pieces, counted through all rows with their padding.
    """
    lengths = [len(encoding) for encoding in encodings]
    ids: Any = np.zeros((len(docs), width), dtype=np.int64)  # Any: thinc has types of its own for arrays
    mask: Any = np.zeros((len(docs), width), dtype=np.float32)
    for i, encoding in enumerate(encodings):
        ids[i, : lengths[i]], mask[i, : lengths[i]] = encoding.ids, 1
    strings = [encoding.tokens for encoding in encodings]
    found = [token_pieces(doc, encoding.offsets) for doc, encoding in zip(docs, encodings, strict=True)]
    pieces: Any = np.concatenate([own + i * width for i, (own, _) in enumerate(found)]).astype(np.int32)
    counts: Any = np.concatenate([count for _, count in found]).astype(np.int32)
    return WordpieceBatch(strings, ids, mask, lengths, None), Ragged(pieces, counts)
