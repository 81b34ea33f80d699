"""How far a score may be off by chance: the bootstrap over records."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

DRAWS, LEVEL = 1000, 0.95


def figures(counts: NDArray[np.integer]) -> NDArray[np.float64]:
    """counts: [..., 3] right, spurious and missed.  RETURNS: [..., 3] precision, recall and F1, 0 where undefined."""
    return np.nan_to_num(_shares(counts))


def _shares(counts: NDArray[np.integer]) -> NDArray[np.float64]:
    """The same, no number where undefined."""
    right, spurious, missed = np.moveaxis(counts, -1, 0)
    totals = right + spurious, right + missed, 2 * right + spurious + missed
    with np.errstate(invalid="ignore"):
        return np.stack([n / total for n, total in zip((right, right, 2 * right), totals, strict=True)], -1)


def intervals(counts: NDArray[np.integer], draws: int = DRAWS, seed: int = 0) -> NDArray[np.float64]:
    """The 95% intervals of scores, from percentiles over corpora of as many records drawn with replacement.

    Draws in which a score is undefined, as without any entity of a rare type, are left out of its interval.
    counts: [records, groups, 3] right, spurious and missed.
    RETURNS: [2, groups, 3], low and high of precision, recall and F1.
    Source: Efron 1979, "Bootstrap Methods: Another Look at the Jackknife".
    """
    if not counts.size:
        return np.zeros((2, *counts.shape[1:]))
    sums = drawn(counts, draws, seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)
        return np.nan_to_num(np.nanquantile(_shares(sums), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0))


def drawn(counts: NDArray[np.integer], draws: int = DRAWS, seed: int = 0) -> NDArray[np.integer]:
    """counts: [records, ...].  RETURNS: [draws, ...] their sums over corpora of as many records, with replacement."""
    rng, records = np.random.default_rng(seed), len(counts)
    return np.stack([counts[rng.integers(records, size=records)].sum(0) for _ in range(draws)])
