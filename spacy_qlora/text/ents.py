"""Entities into a doc, beside those that are there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from spacy.tokens import Doc, Span, SpanGroup

from spacy_qlora.text.spans import ScoredSpan

BLOCKED = 3  # as `token.ent_iob` of a token without a type
REPORTED = "qlora_report:"  # begins the keys of groups that are there for a report, and change nothing


def set_ents(doc: Doc, found: Sequence[ScoredSpan], earlier: str, threshold: float, spans_key: str | None) -> None:
    """Sets doc.ents, and doc.spans[spans_key] if there is a key: all that was found, with `attrs["scores"]`.

    earlier: What becomes of doc.ents that are set: "overwrite" drops them; "keep" drops what was found where they
    stand; "merge" keeps the more probable of two that overlap. With both, blocked tokens stay so, and out of entities.
    threshold: What is found with a lower probability does not get into doc.ents.
    """
    ours = [(span.score, Span(doc, span.start, span.end, span.label)) for span in found]
    theirs, blocked = [], set()
    if earlier != "overwrite":
        theirs, blocked = list(doc.ents), {token.i for token in doc if token.ent_iob == BLOCKED and not token.ent_type}
    chosen = [(score, span) for score, span in ours if score >= threshold and blocked.isdisjoint(_tokens(span))]
    if earlier == "merge":
        known = scores_of(doc, but_for=REPORTED)
        earlier_scored = [(known.get((ent.start, ent.end, ent.label), 1.0), ent) for ent in theirs]
        ranked = [span for _, span in sorted([*earlier_scored, *chosen], key=lambda pair: -pair[0])]
    else:
        ranked = [*theirs, *(span for _, span in chosen)]
    doc.set_ents(without_overlap(ranked), blocked=[doc[i : i + 1] for i in sorted(blocked)])
    if spans_key is not None:
        scores = np.array([score for score, _ in ours], dtype=np.float32)
        spans = [span for _, span in ours]
        doc.spans[spans_key] = SpanGroup(doc, name=spans_key, spans=spans, attrs={"scores": scores})


def without_overlap(ranked: Iterable[Span]) -> list[Span]:
    """The spans that overlap none before them, best first, in the order of the text."""
    taken: set[int] = set()
    kept = []
    for span in ranked:
        if taken.isdisjoint(_tokens(span)):
            taken.update(_tokens(span))
            kept.append(span)
    return sorted(kept, key=lambda span: span.start)


def _tokens(span: Span) -> range:
    return range(span.start, span.end)


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
