"""A pipeline of rules that makes every kind of error, and its report."""

from __future__ import annotations

from pathlib import Path

import pytest
import spacy
from spacy.language import Language
from spacy.tokens import DocBin

from spacy_qlora.engine.progress import Progress
from spacy_qlora.report.build import Sources, build
from spacy_qlora.training.history import History

MARK = "ZQXPATIENT"
Notes = list[tuple[str, list[tuple[int, int, str]]]]

# Behind each, what the rules make of it.
NOTES: Notes = [
    (f"{MARK} took aspirin.", [(16, 23, "Drug")]),  # right
    (f"{MARK} took heparin.", [(16, 23, "Drug")]),  # missed
    (f"{MARK} felt no pain.", []),  # spurious
    (f"{MARK} had severe pain.", [(15, 26, "Sign")]),  # wrong boundary
    (f"{MARK} had a cough.", [(17, 22, "Drug")]),  # wrong type
    (f"{MARK} is well & <i>fit</i>.", []),
]


def save_docs(path: Path, nlp: Language, notes: Notes) -> Path:
    docs = DocBin()
    for text, spans in notes:
        doc = nlp.make_doc(text)
        doc.ents = [doc.char_span(*span) for span in spans]  # type: ignore[misc]
        docs.add(doc)
    docs.to_disk(path)
    return path


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    """A pipeline of rules, its gold docs, training docs that know aspirin, and the history of a run."""
    folder = tmp_path_factory.mktemp("report")
    nlp = spacy.blank("en")
    patterns = {"aspirin": "Drug", "pain": "Sign", "cough": "Sign"}
    nlp.add_pipe("entity_ruler").add_patterns([{"label": label, "pattern": word} for word, label in patterns.items()])  # type: ignore[attr-defined]
    nlp.to_disk(folder / "model-best")
    history = History(folder / "history.jsonl", Progress())
    for step, score in ((10, 0.5), (20, 0.75)):
        scores = {"ents_p": score, "ents_r": None, "ents_f": score}
        history.add(Progress(1, 0, step, score, loss=1 / step, pieces=step, seconds=step), scores, memory=2**30)
    return Sources(
        str(folder / "model-best"),
        save_docs(folder / "test.spacy", nlp, NOTES),
        save_docs(folder / "train.spacy", nlp, NOTES[:1]),
    )


@pytest.fixture(scope="session")
def page(sources: Sources) -> str:
    return build(sources)
