from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from spacy_qlora.text.bio import BIO

XY = BIO(["X", "Y"])
OUT, BX, IX, BY, IY = range(5)
FEW_VALUES = st.sampled_from([-2.0, -1.0, 0.0, 1.0, 2.0])  # many ties
SCORES = st.integers(1, 5).flatmap(
    lambda length: (
        arrays(np.float32, (length, 5), elements=FEW_VALUES)
        | arrays(np.float32, (length, 5), elements=st.floats(-50, 50, width=32))
    )
)


def bio_allows(tags: tuple[int, ...]) -> bool:
    return all(tag not in (IX, IY) or before in (tag - 1, tag) for before, tag in zip((OUT, *tags), tags, strict=False))


def total(scores: np.ndarray, tags: np.ndarray) -> float:
    return float(scores.astype(np.float64)[np.arange(len(tags)), tags].sum())


def test_the_numbers_of_tags() -> None:
    assert XY.tags == ("O", "B-X", "I-X", "B-Y", "I-Y")
    assert XY.labels == ("X", "Y")


@given(scores=SCORES)
def test_decode_gives_the_best_sequence_that_bio_allows(scores: np.ndarray) -> None:
    found = XY.decode(scores)
    assert bio_allows(tuple(found))
    allowed = [np.array(tags) for tags in product(range(5), repeat=len(scores)) if bio_allows(tags)]
    assert total(scores, found) == pytest.approx(max(total(scores, tags) for tags in allowed), abs=1e-9)


@given(scores=arrays(np.float32, st.tuples(st.integers(0, 200), st.just(5)), elements=st.floats(-1e6, 1e6, width=32)))
def test_decode_never_gives_what_bio_forbids(scores: np.ndarray) -> None:
    found = XY.decode(scores)
    assert found.shape == (len(scores),)
    assert bio_allows(tuple(found))
    assert XY.is_valid(found)


@given(tags=st.lists(st.integers(0, 4), max_size=8))
def test_is_valid_is_what_bio_allows(tags: list[int]) -> None:
    assert XY.is_valid(np.array(tags, dtype=np.int64)) == bio_allows(tuple(tags))


def test_scores_are_left_as_they_are() -> None:
    scores = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
    scores[0, IX] = 9  # not allowed at the start, so the slow way
    before = scores.copy()
    XY.decode(scores)
    assert np.array_equal(scores, before)


def rows(*tags: int | None) -> np.ndarray:
    """Scores of a sure model; None is a blank token, which has none."""
    scores = XY.unread(len(tags))
    for i, tag in enumerate(tags):
        if tag is not None:
            scores[i] = np.eye(5)[tag]
    return scores


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        (rows(None), [OUT]),
        (rows(None, None, None), [OUT, OUT, OUT]),
        (rows(BX, None, OUT), [BX, OUT, OUT]),
        (rows(BX, None), [BX, OUT]),
        (rows(BX, None, BX), [BX, OUT, BX]),
        (rows(BX, None, BY, IY), [BX, OUT, BY, IY]),
        (rows(BX, None, None, IX), [BX, IX, IX, IX]),  # a blank within a mention
        (rows(None, BX, IX, None, None, OUT, BY, None, IY, None), [OUT, BX, IX, OUT, OUT, OUT, BY, IY, IY, OUT]),
    ],
)
def test_blanks_are_outside_unless_a_mention_goes_on_behind_them(scores: np.ndarray, expected: list[int]) -> None:
    assert XY.decode(scores).tolist() == expected


def test_no_mention_begins_at_a_blank() -> None:
    scores = rows(OUT, None, IX)
    scores[2, BX] = 0.5  # an inside tag scores higher, but only the blank could open its mention
    assert XY.decode(scores).tolist() == [OUT, OUT, BX]


SPANS = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4), st.sampled_from("XY")), max_size=8)


@given(parts=SPANS, rest=st.integers(0, 3))
def test_spans_survive_tags(parts: list[tuple[int, int, str]], rest: int) -> None:
    spans, end = [], 0
    for gap, length, label in parts:  # a gap of 0 puts mentions side by side, of one label or of two
        spans.append((end + gap, end + gap + length, label))
        end += gap + length
    tags = XY.encode(end + rest, spans)
    assert XY.is_valid(tags)
    assert XY.spans(tags) == spans
    assert XY.spans(XY.decode(np.eye(5)[tags])) == spans


def test_adjacent_mentions_of_one_label_are_two() -> None:
    tags = XY.encode(4, [(0, 2, "X"), (2, 4, "X")])
    assert tags.tolist() == [BX, IX, BX, IX]
    assert XY.spans(tags) == [(0, 2, "X"), (2, 4, "X")]


def test_no_tokens() -> None:
    assert XY.decode(np.zeros((0, 5), dtype=np.float32)).tolist() == []
    assert XY.encode(0, []).tolist() == []
    assert XY.spans(np.zeros(0, dtype=np.int64)) == []
