"""The evaluation of a trained pipeline on annotated docs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spacy.language import Language
from spacy.tokens import Doc

from spacy_qlora.errors import InputError
from spacy_qlora.evaluation.data import read_docs
from spacy_qlora.evaluation.pipeline import load_pipeline, predict, unknown_labels
from spacy_qlora.evaluation.scores import entity_scores
from spacy_qlora.evaluation.unseen import known_names, unseen_scores


def evaluate(model: str, data: Path, train: Path | None = None) -> dict[str, Any]:
    """Scores a pipeline's entities on raw texts, with a progress bar.

    model (str): A pipeline folder or the name of an installed package.
    data (Path): The gold docs, a .spacy file.
    train (Path | None): The docs it was trained on; given these, names unseen in training are scored apart.
    RETURNS (dict[str, Any]): What `entity_scores` returns, "words_per_second" (gold tokens per second of `nlp.pipe`),
        and given train "unseen" from `unseen_scores`.
    RAISES (InputError): Something is missing or damaged, or a gold label is none of the pipeline's.
    """
    nlp, gold = load_task(model, data)
    known = None if train is None else known_names(read_docs(train, nlp.vocab))
    examples, seconds = predict(nlp, gold)
    scores = entity_scores(examples)
    scores["words_per_second"] = scores["tokens"] / seconds
    if known is not None:
        scores["unseen"] = unseen_scores(examples, known)
    return scores


def load_task(model: str, data: Path) -> tuple[Language, list[Doc]]:
    """The pipeline and the gold docs, found to fit each other. RAISES (InputError): As `evaluate`."""
    nlp = load_pipeline(model)
    gold = read_docs(data, nlp.vocab)
    _check(nlp, gold, data)
    return nlp, gold


def _check(nlp: Language, gold: Sequence[Doc], path: Path) -> None:
    unknown, known = unknown_labels(nlp, gold)
    if unknown:
        raise InputError("Q505", path=path, labels=", ".join(unknown), known=", ".join(known) or "none")
    for record, doc in enumerate(gold, 1):
        if len(doc.text) > nlp.max_length:
            raise InputError("Q506", path=path, record=record, length=len(doc.text), limit=nlp.max_length)
