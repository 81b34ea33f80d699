"""Strict entity scores of BIO tags, by seqeval."""

from __future__ import annotations

from collections.abc import Sequence

from seqeval.metrics.v1 import precision_recall_fscore_support
from seqeval.scheme import IOB2


def strict_f1(gold: Sequence[list[str]], predicted: Sequence[list[str]]) -> dict[str, float]:
    """Micro-averaged scores of whole entities: right only with the same first token, last token and type.

    gold (Sequence[list[str]]): The tags of each sequence: "O", "B-X" or "I-X". An I- that no B- opens is no entity.
    predicted (Sequence[list[str]]): As many sequences of the same lengths.
    RETURNS (dict[str, float]): "p", "r" and "f" between 0 and 1; 0.0 where one is undefined.
    RAISES (ValueError): The two differ in the number of sequences or in a length.
    """
    # seqeval refuses an empty list; a sequence without tokens changes no figure.
    p, r, f, _ = precision_recall_fscore_support(
        [*gold, []], [*predicted, []], average="micro", scheme=IOB2, zero_division=0
    )
    return {"p": float(p), "r": float(r), "f": float(f)}
