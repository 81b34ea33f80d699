"""Tokenizers whose pieces lie where they say, and others."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from spacy_qlora.engine.tokenizer import PROBES, make_tokenizer
from spacy_qlora.errors import InputError


def words(normalizer: object = None, pre_tokenizer: object = None) -> Tokenizer:
    """One piece a character, or <unk>."""
    pieces = ["<unk>", *sorted(set("".join(PROBES)) | {"\u2581"})]
    tokenizer = Tokenizer(models.Unigram([(piece, -1.0) for piece in pieces], unk_id=0))
    if normalizer is not None:
        tokenizer.normalizer = normalizer  # type: ignore[assignment]
    if pre_tokenizer is not None:
        tokenizer.pre_tokenizer = pre_tokenizer  # type: ignore[assignment]
    return tokenizer


def test_truncation_and_padding_are_switched_off(checkpoint: Path) -> None:
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=99)
    made = make_tokenizer(tokenizer.to_str(), "here")
    assert 2 < len(made.encode("Denies chest pain.", add_special_tokens=False).ids) < 99


@pytest.mark.parametrize(
    "tokenizer",
    [
        words(),
        words(pre_tokenizer=pre_tokenizers.Metaspace()),
        words(normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])),
        words(normalizers.Lowercase()),
    ],
)
def test_usual_kinds_are_taken(tokenizer: Tokenizer) -> None:
    make_tokenizer(tokenizer.to_str(), "here")


@pytest.mark.parametrize(
    ("tokenizer", "what"),
    [
        (words(normalizers.Replace("e", "")), "none for some characters"),
        (words(normalizers.Replace("pain", "ache")), "on other letters"),
    ],
)
def test_wrong_places_are_refused(tokenizer: Tokenizer, what: str) -> None:
    with pytest.raises(InputError, match=rf"\[Q217\] here: .*\({what}\)"):
        make_tokenizer(tokenizer.to_str(), "here")


def test_a_text_that_spells_a_special_piece(checkpoint: Path) -> None:
    tokenizer, text = Tokenizer.from_file(str(checkpoint / "tokenizer.json")), "Stop <s> aspirin"
    tokenizer.add_special_tokens(["<s>"])
    special = tokenizer.token_to_id("<s>")
    assert special in tokenizer.encode(text, add_special_tokens=False).ids
    assert special not in make_tokenizer(tokenizer.to_str(), "here").encode(text, add_special_tokens=False).ids
