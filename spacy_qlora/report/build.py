"""The report: a pipeline and gold docs in, one HTML page out."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from spacy.language import Language
from spacy.training import Example

from spacy_qlora.component import QLoRANER
from spacy_qlora.errors import InputError
from spacy_qlora.evaluation.data import read_docs
from spacy_qlora.evaluation.evaluate import load_task
from spacy_qlora.evaluation.pipeline import predict
from spacy_qlora.evaluation.unseen import known_names
from spacy_qlora.report import charts
from spacy_qlora.report.cases import ERRORS, Case, Kind, judge, sample
from spacy_qlora.report.drawing import COLOURS, draw
from spacy_qlora.report.facts import run_facts, training_facts
from spacy_qlora.report.probabilities import probabilities
from spacy_qlora.report.search import read_search
from spacy_qlora.report.tables import confusion, error_counts, length_rows, score_rows, seen_rows
from spacy_qlora.text.ents import REPORTED
from spacy_qlora.training.history import FILE, Evaluation, read_history

HERE = Path(__file__).parent
ALL = "All types"


@dataclass(frozen=True)
class Sources:
    """model: A pipeline folder or the name of an installed package.  data: The gold docs.
    train: The docs it was trained on, to tell the names unseen in them apart.
    history: Of the training; if None, the one beside the pipeline's folder.  search: Folder of a search.
    """

    model: str
    data: Path
    train: Path | None = None
    history: Path | None = None
    search: Path | None = None


def build(sources: Sources, with_text: bool = True, limit: int = 500) -> str:
    """RETURNS: The page.

    with_text: Whether errors are drawn in their text, or only told by their offsets.  limit: Most errors to show.
    Raises InputError where something is missing or damaged, or the data does not fit the pipeline.
    """
    nlp, gold = load_task(sources.model, sources.data)
    known = None if sources.train is None else known_names(read_docs(sources.train, nlp.vocab))
    history = find_history(sources)
    search = None if sources.search is None else read_search(sources.search)
    tell_probabilities(nlp)
    examples, seconds = predict(nlp, gold)
    cases = [case for record, example in enumerate(examples, 1) for case in judge(record, example)]
    labels = sorted({ent.label_ for example in examples for doc in (example.x, example.y) for ent in doc.ents})
    return render(
        name=Path(sources.model).absolute().name,
        sources=sources,
        date=datetime.date.today().isoformat(),
        records=len(examples),
        unannotated=sum(not doc.has_annotation("ENT_IOB") for doc in gold),
        labels=labels,
        **score_tables(examples, cases, labels, known),
        **error_lists(examples, cases, labels, with_text, limit),
        **probability_charts(cases),
        **training_charts(nlp, history),
        search=search,
        facts=source_facts(sources) | run_facts(nlp, sum(map(len, gold)) / seconds),
        config=nlp.config.to_str(),
    )


def source_facts(sources: Sources) -> dict[str, str]:
    given = {"Pipeline from": sources.model, "Gold docs": sources.data, "Training docs": sources.train}
    return {name: str(source) for name, source in given.items() if source is not None}


def render(**context: Any) -> str:
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html.j2").render(**context)


def find_history(sources: Sources) -> list[Evaluation]:
    """Raises InputError where a file was named and is missing, or where it is damaged."""
    if sources.history is None:
        folder = Path(sources.model)
        return read_history(folder.absolute().parent / FILE) if folder.is_dir() else []
    if not sources.history.is_file():
        raise InputError("Q001", path=sources.history, kind="training history")
    return read_history(sources.history)


def tell_probabilities(nlp: Language) -> None:
    """Makes each qlora_ner leave its probabilities on the docs."""
    for name, pipe in nlp.pipeline:
        if isinstance(pipe, QLoRANER) and pipe.settings.spans_key is None:
            pipe.model.settings = replace(pipe.settings, spans_key=f"{REPORTED}{name}")


def score_tables(
    examples: Sequence[Example], cases: Sequence[Case], labels: Sequence[str], known: set[str] | None
) -> dict[str, Any]:
    records = len(examples)
    return {
        "by_type": score_rows(cases, records, labels, lambda _, entity: entity.label),
        "overall": score_rows(cases, records, [ALL], lambda *_: ALL)[0],
        "by_length": length_rows(cases, records),
        "by_seen": [] if known is None else seen_rows(cases, examples, known),
        "confusion": confusion(cases, labels),
    }


def error_lists(
    examples: Sequence[Example], cases: Sequence[Case], labels: Sequence[str], with_text: bool, limit: int
) -> dict[str, Any]:
    errors = [case for case in cases if case.kind is not Kind.RIGHT]
    shown = sample(errors, limit)
    numbers = {label: number for number, label in enumerate(labels)}
    colours = {label: number % COLOURS for label, number in numbers.items()}
    return {
        "errors": len(errors),
        "error_counts": error_counts(errors, labels),
        "kinds": ERRORS,
        "numbers": numbers,
        "shown": shown,
        "drawn": [draw(case, examples[case.record - 1], colours) for case in shown] if with_text else None,
    }


def probability_charts(cases: Sequence[Case]) -> dict[str, Any]:
    found = probabilities(cases)
    drawn = [charts.histogram(found.bins), charts.reliability(found.bins)] if found else []
    return {"probabilities": found, "probability_charts": drawn}


def training_charts(nlp: Language, history: Sequence[Evaluation]) -> dict[str, Any]:
    return {
        "training_facts": training_facts(nlp, history),
        "history": history,
        "training_charts": [charts.score_curves(history), charts.loss_curve(history)] if history else [],
    }
