"""The probability of a span, against the sum over all sequences of tags."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from spacy_qlora.text.bio import BIO
from spacy_qlora.text.spans import UNSURE, find_spans, span_probabilities, without_smoothing

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


@given(scores=SCORES, smoothing=st.sampled_from([0.05, 0.1, 0.3]))
def test_smoothing_is_taken_back(scores: np.ndarray, smoothing: float) -> None:
    scores = scores.astype(np.float64)
    plain = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    smoothed = np.log((1 - smoothing) * plain + smoothing / 5) + 3  # logits are free to lie anywhere
    assert np.allclose(np.exp(without_smoothing(smoothed, smoothing)), np.maximum(plain, UNSURE), atol=1e-12)


def test_a_head_surer_than_smoothing_allows() -> None:
    [probabilities] = np.exp(without_smoothing(np.array([[50.0, 0, 0, 0, 0]]), 0.1))
    assert probabilities == pytest.approx([1.0 / 0.9 * 0.98, *[UNSURE] * 4])


def test_without_smoothing_logits_are_as_they_are() -> None:
    scores = np.array([[3.0, -1, 0, 0, 0]])
    assert without_smoothing(scores, 0.0) is scores
