"""Scores on the names that training never showed: what a model has learnt beyond a list."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from spacy.scorer import PRFScore
from spacy.tokens import Doc
from spacy.training import Example

from spacy_qlora.evaluation.mentions import scored_mentions


def known_names(docs: Iterable[Doc]) -> set[str]:
    """The normalised texts of all mentions, whatever their type.

    docs (Iterable[Doc]): The training docs.
    """
    return {normalised(ent.text) for doc in docs for ent in doc.ents}


def unseen_scores(examples: Iterable[Example], known: set[str]) -> dict[str, Any]:
    """Precision, recall and F1 over the mentions, gold and predicted, whose text is no known name.

    Case and the kind and amount of white space make no difference. A predicted mention counts with the text of the
    gold tokens that it covers, so that a right one is left out of both sides or of neither.
    examples (Iterable[Example]): Predicted and gold docs of the same texts.
    known (set[str]): Names from `known_names`.
    RETURNS (dict[str, Any]): "p", "r", "f", "support" (gold mentions) and "per_type" with the same four for each type.
    """
    per_type: defaultdict[str, PRFScore] = defaultdict(PRFScore)
    for example in examples:
        gold, predicted = scored_mentions(example)
        for mention in predicted:
            if normalised(example.reference[mention.start : mention.end].text) not in known:
                per_type[mention.label] += PRFScore(tp=mention in gold, fp=mention not in gold)
            gold.discard(mention)
        for mention in gold:
            if normalised(example.reference[mention.start : mention.end].text) not in known:
                per_type[mention.label] += PRFScore(fn=1)
    total = sum(per_type.values(), PRFScore())
    return {**_figures(total), "per_type": {label: _figures(score) for label, score in sorted(per_type.items())}}


def _figures(score: PRFScore) -> dict[str, float]:
    return {**score.to_dict(), "support": score.tp + score.fn}


def normalised(text: str) -> str:
    """A name as it is compared: without case, and with single blanks."""
    return " ".join(text.casefold().split())
