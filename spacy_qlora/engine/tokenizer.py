"""The base's tokenizer."""

from __future__ import annotations

from tokenizers import Tokenizer


def make_tokenizer(text: str) -> Tokenizer:
    """text: Of a tokenizer.json, whose own settings may cut or pad what it reads: both are switched off."""
    tokenizer = Tokenizer.from_str(text)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
