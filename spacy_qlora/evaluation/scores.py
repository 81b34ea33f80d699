"""Entity scores of a pipeline, by spaCy's scorer and by seqeval."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from spacy.scorer import get_ner_prf
from spacy.training import Example

from spacy_qlora.evaluation.mentions import Mention, scored_mentions
from spacy_qlora.evaluation.strict import strict_f1


def entity_scores(examples: Iterable[Example]) -> dict[str, Any]:
    """Precision, recall and F1 of whole entities, between 0 and 1; 0.0 where one is undefined.

    Docs and tokens without entity annotation are left out of the figures, as spaCy's scorer does.
    examples (Iterable[Example]): Predicted and gold docs of the same texts; the tokens may differ.
    RETURNS (dict[str, Any]): "ents_p", "ents_r", "ents_f" and "ents_per_type" (type to "p", "r", "f" and "support", the
        number of gold mentions) by spaCy's scorer; "seqeval" ("p", "r", "f") by seqeval over the same mentions; "docs",
        "docs_without_annotation" and "tokens" as numbers of gold docs and tokens.
    """
    examples = list(examples)
    overall = get_ner_prf(examples)
    golds = [example.reference for example in examples]
    support = Counter(ent.label_ for gold in golds for ent in gold.ents)
    tags = [tags for example in examples for tags in _tag_rows(example)]
    return {
        **{name: overall[name] or 0.0 for name in ("ents_p", "ents_r", "ents_f")},
        "ents_per_type": {
            label: {**prf, "support": support[label]} for label, prf in sorted((overall["ents_per_type"] or {}).items())
        },
        "seqeval": strict_f1([gold for gold, _ in tags], [predicted for _, predicted in tags]),
        "docs": len(golds),
        "docs_without_annotation": sum(not gold.has_annotation("ENT_IOB") for gold in golds),
        "tokens": sum(map(len, golds)),
    }


def _tag_rows(example: Example) -> Iterator[tuple[list[str], list[str]]]:
    """Gold and predicted tags of the gold tokens.

    A token has one tag. Where predicted mentions meet on one, a right one keeps the place, or else the first; each
    of the others is wrong and gets a row of its own, so that seqeval counts as many mentions as spaCy's scorer.
    """
    gold, predicted = scored_mentions(example)
    length = len(example.reference)
    placed: list[Mention] = []
    taken: set[int] = set()
    for mention in sorted(predicted, key=lambda mention: mention not in gold):
        tokens = range(mention.start, mention.end)
        if taken.isdisjoint(tokens):
            placed.append(mention)
            taken.update(tokens)
        else:
            yield _tags([], length), _tags([mention], length)
    yield _tags(gold, length), _tags(placed, length)


def _tags(mentions: Iterable[Mention], length: int) -> list[str]:
    tags = ["O"] * length
    for label, start, end in mentions:
        # seqeval strips hyphens at the ends of a label; brackets keep "X" and "X-" apart.
        tags[start:end] = [f"B-<{label}>", *[f"I-<{label}>"] * (end - start - 1)]
    return tags
