"""Entities with their probabilities, out of tag scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from spacy_qlora.text.bio import BIO

LEAST = -600.0  # log-probabilities are cut off here, so that no product below becomes 0
UNSURE = 1e-4  # a tag's probability without smoothing is no less: what is left of the head's own is mostly chance


class ScoredSpan(NamedTuple):
    """Tokens start to end - 1 are an entity. score: The probability of just this entity, between 0 and 1."""

    start: int
    end: int
    label: str
    score: float


def find_spans(bio: BIO, scores: NDArray[np.floating], temperature: float = 1.0) -> list[ScoredSpan]:
    """The entities of the best sequence of tags that BIO allows, in order.

    scores: [tokens, tags], logits.  temperature: Divides them; above 1, probabilities are less extreme.
    """
    spans = bio.spans(bio.decode(scores))
    if not spans:
        return []
    places = [(start, end, bio.labels.index(label)) for start, end, label in spans]
    probabilities = span_probabilities(scores / temperature, places)
    return [ScoredSpan(*span, float(p)) for span, p in zip(spans, probabilities, strict=True)]


def without_smoothing(scores: NDArray[np.floating], smoothing: float) -> NDArray[np.floating]:
    """What a head would give that was not trained with label smoothing.

    One that was gives each tag (1 - smoothing) p + smoothing / tags instead of its probability p.

    scores: [tokens, tags], logits.  smoothing: The setting `label_smoothing`.
    RETURNS: [tokens, tags], log(p); the logits themselves without smoothing.
    """
    if not smoothing:
        return scores
    given = np.exp(scores - scores.max(-1, keepdims=True))
    given /= given.sum(-1, keepdims=True)
    return np.log(np.maximum((given - smoothing / scores.shape[1]) / (1 - smoothing), UNSURE))


def span_probabilities(scores: NDArray[np.floating], spans: Sequence[tuple[int, int, int]]) -> NDArray[np.float64]:
    """The probability of each span, summed over all sequences of tags that BIO allows and that hold just this span.

    A sequence's probability is the product of its tags' ones, over the sum of that for all allowed sequences
    (forward-backward). Blanks that no window reads are left out of the sequences: whether an entity ends before one or
    behind it is the same.

    scores: [tokens, tags], logits, in the order of `BIO.tags`.
    spans: (first token, token behind the last, number of the label).  RETURNS: [spans] between 0 and 1.
    """
    read = np.isfinite(scores[:, 1])
    place = np.cumsum(read) - 1  # of each token among those read; a blank has that of the one before
    spans = [(place[start], place[end - 1] + 1, label) for start, end, label in spans]
    logits = scores[read].astype(np.float64)
    logits = np.where(np.isfinite(logits), np.maximum(logits - logits.max(-1, keepdims=True), LEAST), -np.inf)
    tags = np.exp(logits)
    tags /= tags.sum(-1, keepdims=True)
    out, begin, inside = tags[:, 0], tags[:, 1::2], tags[:, 2::2]
    anywhere = out + begin.sum(-1)  # what may follow any tag

    share = np.empty(len(tags))  # of what the tags before allow, in all that each token's tags weigh
    entity = np.zeros(begin.shape[1])  # the probability that the token before is of a label, given the tokens so far
    for i in range(len(tags)):
        goes_on = entity * inside[i]
        share[i] = anywhere[i] + goes_on.sum()
        entity = (begin[i] + goes_on) / share[i]

    free = np.ones(len(tags))  # what the tokens behind each weigh if no entity goes on into them
    open_ = np.ones(begin.shape[1])  # the same if one of a label stands at the token: it may go on or not
    for i in range(len(tags) - 1, 0, -1):
        free[i - 1] = (out[i] * free[i] + begin[i] @ open_) / share[i]
        open_ = free[i - 1] + inside[i] * open_ / share[i]

    found = np.empty(len(spans))
    for n, (start, end, label) in enumerate(spans):
        weights = np.append(begin[start, label], inside[start + 1 : end, label])
        found[n] = np.prod(weights / share[start:end]) * free[end - 1]
    return np.minimum(found, 1.0)
