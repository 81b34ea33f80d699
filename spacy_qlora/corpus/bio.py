"""BIO tags read as spans of words."""

from __future__ import annotations

from collections.abc import Sequence

Span = tuple[int, int, str]  # first word, last word (exclusive), label


def read_bio(tags: Sequence[str]) -> tuple[list[Span], bool]:
    """The spans that tags mark. An I- that continues nothing begins a span, as if it were B-; unknown tags count as O.

    RETURNS (tuple[list[Span], bool]): The spans in order, and whether an I- had to begin one.
    """
    spans: list[Span] = []
    broken = False
    for i, tag in enumerate(tags):
        mark, label = tag[:2], tag[2:]
        if mark == "I-" and spans and spans[-1][1:] == (i, label):
            spans[-1] = (spans[-1][0], i + 1, label)
        elif mark in ("B-", "I-"):
            broken |= mark == "I-"
            spans.append((i, i + 1, label))
    return spans, broken
