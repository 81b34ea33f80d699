"""From records to Docs, and to a DocBin."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import spacy
from spacy.language import Language
from spacy.tokens import Doc, DocBin, Span

from spacy_qlora.corpus.record import Record
from spacy_qlora.errors import InputError
from spacy_qlora.text.tokenizer import fine_tokenizer


def make_nlp(lang: str, *, fine: bool) -> Language:
    """A blank pipeline whose tokenizer makes the docs: the finer one, or the language's own.

    RAISES (InputError): spaCy does not know the language, or a package that it needs is missing.
    """
    try:
        nlp = spacy.blank(lang)
    except ImportError as error:
        raise InputError("Q109", lang=lang) from error
    if fine:
        nlp.tokenizer = fine_tokenizer(nlp)
    return nlp


def make_doc(nlp: Language, record: Record) -> tuple[Doc, int]:
    """A Doc of a record's text, to the character, with its mentions as `doc.ents` ([] if it has none).

    A token that a mention begins or ends inside is split there, so that each mention is kept as it is.
    RETURNS (tuple[Doc, int]): The Doc, and how many tokens were split.
    """
    edges = {edge for mention in record.mentions for edge in (mention.start, mention.end)}
    # The tokenizer itself: nlp.make_doc refuses texts over nlp.max_length, a limit for parsers.
    doc, split = _split_tokens(nlp.tokenizer(record.text), edges)
    starts = {token.idx: token.i for token in doc}
    ends = {token.idx + len(token): token.i + 1 for token in doc}
    doc.set_ents([Span(doc, starts[mention.start], ends[mention.end], mention.label) for mention in record.mentions])
    return doc, split


def _split_tokens(doc: Doc, edges: set[int]) -> tuple[Doc, int]:
    edges = edges - {edge for token in doc for edge in (token.idx, token.idx + len(token))}
    if not edges:
        return doc, 0
    words: list[str] = []
    spaces: list[bool] = []
    split = 0
    for token in doc:
        cuts = sorted(edge - token.idx for edge in edges if token.idx < edge < token.idx + len(token))
        words += [token.text[start:end] for start, end in pairwise([0, *cuts, len(token)])]
        spaces += [False] * len(cuts) + [bool(token.whitespace_)]
        split += bool(cuts)
    return Doc(doc.vocab, words=words, spaces=spaces), split


def pack(nlp: Language, records: Iterable[Record]) -> tuple[bytes, dict[str, Any]]:
    """Makes the docs of a split.

    RETURNS (tuple[bytes, dict[str, Any]]): The content of a .spacy file, and the split's counts for the report.
    """
    bin = DocBin()
    labels: Counter[str] = Counter()
    tokens = tokens_split = 0
    for record in records:
        doc, split = make_doc(nlp, record)
        bin.add(doc)
        labels.update(ent.label_ for ent in doc.ents)
        tokens += len(doc)
        tokens_split += split
    counts = {"docs": len(bin), "tokens": tokens, "tokens_split": tokens_split, "mentions": labels.total()}
    return bin.to_bytes(), {**counts, "labels": dict(sorted(labels.items()))}
