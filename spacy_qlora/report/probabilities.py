"""Whether entities found with a probability of 0.8 are right in 8 of 10 cases."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spacy_qlora.evaluation.calibration import calibration_error
from spacy_qlora.report.cases import Case, Kind

BINS = 10
TELLING = 10  # entities; of fewer the share of right ones is mere chance


@dataclass(frozen=True)
class Bin:
    """low, high: Its limits.  right, wrong: Numbers of entities.  mean: Their mean probability."""

    low: float
    high: float
    right: int
    wrong: int
    mean: float

    @property
    def share(self) -> float:
        """Of right ones; 0 where there are none at all."""
        return self.right / max(self.right + self.wrong, 1)

    @property
    def is_telling(self) -> bool:
        return self.right + self.wrong >= TELLING


@dataclass(frozen=True)
class Probabilities:
    """entities: How many have one.  error: Expected calibration error."""

    entities: int
    error: float
    bins: list[Bin]


def probabilities(cases: Iterable[Case]) -> Probabilities | None:
    """RETURNS: None where the pipeline tells no probability."""
    found = [(case.found.score, case.kind is Kind.RIGHT) for case in cases if case.found]
    told = [(score, is_right) for score, is_right in found if score is not None]
    if not told:
        return None
    scores, right = (np.array(column) for column in zip(*told, strict=True))
    return Probabilities(len(told), calibration_error(scores, right, BINS), in_bins(scores, right))


def in_bins(scores: NDArray[np.floating], right: NDArray[np.bool_]) -> list[Bin]:
    """scores: [entities] from 0 to 1.  right: [entities].  RETURNS: Equally wide ones."""
    bin_of = np.minimum((scores * BINS).astype(int), BINS - 1)
    bins = []
    for number in range(BINS):
        inside = bin_of == number
        total, good = int(inside.sum()), int(right[inside].sum())
        mean = float(scores[inside].mean()) if total else 0.0
        bins.append(Bin(number / BINS, (number + 1) / BINS, good, total - good, mean))
    return bins
