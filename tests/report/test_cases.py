"""Which gold and predicted entities belong together, and what is wrong with them."""

from __future__ import annotations

from collections import Counter

import pytest
import spacy
from hypothesis import given, settings
from hypothesis import strategies as st
from spacy.tokens import Doc, Span, SpanGroup
from spacy.training import Example

from spacy_qlora.evaluation.bootstrap import figures
from spacy_qlora.evaluation.scores import entity_scores
from spacy_qlora.report.cases import Case, Entity, Kind, judge, sample
from spacy_qlora.report.tables import confusion, count, error_counts, length_rows
from tests.evaluation.test_scores import LABELS, examples

VOCAB = spacy.blank("en").vocab
WORDS = ["severe", "chest", "pain", "and", "aspirin", "."]

Ents = list[tuple[int, int, str]]


def example(gold: Ents, found: Ents) -> Example:
    docs = []
    for ents in (found, gold):
        doc = Doc(VOCAB, words=WORDS)
        doc.ents = [Span(doc, start, end, label) for start, end, label in ents]
        docs.append(doc)
    return Example(*docs)


def judged(gold: Ents, found: Ents) -> list[tuple[str, Ents, Ents]]:
    """(kind, gold side, predicted side) of each case."""
    return [(case.kind.value, ents(case.gold), ents(case.found)) for case in judge(1, example(gold, found))]


def ents(entity: Entity | None) -> Ents:
    return [] if entity is None else [(entity.mention.start, entity.mention.end, entity.label)]


@pytest.mark.parametrize(
    ("gold", "found", "kind"),
    [
        ((1, 3, "Symptom"), (1, 3, "Symptom"), "right"),
        ((1, 3, "Symptom"), (1, 3, "Disease"), "wrong type"),
        ((1, 3, "Symptom"), (0, 3, "Symptom"), "wrong boundary"),
        ((1, 3, "Symptom"), (2, 4, "Symptom"), "wrong boundary"),
        ((1, 3, "Symptom"), (0, 6, "Symptom"), "wrong boundary"),
        ((1, 3, "Symptom"), (2, 3, "Disease"), "wrong type and boundary"),
    ],
)
def test_two_that_share_a_token(gold: tuple[int, int, str], found: tuple[int, int, str], kind: str) -> None:
    assert judged([gold], [found]) == [(kind, [gold], [found])]


def test_missed_and_spurious() -> None:
    assert judged([(1, 3, "Symptom")], [(4, 5, "Drug")]) == [
        ("missed", [(1, 3, "Symptom")], []),
        ("spurious", [], [(4, 5, "Drug")]),
    ]


def test_neighbours_do_not_meet() -> None:
    assert [kind for kind, _, _ in judged([(1, 2, "X")], [(2, 3, "X")])] == ["missed", "spurious"]


def test_the_closest_come_together() -> None:
    """Of two predictions on one gold entity the one of its type, though the other shares more of it."""
    assert judged([(0, 3, "X")], [(0, 2, "Y"), (2, 3, "X")]) == [
        ("spurious", [], [(0, 2, "Y")]),
        ("wrong boundary", [(0, 3, "X")], [(2, 3, "X")]),
    ]


def test_of_equal_kinds_the_larger_overlap_counts() -> None:
    assert judged([(0, 1, "X"), (1, 3, "X")], [(0, 3, "X")]) == [
        ("missed", [(0, 1, "X")], []),
        ("wrong boundary", [(1, 3, "X")], [(0, 3, "X")]),
    ]


def test_a_right_one_is_never_taken_by_another() -> None:
    gold: Ents = [(0, 2, "X"), (2, 3, "Y")]
    assert [kind for kind, _, _ in judged(gold, [(0, 2, "X"), (2, 3, "X")])] == ["right", "wrong type"]


def test_places_are_characters_and_probabilities_come_from_the_span_groups() -> None:
    pair = example([(1, 3, "Symptom")], [(1, 3, "Symptom"), (4, 5, "Drug")])
    doc = pair.predicted
    doc.spans["found"] = SpanGroup(doc, spans=[Span(doc, 1, 3, "Symptom")], attrs={"scores": [0.75]})
    right, spurious = judge(7, pair)
    assert right.found is not None
    assert spurious.found is not None
    assert (right.record, right.start, right.end, right.found.score) == (7, 7, 17, 0.75)
    assert (spurious.start, spurious.end, spurious.found.score) == (22, 29, None)


@settings(max_examples=200, deadline=None)
@given(st.lists(examples(same_tokens=False), min_size=1, max_size=4))
def test_scores_are_those_of_evaluation(batch: list[Example]) -> None:
    cases = [case for record, each in enumerate(batch, 1) for case in judge(record, each)]
    scores = entity_scores(batch)
    counts = count(cases, len(batch), LABELS, lambda _, entity: entity.label).sum(0)
    per_type = dict(zip(LABELS, zip(figures(counts).tolist(), counts.tolist(), strict=True), strict=True))
    for label, of_label in scores["ents_per_type"].items():
        values, (right, _, missed) = per_type[label]
        assert values == pytest.approx([of_label[name] for name in "prf"])
        assert right + missed == of_label["support"]
    assert figures(counts.sum(0)).tolist() == pytest.approx([scores[f"ents_{name}"] for name in "prf"])


@settings(max_examples=100, deadline=None)
@given(examples(same_tokens=False))
def test_tables_add_up(each: Example) -> None:
    cases = judge(1, each)
    table = confusion(cases, LABELS)
    assert sum(map(sum, table.counts)) == len(cases)
    errors = [case for case in cases if case.kind is not Kind.RIGHT]
    assert sum(map(sum, error_counts(errors, LABELS).counts)) == len(errors)


def test_who_was_taken_for_whom() -> None:
    pair = example([(0, 1, "X"), (1, 3, "X"), (4, 5, "Y")], [(0, 1, "X"), (2, 3, "Y"), (3, 4, "Y")])
    table = confusion(judge(1, pair), ["X", "Y"])
    assert table.counts == [[1, 1, 0], [0, 0, 1], [0, 1, 0]]
    assert table.rows == ["X", "Y", "no entity (spurious)"]


def test_lengths() -> None:
    pair = example([(0, 1, "X"), (1, 6, "X")], [(0, 1, "X"), (1, 4, "X")])
    rows = {row.name: (row.gold, row.found, row.right) for row in length_rows(judge(1, pair), 1)}
    assert rows == {"1": (1, 1, 1), "3": (0, 1, 0), "5 or more": (1, 0, 0)}


def test_a_sample_has_of_each_kind_and_keeps_the_order() -> None:
    missed, spurious = ([(1, 3, "X")], []), ([], [(1, 3, "X")])
    pairs: list[tuple[Ents, Ents]] = [missed] * 8 + [spurious]  # type: ignore[list-item]
    cases: list[Case] = [case for record, pair in enumerate(pairs, 1) for case in judge(record, example(*pair))]
    chosen = sample(cases, 4)
    assert [case.record for case in chosen] == [1, 2, 3, 9]
    assert Counter(case.kind for case in chosen) == {Kind.MISSED: 3, Kind.SPURIOUS: 1}
    assert sample(cases, 100) == cases
