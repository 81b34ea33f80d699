"""Docs in, one row of pieces and their states a doc out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from tokenizers import Encoding
from torch import Tensor

from spacy_qlora.adapted import Adapted
from spacy_qlora.engine.encoder import Encoder
from spacy_qlora.engine.window import Window
from spacy_qlora.settings import ModelSettings
from spacy_qlora.text.windows import cut_windows

if TYPE_CHECKING:
    from spacy_qlora.engine.base import Base


@dataclass(frozen=True)
class TransformerSettings(ModelSettings):
    """Of one transformer.  checkpointing: Recompute each layer in the backward pass."""

    checkpointing: bool = False


class AdaptedEncoder(Adapted[TransformerSettings, Encoder]):
    """The adapter without a head, whose states others learn from."""

    def build(self, base: Base) -> Encoder:
        encoder = Encoder(base, self.settings.classifier, self.seed)
        if self.settings.checkpointing:
            encoder.checkpointed = len(encoder.layers) - encoder.frozen
        return encoder

    def read(self, encodings: Sequence[Encoding], train: bool) -> tuple[Tensor, Callable[[Tensor], None] | None]:
        """The states of all pieces, each read by the window that serves it best.

        RETURNS: [texts, pieces of the longest, hidden] on the CPU, zeros behind a text's end; and in training, what
        takes their gradients and adds up those of the adapter.
        """
        windows = [(i, window) for i, encoding in enumerate(encodings) for window in self._windows(encoding)]
        chosen, budget = [window for _, window in windows], self.settings.batch_pieces
        if train:
            rows, backward = self.encoder.begin(chosen, budget)
        else:
            rows = [torch.from_numpy(row) for row in self.encoder.predict(chosen, budget)]
        width = max(1, *map(len, encodings))  # a text of blanks may have no piece
        states = torch.zeros(len(encodings), width, self.encoder.base.config.hidden_size)
        for (i, window), row in zip(windows, rows, strict=True):
            states[i, window.words] = row
        if not train:
            return states, None
        return states, lambda gradient: backward([gradient[i, window.words] for i, window in windows])

    def _windows(self, encoding: Encoding) -> list[Window]:
        """As of a text in which each piece is a word."""
        pieces = np.arange(len(encoding))
        return cut_windows(np.array(encoding.ids, dtype=np.int64), pieces, pieces, *self.settings.cut)
