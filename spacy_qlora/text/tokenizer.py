"""A finer spaCy tokenizer, so that mentions begin and end on token boundaries."""

from __future__ import annotations

import re
from collections.abc import Callable

from spacy.language import Language
from spacy.tokenizer import Tokenizer
from spacy.util import registry

# One punctuation mark or symbol; combining accents stay with their letter.
MARK = r"(?:[^\w\s\u0300-\u036f]|_)"
# The same inside a word, where "0.5" and "1,000" stay whole.
INNER_MARK = r"(?:[^\w\s\u0300-\u036f.,]|_|(?<!\d)[.,]|[.,](?!\d))"
# Abbreviations and contractions of the language ("Dr.", "e.g.", "can't"); no emoticons, no single letter with a dot.
ABBREVIATION = re.compile(r"[^\W\d_]+[.'\u2019]?[^\W\d_]+(?:[.'\u2019][^\W\d_]*)*")


@registry.tokenizers("spacy-qlora.FineTokenizer.v1")
def make_fine_tokenizer() -> Callable[[Language], Tokenizer]:
    """A tokenizer that splits at every punctuation mark, except within numbers and the language's abbreviations.

    spaCy's English rules keep `PCP)-induced` or `vitamin D.` in one token, which no entity can then enter or leave.
    RETURNS (Callable[[Language], Tokenizer]): For `[nlp.tokenizer]` of a config.
    """
    return fine_tokenizer


def fine_tokenizer(nlp: Language) -> Tokenizer:
    """nlp (Language): Gives the vocabulary and the abbreviations. RETURNS (Tokenizer): The finer tokenizer."""
    exceptions = nlp.Defaults.tokenizer_exceptions or {}
    return Tokenizer(
        nlp.vocab,
        rules={form: tokens for form, tokens in exceptions.items() if ABBREVIATION.fullmatch(form)},
        prefix_search=re.compile(rf"^{MARK}").search,
        suffix_search=re.compile(rf"{MARK}$").search,
        infix_finditer=re.compile(INNER_MARK).finditer,
    )
