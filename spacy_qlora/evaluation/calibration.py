"""Do entities found with a probability of 0.8 turn out right in 8 of 10 cases? The temperature that makes it so, and
the probability below which an entity is better left out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from spacy.training import Example
from spacy.util import minibatch
from tqdm import tqdm

from spacy_qlora.evaluation.bootstrap import LEVEL, drawn, figures
from spacy_qlora.evaluation.mentions import scored_tokens
from spacy_qlora.text.spans import span_probabilities

if TYPE_CHECKING:
    from spacy_qlora.component import QLoRANER

LEAST = 30  # entities found, among them right and wrong ones: fewer tell nothing
LOWEST, HIGHEST = 0.25, 8.0  # temperatures
THRESHOLDS = np.arange(20) / 20


@dataclass(frozen=True)
class Found:
    """The entities found in one doc.

    scores: [tokens, tags] logits.  spans: (first token, token behind the last, number of the label).
    right: [spans] whether the gold has just this entity.  gold: How many the gold has.
    """

    scores: NDArray[np.float32]
    spans: list[tuple[int, int, int]]
    right: NDArray[np.bool_]
    gold: int


@dataclass(frozen=True)
class Calibration:
    """temperature: None where there are too few entities to find one.  entities: How many were found.
    before, after: Expected calibration errors with temperature 1 and with this one.
    threshold: Of the probability, with this temperature, for the highest strict F1; 0 where none is surely better.
    """

    temperature: float | None
    entities: int
    before: float
    after: float
    threshold: float = 0.0


def calibrate(ner: QLoRANER, examples: Iterable[Example]) -> Calibration:
    """The temperature under which the entities found are most probably right where they are and wrong where they are.

    ner (QLoRANER): Trained; its temperature is left as it is.  examples: With gold entities, best of the dev split.
    """
    return fit(collect(ner, examples))


def fit(found: Sequence[Found]) -> Calibration:
    """What `calibrate` gives, of entities that are collected."""
    right = np.concatenate([each.right for each in found]) if found else np.zeros(0, dtype=bool)
    before = calibration_error(probabilities(found, 1.0), right)
    if len(right) < LEAST or right.all() or not right.any():
        return Calibration(None, len(right), before, before)

    def surprise(log_temperature: float) -> float:
        found_with = probabilities(found, math.exp(log_temperature)).clip(1e-12, 1 - 1e-12)
        return -float(np.log(np.where(right, found_with, 1 - found_with)).mean())

    bounds = math.log(LOWEST), math.log(HIGHEST)
    best = minimize_scalar(surprise, bounds=bounds, method="bounded", options={"xatol": 0.02})
    temperature = round(math.exp(best.x), 3)
    scores = probabilities(found, temperature)
    docs = np.repeat(np.arange(len(found)), [len(each.spans) for each in found])
    threshold = best_threshold(scores, right, docs, np.array([each.gold for each in found]))
    return Calibration(temperature, len(right), before, calibration_error(scores, right), threshold)


def best_threshold(
    scores: NDArray[np.floating], right: NDArray[np.bool_], docs: NDArray[np.integer], gold: NDArray[np.integer]
) -> float:
    """The one of `THRESHOLDS` with the highest strict F1, the lowest of equally good ones.

    0 where it is better by chance: in less than 95% of corpora of as many docs, drawn with replacement. The best of
    twenty on a few docs would cost others more than it gives.
    scores: [entities] from 0 to 1.  right: [entities].  docs: [entities] numbers of their docs.
    gold: [docs] how many entities the gold has.
    """
    kept = scores[:, None] >= THRESHOLDS
    found, hits = np.zeros((2, len(gold), len(THRESHOLDS)), dtype=np.int64)
    np.add.at(found, docs, kept)
    np.add.at(hits, docs, kept & right[:, None])
    counts = np.stack([hits, found - hits, gold[:, None] - hits], axis=-1)  # right, spurious and missed
    best = int(figures(counts.sum(0))[:, 2].argmax())
    f1 = figures(drawn(counts[:, [0, best]]))[..., 2]
    return float(THRESHOLDS[best]) if (f1[:, 1] > f1[:, 0]).mean() >= LEVEL else 0.0


def collect(ner: QLoRANER, examples: Iterable[Example]) -> list[Found]:
    """Runs the component over the raw docs.

    RETURNS: One for each doc. Entities where the gold has no annotation, which may be right or not, are left out.
    """
    found, number = [], {label: i for i, label in enumerate(ner.labels)}
    for batch in minibatch(tqdm(examples, desc="Calibrating", unit=" docs", leave=False), 256):
        docs = [example.predicted for example in batch]
        for example, doc, scores in zip(batch, docs, ner.model.scores(docs), strict=True):
            ents = (ent for ent in example.reference.ents if ent.label_ in number)  # others, none of it can find
            gold = {(ent.start_char, ent.end_char, ent.label_) for ent in ents}
            spans = ner.model.bio.spans(ner.model.bio.decode(scores))
            spans = [span for span in spans if scored_tokens(example, *span[:2])]
            places = [(doc[start].idx, doc[end - 1].idx + len(doc[end - 1]), label) for start, end, label in spans]
            numbered = [(start, end, number[label]) for start, end, label in spans]
            found.append(Found(scores, numbered, np.array([place in gold for place in places], dtype=bool), len(gold)))
    return found


def probabilities(found: Sequence[Found], temperature: float) -> NDArray[np.float64]:
    """RETURNS: Of all entities found, doc after doc."""
    parts = [span_probabilities(each.scores / temperature, each.spans) for each in found if each.spans]
    return np.concatenate(parts) if parts else np.zeros(0)


def calibration_error(scores: NDArray[np.floating], right: NDArray[np.bool_], bins: int = 10) -> float:
    """Expected calibration error: the mean distance between probability and share of right ones, by equally wide bins.

    scores: [entities] from 0 to 1.  right: [entities].  RETURNS: From 0, the best, to 1; 0 for no entities.
    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks".
    """
    if not len(scores):
        return 0.0
    bin_of = np.minimum((scores * bins).astype(int), bins - 1)
    gaps = np.abs(np.bincount(bin_of, scores - right, minlength=bins))
    return float(gaps.sum() / len(scores))
