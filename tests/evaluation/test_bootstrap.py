"""Intervals of scores."""

from __future__ import annotations

import time

import numpy as np
import pytest
from spacy.scorer import PRFScore

from spacy_qlora.evaluation.bootstrap import figures, intervals


def plain(counts: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """The same, record by record, with spaCy's figures."""
    rng, scores = np.random.default_rng(seed), []
    for _ in range(draws):
        totals = [PRFScore() for _ in range(counts.shape[1])]
        for record in rng.integers(len(counts), size=len(counts)):
            for group, (right, spurious, missed) in enumerate(counts[record]):
                totals[group] += PRFScore(tp=int(right), fp=int(spurious), fn=int(missed))
        scores.append([[total.precision, total.recall, total.fscore] for total in totals])
    return np.quantile(scores, [0.025, 0.975], axis=0)


@pytest.mark.parametrize("seed", [0, 1])
def test_as_a_plain_loop_gives_them(seed: int) -> None:
    counts = np.random.default_rng(seed).integers(3, size=(20, 2, 3))
    counts[:, 1, 1:] = 0  # a group that is always right
    assert intervals(counts, draws=50, seed=seed) == pytest.approx(plain(counts, 50, seed))


def test_the_width_is_that_of_a_share() -> None:
    """Recall over records of one gold entity each is a share, whose interval has a formula."""
    right = np.arange(2000) % 5 > 0
    counts = np.stack([right, np.zeros(2000), ~right], -1).astype(int)[:, None]
    low, high = intervals(counts)[:, 0, 1]
    expected = 1.96 * (0.8 * 0.2 / 2000) ** 0.5
    assert (low, high) == pytest.approx((0.8 - expected, 0.8 + expected), abs=0.003)


def test_the_same_each_time_and_around_the_value() -> None:
    counts = np.random.default_rng(2).integers(4, size=(50, 3, 3))
    low, high = intervals(counts)
    assert np.array_equal(intervals(counts), [low, high])
    value = figures(counts.sum(0))
    assert ((low < value) & (value < high)).all()


def test_draws_without_a_rare_type_say_nothing_of_it() -> None:
    counts = np.zeros((500, 1, 3), dtype=int)
    counts[7, 0, 0] = 2  # right both times, in one record
    assert (intervals(counts) == 1).all()


def test_nothing_to_score() -> None:
    assert intervals(np.zeros((3, 0, 3), dtype=int)).shape == (2, 0, 3)
    assert (intervals(np.zeros((3, 1, 3), dtype=int)) == 0).all()
    assert (figures(np.zeros((2, 3), dtype=int)) == 0).all()


def test_five_thousand_records_take_seconds() -> None:
    counts = np.random.default_rng(0).integers(3, size=(5000, 10, 3))
    start = time.process_time()
    intervals(counts)
    assert time.process_time() - start < 10
