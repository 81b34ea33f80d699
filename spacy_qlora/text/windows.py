"""A text of any length as overlapping windows; nothing is cut off."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spacy_qlora.engine.window import Window


def cut_windows(
    pieces: NDArray[np.int64],
    positions: NDArray[np.int64],
    words: NDArray[np.int64],
    size: int,
    overlap: int,
    causal: bool,
    tags: NDArray[np.int64] | None = None,
) -> list[Window]:
    """One window where the text fits; else windows of `size` pieces, each sharing `overlap` with the one before.

    A word is scored by the window that serves it best: the one with most context to its left under causal attention,
    the one in which it is most central under unmasked attention. Words at the text's ends have but one choice.

    pieces: [pieces] ids.  positions: [words] the piece at which each word is read, rising; or [words, reads] with
    several, of which the last counts. Those before the window's start are read at its first piece.
    words: [words] their numbers.  overlap: At most half of `size`.
    tags: [all tokens] tag numbers, indexed by `words`.
    """
    starts = window_starts(len(pieces), size, overlap)
    owner = _owners(positions if positions.ndim == 1 else positions[:, -1], starts, size, causal)
    windows = []
    for i, start in enumerate(starts):
        mine = owner == i
        if mine.any():
            chosen = words[mine]
            windows.append(
                Window(
                    pieces=pieces[start : start + size],
                    positions=np.maximum(positions[mine] - start, 0),
                    words=chosen,
                    tags=None if tags is None else tags[chosen],
                )
            )
    return windows


def _owners(positions: NDArray[np.int64], starts: NDArray[np.int64], size: int, causal: bool) -> NDArray[np.int64]:
    """RETURNS: [words] the number of the window that scores each word."""
    latest = np.searchsorted(starts, positions, side="right") - 1
    # Windows start at least half a window apart, but for the last one: at most four reach a word.
    candidates = np.maximum(latest - np.arange(4)[::-1, None], 0)
    left = positions - starts[candidates]
    right = size - 1 - left
    served = np.where(right >= 0, left if causal else np.minimum(left, right), -1)
    return candidates[served.argmax(0), np.arange(len(positions))]


def window_starts(length: int, size: int, overlap: int) -> NDArray[np.int64]:
    """Starts of windows over `length` pieces; the last one ends with the text."""
    if length <= size:
        return np.zeros(1, dtype=np.int64)
    return np.append(np.arange(0, length - size, size - overlap), length - size)
