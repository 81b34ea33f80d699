"""A finer spaCy tokenizer, so that mentions begin and end on token boundaries."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

from spacy.language import Language
from spacy.tokenizer import Tokenizer
from spacy.util import registry

FINE = "spacy-qlora.FineTokenizer.v1"  # as registered
# Accents and vowel signs of any script (of the basic plane), which stay with their letter.
COMBINING = "".join(letter for letter in map(chr, range(0x10000)) if unicodedata.category(letter)[0] == "M")
# One punctuation mark or symbol.
MARK = rf"(?:[^\w\s{COMBINING}]|_)"
# The same inside a word, where "0.5" and "1,000" stay whole.
INNER_MARK = rf"(?:[^\w\s{COMBINING}.,]|_|(?<!\d)[.,]|[.,](?!\d))"
# Abbreviations and contractions of the language ("Dr.", "e.g.", "can't"); no emoticons, no single letter with a dot.
ABBREVIATION = re.compile(r"[^\W\d_]+[.'\u2019]?[^\W\d_]+(?:[.'\u2019][^\W\d_]*)*")


@registry.tokenizers(FINE)
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
