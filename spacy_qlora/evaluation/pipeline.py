"""A trained pipeline under evaluation: loading it and running it over raw texts."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence

import spacy
from spacy.errors import Errors
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example
from tqdm import tqdm

from spacy_qlora.errors import InputError, QLoRAError


def load_pipeline(model: str) -> Language:
    """model (str): A pipeline folder or the name of an installed package.

    RETURNS (Language): The loaded pipeline.
    RAISES (InputError): There is none, or spaCy cannot load it.
    """
    try:
        return spacy.load(model)
    except QLoRAError:
        raise
    except Exception as error:  # a pipeline folder is code and data of any library, and fails in as many ways
        if str(error) == Errors.E050.format(name=model):
            raise InputError("Q500", model=model) from error
        raise InputError("Q501", model=model, reason=_reason(error)) from error


def _reason(error: Exception) -> str:
    """What may be shown of an error: an OSError names paths only; other messages may quote a line of the file."""
    if isinstance(error, OSError):
        return str(error)
    spacy_code = re.match(r"\[[EW]\d+\]", str(error))
    return f"{type(error).__name__} {spacy_code[0]}" if spacy_code else type(error).__name__


def unknown_labels(nlp: Language, docs: Iterable[Doc]) -> tuple[list[str], list[str]]:
    """Entity labels of the docs that the pipeline cannot predict, and those that it can, both sorted.

    What it can predict is told by the components that declare `assigns=["doc.ents"]`, and a span_ruler that sets them.
    If one of them publishes no labels (a rule component, an open-vocabulary model), no label is held to be out of its
    reach.
    """
    setters = [
        name
        for name, pipe in nlp.pipeline
        if "doc.ents" in nlp.get_pipe_meta(name).assigns or getattr(pipe, "annotate_ents", False)
    ]
    known = {label for name in setters for label in nlp.pipe_labels.get(name, ())}
    if not all(name in nlp.pipe_labels for name in setters):
        return [], sorted(known)
    return sorted({ent.label_ for doc in docs for ent in doc.ents} - known), sorted(known)


def predict(nlp: Language, gold: Sequence[Doc]) -> tuple[list[Example], float]:
    """Runs the pipeline over the raw texts of gold docs, with a progress bar.

    gold (Sequence[Doc]): At least one.
    RETURNS (tuple[list[Example], float]): Examples in the order of the docs, and the seconds that `nlp.pipe` took.
    """
    nlp(gold[0].text)  # what a component loads only with its first text is no part of its speed
    predicted = []
    with tqdm(total=sum(map(len, gold)), desc="Evaluating", unit=" words", unit_scale=True) as progress:
        start = time.perf_counter()
        for doc, reference in zip(nlp.pipe(reference.text for reference in gold), gold, strict=True):
            predicted.append(doc)
            progress.update(len(reference))
        seconds = time.perf_counter() - start
    return [Example(doc, reference) for doc, reference in zip(predicted, gold, strict=True)], seconds
