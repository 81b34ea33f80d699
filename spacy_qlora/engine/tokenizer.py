"""The base's tokenizer."""

from __future__ import annotations

import re

from tokenizers import Encoding, Tokenizer

from spacy_qlora.errors import InputError

# Texts on which wrong offsets show: counted in bytes, shifted by a blank put first, or short of a character.
PROBES = (
    "Denies chest pain.  Took 0.5 mg/d (PO),\n\tthen T2DM",
    " leading and trailing ",
    "M\u00fcller na\u00efve e\u0301 \u03b2-blocker 5\u00b5g",
    "\u65e5\u672c\u8a9e \U0001f600\U0001f468\u200d\U0001f469 \u05e9\u05dc\u05d5\u05dd end",
)
MARKS = re.compile(r"<.*>|\[.*\]|[^0-9A-Za-z]")  # what is not of the text in a piece: unknown, bytes, blanks


def make_tokenizer(text: str, source: object) -> Tokenizer:
    """text: Of a tokenizer.json, whose own settings may cut or pad what it reads: both are switched off. So are special
        pieces where a text spells one, such as <s>.

    source: For errors. Raises InputError where its pieces do not lie in a text where it says that they do.
    """
    tokenizer = Tokenizer.from_str(text)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    for probe, encoding in zip(PROBES, tokenizer.encode_batch(PROBES, add_special_tokens=False), strict=True):
        if wrong := _wrong_offsets(probe, encoding):
            raise InputError("Q217", source=source, what=wrong)
    return tokenizer


def _wrong_offsets(text: str, encoding: Encoding) -> str:
    """What is wrong with the offsets of a text's pieces, in a few words; nothing if they are right."""
    covered: set[int] = set()
    before = (0, 0)
    for piece, (start, end) in zip(encoding.tokens, encoding.offsets, strict=True):
        if not 0 <= start <= end <= len(text):
            return "beyond the text"
        if start < before[0] or end < before[1]:
            return "out of order"
        letters = MARKS.sub("", piece)
        if text.isascii() and letters and letters.lower() != MARKS.sub("", text[start:end]).lower():
            return "on other letters"
        covered.update(range(start, end))
        before = start, end
    if any(not char.isspace() for i, char in enumerate(text) if i not in covered):
        return "none for some characters"
    return ""
