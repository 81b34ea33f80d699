"""Where the spaCy half and the engine meet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

IGNORED = -100  # the tag of a word whose tag is not known; PyTorch's cross_entropy leaves it out


@dataclass(frozen=True)
class Window:
    """A run of pieces that the model reads at once, and the words that it scores.

    pieces: [pieces] ids.  positions: [words] or [words, reads] where in `pieces` each word is read.
    words: [words] their numbers in the text.  tags: [words] tag numbers for training; IGNORED where not known.
    states: [pieces, hidden] what the frozen layers make of the begin-of-text, if the base has one, and the pieces;
    computed at each use if not given.
    """

    pieces: NDArray[np.int64]
    positions: NDArray[np.int64]
    words: NDArray[np.int64]
    tags: NDArray[np.int64] | None = None
    states: Tensor | None = None

    def __len__(self) -> int:
        return len(self.pieces)
