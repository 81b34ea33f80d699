"""Where words stand in a text."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

Offsets = list[tuple[int, int]]


def is_blank(text: str) -> bool:
    """Whether text shows nothing: white space, zero-width and other format characters, control characters."""
    return all(char.isspace() or unicodedata.category(char) in ("Cf", "Cc") for char in text)


def locate(text: str, words: Sequence[str]) -> Offsets | None:
    """Finds words one after another, each as early in the text as it can be; None where one is not to be found.

    RETURNS (Offsets | None): Start and end character of each word.
    """
    offsets: Offsets = []
    end = 0
    for word in words:
        start = text.find(word, end)
        if start < 0:
            return None
        end = start + len(word)
        offsets.append((start, end))
    return offsets


def locate_last(text: str, words: Sequence[str]) -> Offsets:
    """Like `locate`, each word as late as it can be, for words that `locate` finds.

    Where both agree, no other place is possible.
    """
    offsets: Offsets = []
    start = len(text)
    for word in reversed(words):
        start = text.rindex(word, 0, start)
        offsets.append((start, start + len(word)))
    return offsets[::-1]


def covers(text: str, offsets: Offsets) -> bool:
    """Whether nothing but blanks stands between, before and after the words."""
    starts = [start for start, _ in offsets] + [len(text)]
    ends = [0] + [end for _, end in offsets]
    gaps = (text[end:start] for end, start in zip(ends, starts, strict=True))
    return all(gap in ("", " ") or is_blank(gap) for gap in gaps)
