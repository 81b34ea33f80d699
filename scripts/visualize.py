"""Draws a few annotated notes with a pipeline's entities: in the terminal and as a displaCy page.

Both show the text of the notes, for the user's own eyes. The demo corpus is made up; drawn from real notes, the page
and the terminal's output are as confidential as the notes are.

    python scripts/visualize.py training/model-best corpus/test.spacy metrics/notes.html --notes 5
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from spacy import displacy
from spacy.language import Language
from spacy.tokens import Doc
from spacy.util import escape_html

from spacy_qlora.cli.app import in_one_line
from spacy_qlora.engine.files import require_writable
from spacy_qlora.evaluation.data import read_docs
from spacy_qlora.evaluation.pipeline import load_pipeline

# A colour for the terminal and one for the page.
PALETTE = [
    ("cyan", "#a6e3ee"),
    ("green", "#b9e6b0"),
    ("magenta", "#f0c2ee"),
    ("yellow", "#f5e6a0"),
    ("blue", "#bfd0ff"),
    ("red", "#ffc2b8"),
]


def main(
    model: Annotated[str, typer.Argument(help="A pipeline's folder, or the name of its package.")],
    data: Annotated[Path, typer.Argument(help="Annotated notes, a .spacy file.", exists=True, dir_okay=False)],
    out: Annotated[Path, typer.Argument(help="The HTML page to write.")],
    notes: Annotated[int, typer.Option(help="How many notes to draw.", min=1)] = 5,
) -> None:
    """Draw notes with their predicted entities, and with the annotated ones where these differ."""
    require_writable(out, data)
    nlp = load_pipeline(model)
    gold = most_varied(read_docs(data, nlp.vocab), notes)
    docs = list(side_by_side(nlp, gold))
    labels = sorted({ent.label_ for doc in docs for ent in doc.ents})
    colors = {label: PALETTE[i % len(PALETTE)] for i, label in enumerate(labels)}
    options = {"colors": {escape_html(label): page for label, (_, page) in colors.items()}}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"\[W006\]")  # a note without predicted entities is worth seeing too
        pages = [escaped(displacy.parse_ents(doc)) for doc in docs]
        html = displacy.render(pages, style="ent", page=True, jupyter=False, options=options, manual=True)
    out.write_text(html, encoding="utf8")
    for doc in docs:
        typer.echo(f"\n{doc.user_data['title']}\n{in_brackets(doc, colors)}")
    typer.echo(f"\nThe same on a page: {out}")


def escaped(page: dict[str, Any]) -> dict[str, Any]:
    """page: As displaCy parses a doc. It escapes the text itself, and not the labels."""
    return {**page, "ents": [{**ent, "label": escape_html(ent["label"])} for ent in page["ents"]]}


def most_varied(docs: list[Doc], notes: int) -> list[Doc]:
    """The docs with the most types of entity; of equal ones the first."""
    return sorted(docs, key=lambda doc: len({ent.label for ent in doc.ents}), reverse=True)[:notes]


def side_by_side(nlp: Language, gold: list[Doc]) -> Iterator[Doc]:
    """Each note as predicted, titled; before it the same note as annotated, where the two differ."""
    for number, (truth, found) in enumerate(zip(gold, nlp.pipe(doc.text for doc in gold), strict=True), start=1):
        if spans(truth) == spans(found):
            found.user_data["title"] = f"Note {number}: predicted as annotated"
        else:
            truth.user_data["title"] = f"Note {number}: annotated"
            yield truth
            found.user_data["title"] = f"Note {number}: predicted"
        yield found


def spans(doc: Doc) -> list[tuple[int, int, str]]:
    return [(ent.start_char, ent.end_char, ent.label_) for ent in doc.ents]


def in_brackets(doc: Doc, colors: dict[str, tuple[str, str]]) -> str:
    """The doc's text with every entity as [text](LABEL), coloured for a terminal."""
    drawn, end = "", 0
    for ent in doc.ents:
        terminal, _ = colors[ent.label_]
        drawn += doc.text[end : ent.start_char] + typer.style(f"[{ent.text}]({ent.label_})", fg=terminal)
        end = ent.end_char
    return drawn + doc.text[end:]


if __name__ == "__main__":
    typer.run(in_one_line(main))
