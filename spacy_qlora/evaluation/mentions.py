"""The mentions of an example that count, gold and predicted, on the same tokens."""

from __future__ import annotations

from typing import NamedTuple

from spacy.tokens import Span
from spacy.training import Example


class Mention(NamedTuple):
    """label (str): The entity type. start, end (int): The tokens that it covers in the gold doc, end exclusive."""

    label: str
    start: int
    end: int


Placed = tuple[Mention, Span]  # an entity, and where it counts


def scored_mentions(example: Example) -> tuple[set[Mention], list[Mention]]:
    """The mentions that `spacy.scorer.get_ner_prf` counts, placed as it places them.

    A predicted mention covers every gold token that it touches, so two of them may meet on one token or even coincide.
    None is counted where the annotation is missing (a doc whose ents were never set, a token tagged "-").
    RETURNS (tuple[set[Mention], list[Mention]]): Gold mentions and predicted ones.
    """
    gold, predicted = scored_entities(example)
    return {mention for mention, _ in gold}, [mention for mention, _ in predicted]


def scored_entities(example: Example) -> tuple[list[Placed], list[Placed]]:
    """What `scored_mentions` gives, each with the entity that it is of."""
    placed = ((ent, scored_tokens(example, ent.start, ent.end)) for ent in example.predicted.ents)
    return (
        [(Mention(ent.label_, ent.start, ent.end), ent) for ent in example.reference.ents],
        [(Mention(ent.label_, tokens.start, tokens.end), ent) for ent, tokens in placed if tokens],
    )


def scored_tokens(example: Example, start: int, end: int) -> Span | None:
    """The gold tokens that the predicted ones from start to end - 1 touch; None where there are none, or one of them
    has no annotation."""
    touched = example.alignment.x2y[start:end]
    if not len(touched):
        return None
    tokens = example.reference[int(touched[0]) : int(touched[-1]) + 1]
    return tokens if all(token.ent_iob for token in tokens) else None
