"""An error as displaCy draws it: the text around it with the gold entities and with the predicted ones."""

from __future__ import annotations

from collections.abc import Mapping

from spacy import displacy
from spacy.tokens import Doc
from spacy.training import Example
from spacy.util import escape_html

from spacy_qlora.report.cases import Case, Entity

CONTEXT = 240  # characters on each side of an error
COLOURS = 8  # of the page's style sheet
ENTITY = '<mark class="type-{colour}{state}">{text}<span>{shown}</span></mark>'


def draw(case: Case, example: Example, colours: Mapping[str, int]) -> tuple[str, str]:
    """RETURNS: HTML of the gold and of the predicted side, the entities of the case marked.

    colours: The number of each label's colour in the style sheet, below COLOURS.
    """
    around = example.predicted.char_span(
        max(0, case.start - CONTEXT), min(len(example.text), case.end + CONTEXT), alignment_mode="expand"
    )
    assert around is not None  # the places are in the text
    place = (around.start_char, around.end_char)
    return (
        _side(example.reference, place, case.gold, colours),
        _side(example.predicted, place, case.found, colours),
    )


def _side(doc: Doc, place: tuple[int, int], marked: Entity | None, colours: Mapping[str, int]) -> str:
    """place: The characters to draw.  marked: The entity to mark."""
    first, last = place
    before, after = "…" * (first > 0), "…" * (last < len(doc.text))
    shift = len(before) - first
    ents = [
        {
            "start": max(ent.start_char, first) + shift,
            "end": min(ent.end_char, last) + shift,
            "label": ent.label_,
            "params": {
                "shown": escape_html(ent.label_),
                "colour": colours[ent.label_],
                "state": " wrong" if marked and ent.start_char == marked.start else "",
            },
        }
        for ent in doc.ents
        if ent.end_char > first and ent.start_char < last
    ]
    text = before + doc.text[first:last] + after
    parsed = {"text": text, "ents": ents, "settings": displacy.get_doc_settings(doc)}
    return displacy.render(parsed, style="ent", manual=True, jupyter=False, options={"template": ENTITY})
