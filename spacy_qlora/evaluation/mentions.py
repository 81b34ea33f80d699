"""The mentions of an example that count, gold and predicted, on the same tokens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from spacy.training import Example


class Mention(NamedTuple):
    """label (str): The entity type. start, end (int): The tokens that it covers in the gold doc, end exclusive."""

    label: str
    start: int
    end: int


def scored_mentions(example: Example) -> tuple[set[Mention], list[Mention]]:
    """The mentions that `spacy.scorer.get_ner_prf` counts, placed as it places them.

    A predicted mention covers every gold token that it touches, so two of them may meet on one token or even coincide.
    None is counted where the annotation is missing (a doc whose ents were never set, a token tagged "-").
    RETURNS (tuple[set[Mention], list[Mention]]): Gold mentions and predicted ones.
    """
    gold = example.reference
    if not gold.has_annotation("ENT_IOB"):
        return set(), []
    return (
        {Mention(ent.label_, ent.start, ent.end) for ent in gold.ents},
        [mention for mention in _on_gold_tokens(example) if all(t.ent_iob for t in gold[mention.start : mention.end])],
    )


def _on_gold_tokens(example: Example) -> Iterator[Mention]:
    for ent in example.predicted.ents:
        tokens = example.alignment.x2y[ent.start : ent.end]
        if len(tokens):
            yield Mention(ent.label_, int(tokens[0]), int(tokens[-1]) + 1)
