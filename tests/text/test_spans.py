"""The probability of a span, against the sum over all sequences of tags."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from spacy_qlora.text.bio import BIO
from spacy_qlora.text.spans import find_spans, span_probabilities

XY = BIO(["X", "Y"])
SCORES = st.integers(1, 5).flatmap(lambda length: arrays(np.float32, (length, 5), elements=st.floats(-8, 8, width=32)))


def by_definition(scores: np.ndarray, span: tuple[int, int, int]) -> float:
    """Each allowed sequence weighs the product of its tags' exponentials; those with the span, over all."""
    label = XY.labels[span[2]]
    total = having = 0.0
    for tags in product(range(5), repeat=len(scores)):
        if not XY.is_valid(np.array(tags)):
            continue
        weight = float(np.exp(scores.astype(np.float64)[np.arange(len(tags)), tags].sum()))
        total += weight
        if (span[0], span[1], label) in XY.spans(np.array(tags)):
            having += weight
    return having / total


@given(scores=SCORES, data=st.data())
def test_a_probability_is_that_of_all_sequences_with_the_span(scores: np.ndarray, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(scores) - 1))
    end = data.draw(st.integers(start + 1, len(scores)))
    span = start, end, data.draw(st.integers(0, 1))
    [found] = span_probabilities(scores, [span])
    assert found == pytest.approx(by_definition(scores, span), rel=1e-9, abs=1e-12)


@given(scores=arrays(np.float32, st.tuples(st.integers(0, 60), st.just(5)), elements=st.floats(-1e6, 1e6, width=32)))
def test_found_spans_are_those_of_the_decoder(scores: np.ndarray) -> None:
    found = find_spans(XY, scores)
    assert [span[:3] for span in found] == XY.spans(XY.decode(scores))
    assert all(0 <= span.score <= 1 for span in found)


def test_a_span_may_go_on_over_blanks() -> None:
    scores = np.concatenate([[[0, 9, 0, 0, 0]], XY.unread(1), [[0, 0, 9, 0, 0]]]).astype(np.float32)
    [span] = find_spans(XY, scores)
    assert span[:3] == (0, 3, "X")
    assert span.score == pytest.approx(by_definition(scores[[0, 2]], (0, 2, 0)))


@given(scores=SCORES, data=st.data())
def test_blanks_change_no_probability(scores: np.ndarray, data: st.DataObject) -> None:
    blanks = data.draw(st.lists(st.integers(0, 2), min_size=len(scores) + 1, max_size=len(scores) + 1))
    rows = [XY.unread(blanks[0])]
    for row, behind in zip(scores, blanks[1:], strict=True):
        rows += [row[None], XY.unread(behind)]
    spaced = np.concatenate(rows)
    place = np.flatnonzero(np.isfinite(spaced[:, 1]))
    expected = [(place[s.start], place[s.end - 1] + 1, s.label, pytest.approx(s.score)) for s in find_spans(XY, scores)]
    assert find_spans(XY, spaced) == expected


def test_temperature() -> None:
    scores = np.array([[0, 3, 0, 0, 0]], dtype=np.float32)
    probabilities = [find_spans(XY, scores, temperature)[0].score for temperature in (0.5, 1.0, 2.0)]
    assert probabilities == sorted(probabilities, reverse=True)
