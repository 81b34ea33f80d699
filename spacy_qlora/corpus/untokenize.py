"""Running text from words, for corpora that keep no text (CoNLL columns, `datasets` sets)."""

from __future__ import annotations

import re
from collections.abc import Sequence

QUOTES = {'"', "``", "''", "“", "”"}
# Words that stand against the one before them; contractions as the Penn Treebank cuts them.
CLOSING = re.compile(r"[.,;:)\]}%!?'\u2019®™°/\u2013-]|\.\.\.|n['\u2019]t|['\u2019](?:s|t|d|m|re|ve|ll)", re.IGNORECASE)
# Words that the one after them stands against.
OPENING = re.compile(r"[(\[{/'\u2019$#\u2013-]")
# Three words without a blank, within a number or an abbreviation: "0.5", "1,000", "3:1", "e.g".
WHOLE = re.compile(r"\d+[.:]\d+|\d+,\d{3}|[a-z]\.[a-z]", re.IGNORECASE)
# The last two of three words with a blank, against OPENING: "+/- 0.5", "patients' lives", "pre- or".
APART = re.compile(r"/ - .+|\w*s ['\u2019] (?!s$).+|.+ - (?:and|or)")


def untokenize(words: Sequence[str]) -> str:
    """Joins words as English prose is set: one blank between two words, none where punctuation clings to one.

    words (Sequence[str]): Words in order, none of them blank.
    RETURNS (str): The text. Every word stands in it unchanged and in order.
    """
    parts: list[str] = []
    quoted = False
    for i, word in enumerate(words):
        if i and not _cling(words[i - 2] if i > 1 else "", words[i - 1], word, quoted):
            parts.append(" ")
        parts.append(word)
        quoted ^= word in QUOTES
    return "".join(parts)


def _cling(earlier: str, left: str, right: str, quoted: bool) -> bool:
    """Whether nothing stands between `left` and `right`; `quoted`: a quotation is open between them."""
    if CLOSING.fullmatch(right) or (quoted and (left in QUOTES or right in QUOTES)):
        return True
    if left in ".,:" and WHOLE.fullmatch(f"{earlier}{left}{right}"):
        return True
    return bool(OPENING.fullmatch(left)) and not APART.fullmatch(f"{earlier} {left} {right}")
