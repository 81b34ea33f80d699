"""Entities into a doc, beside those that are there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from spacy.tokens import Doc, Span, SpanGroup

from spacy_qlora.text.spans import ScoredSpan

REPORTED = "qlora_report:"  # begins the keys of groups that are there for a report, and change nothing


def set_ents(doc: Doc, found: Sequence[ScoredSpan], earlier: str, threshold: float, spans_key: str | None) -> None:
    """Sets doc.ents, and doc.spans[spans_key] if there is a key: all that was found, with `attrs["scores"]`.

    earlier: What becomes of doc.ents that are set: "overwrite" drops them; "keep" drops what was found where they
    stand; "merge" keeps the more probable of two that overlap.
    threshold: What is found with a lower probability does not get into doc.ents.
    """
    ours = [(span.score, Span(doc, span.start, span.end, span.label)) for span in found]
    theirs = [] if earlier == "overwrite" else list(doc.ents)
    chosen = [(score, span) for score, span in ours if score >= threshold]
    if earlier == "merge":
        known = scores_of(doc, but_for=REPORTED)
        earlier_scored = [(known.get((ent.start, ent.end, ent.label), 1.0), ent) for ent in theirs]
        ranked = sorted([*earlier_scored, *chosen], key=lambda pair: -pair[0])
        doc.ents = without_overlap(span for _, span in ranked)
    else:
        doc.ents = without_overlap([*theirs, *(span for _, span in chosen)])
    if spans_key is not None:
        scores = np.array([score for score, _ in ours], dtype=np.float32)
        spans = [span for _, span in ours]
        doc.spans[spans_key] = SpanGroup(doc, name=spans_key, spans=spans, attrs={"scores": scores})


def without_overlap(ranked: Iterable[Span]) -> list[Span]:
    """The spans that overlap none before them, best first, in the order of the text."""
    taken: set[int] = set()
    kept = []
    for span in ranked:
        tokens = range(span.start, span.end)
        if taken.isdisjoint(tokens):
            taken.update(tokens)
            kept.append(span)
    return sorted(kept, key=lambda span: span.start)


def scores_of(doc: Doc, but_for: str | tuple[str, ...] = ()) -> dict[tuple[int, int, int], float]:
    """The scores that the span groups of a doc give, by start, end and label; of several the first one's.

    but_for: What the keys of groups that are left out begin with.
    """
    scores: dict[tuple[int, int, int], float] = {}
    for key, group in doc.spans.items():
        if key.startswith(but_for):
            continue
        for span, score in zip(group, group.attrs.get("scores", ()), strict=False):
            scores.setdefault((span.start, span.end, span.label), float(score))
    return scores
