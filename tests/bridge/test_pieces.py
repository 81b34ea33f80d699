"""Which rows of a transformer's output stand for which token."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spacy.tokens import Doc
from tokenizers import Tokenizer

from spacy_qlora.text.alignment import encode_docs
from tests.conftest import unigram
from tests.text.test_alignment import (
    ENGLISH,
    FIXTURE_IS_CONSTANT,
    docs,
    pieces_by_definition,
)

pytest.importorskip("spacy_transformers")
import torch
from spacy_transformers.align import apply_alignment
from spacy_transformers.data_classes import FullTransformerBatch
from thinc.api import NumpyOps
from transformers.utils import ModelOutput

from spacy_qlora.bridge.pieces import lay_out


@given(batch=st.lists(docs(), min_size=1, max_size=4))
@settings(FIXTURE_IS_CONSTANT, max_examples=60)
def test_each_token_gets_the_rows_of_its_pieces_and_no_other(tokenizer: Tokenizer, batch: list[Doc]) -> None:
    """By spacy-transformers' own split and alignment; the state of a row is here the number of its doc, and its own."""
    read = [doc for doc in batch if len(doc)]
    encodings = encode_docs(tokenizer, read)
    if not read:
        return
    wordpieces, align = lay_out(read, encodings, max(map(len, encodings)) + 2)
    states = torch.zeros(*wordpieces.input_ids.shape, 2)
    states[..., 0], states[..., 1] = torch.arange(len(states))[:, None], torch.arange(states.shape[1])
    spans = [[doc[:]] if len(doc) else [] for doc in batch]
    full = FullTransformerBatch(spans, wordpieces, ModelOutput(last_hidden_state=states), align)
    found = iter(data for data, doc in zip(full.doc_data, batch, strict=True) if len(doc))
    for i, (doc, encoding) in enumerate(zip(read, encodings, strict=True)):
        data = next(found)
        assert data.wordpieces.strings == [encoding.tokens]
        assert data.wordpieces.lengths == [len(encoding)]
        assert data.wordpieces.input_ids[0, : len(encoding)].tolist() == encoding.ids
        assert data.wordpieces.attention_mask.sum() == len(encoding)
        rows, _ = apply_alignment(NumpyOps(), data.align, data.tensors[0].reshape(-1, 2))
        expected = pieces_by_definition(doc, encoding.offsets)
        if any(expected):
            assert rows.lengths.tolist() == list(map(len, expected))
            assert rows.dataXd.tolist() == [[i, piece] for pieces in expected for piece in pieces]
        else:  # a zero a token, by spacy-transformers
            assert not rows.dataXd.any()


def test_the_blank_before_a_word_is_not_the_neighbours() -> None:
    """spacy-transformers' own aligner gives each word the next word's first piece too."""
    doc = ENGLISH("denies chest pain.")
    [encoding] = encode_docs(unigram(), [doc])
    _, align = lay_out([doc], [encoding], len(encoding))
    per_token = np.split(align.dataXd, np.cumsum(align.lengths)[:-1])
    assert [[encoding.tokens[piece] for piece in pieces] for pieces in per_token] == [
        ["▁", *"denies"],
        ["▁chest"],
        ["▁pain"],
        ["."],
    ]
