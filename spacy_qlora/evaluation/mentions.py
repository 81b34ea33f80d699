"""The mentions of an example that count, gold and predicted, on the same tokens."""

from __future__ import annotations

from collections.abc import Iterator
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
    gold = example.reference
    if not gold.has_annotation("ENT_IOB"):
        return [], []
    return (
        [(Mention(ent.label_, ent.start, ent.end), ent) for ent in gold.ents],
        [
            (mention, ent)
            for mention, ent in _on_gold_tokens(example)
            if all(t.ent_iob for t in gold[mention.start : mention.end])
        ],
    )


def _on_gold_tokens(example: Example) -> Iterator[Placed]:
    for ent in example.predicted.ents:
        tokens = example.alignment.x2y[ent.start : ent.end]
        if len(tokens):
            yield Mention(ent.label_, int(tokens[0]), int(tokens[-1]) + 1), ent
