"""Tags by BIO: their numbers, and the decoder that never gives a sequence which BIO forbids."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class BIO:
    """The tags of some labels: O is 0, B-X of label k is 2k + 1, I-X is 2k + 2.

    labels (Sequence[str]): In the order of the head's outputs.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = tuple(labels)
        self.tags = ("O", *(f"{position}-{label}" for label in labels for position in "BI"))
        size = len(self.tags)
        self._allowed = np.full((size, size), -np.inf)  # [previous tag, tag]
        self._allowed[:, 0] = self._allowed[:, 1::2] = 0
        for inside in range(2, size, 2):
            self._allowed[[inside - 1, inside], inside] = 0

    def encode(self, length: int, spans: Sequence[tuple[int, int, str]]) -> NDArray[np.int64]:
        """spans: (first token, token behind the last, label), not overlapping. RETURNS: [length] tag numbers."""
        tags = np.zeros(length, dtype=np.int64)
        for start, end, label in spans:
            tags[start] = 2 * self.labels.index(label) + 1
            tags[start + 1 : end] = tags[start] + 1
        return tags

    def unread(self, length: int) -> NDArray[np.float32]:
        """RETURNS: [length, tags] scores of blanks, which no window reads: no mention begins at one, but may go on."""
        scores = np.zeros((length, len(self.tags)), dtype=np.float32)
        scores[:, 1::2] = -np.inf
        return scores

    def decode(self, scores: NDArray[np.floating]) -> NDArray[np.int64]:
        """The best sequence of tags among those that BIO allows (Viterbi).

        scores: [tokens, tags], logits or log-probabilities. RETURNS: [tokens] tag numbers.
        """
        best = scores.argmax(-1)
        if self.is_valid(best):  # nothing allowed can score higher than the best of all
            return best
        total = np.where(np.arange(len(self.tags)) % 2 | (np.arange(len(self.tags)) == 0), scores[0], -np.inf)
        origins = np.zeros(scores.shape, dtype=np.int64)
        for i in range(1, len(scores)):
            paths = total[:, None] + self._allowed
            origins[i] = paths.argmax(0)
            total = paths.max(0) + scores[i]
        best[-1] = total.argmax()
        for i in range(len(scores) - 1, 0, -1):
            best[i - 1] = origins[i, best[i]]
        return best

    def is_valid(self, tags: NDArray[np.int64]) -> bool:
        """Whether each I-X follows B-X or I-X."""
        previous = np.concatenate(([0], tags[:-1]))
        return bool(np.isfinite(self._allowed[previous, tags]).all())

    def spans(self, tags: NDArray[np.int64]) -> list[tuple[int, int, str]]:
        """tags: A sequence that BIO allows. RETURNS: (first token, token behind the last, label), in order."""
        found: list[tuple[int, int, str]] = []
        for start in np.flatnonzero(tags % 2):
            end = start + 1
            while end < len(tags) and tags[end] == tags[start] + 1:
                end += 1
            found.append((int(start), int(end), self.labels[tags[start] // 2]))
        return found
