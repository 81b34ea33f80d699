"""The base with an adapter and a head: pieces in, tag scores out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from spacy_qlora.engine.base import Base
from spacy_qlora.engine.batching import Batch, by_budget
from spacy_qlora.engine.encoder import Encoder
from spacy_qlora.engine.settings import ClassifierSettings
from spacy_qlora.engine.window import IGNORED, Window


class TokenClassifier(Encoder):
    """base (Base): Shared and frozen.  tags (int): Scores that a word gets.  seed (int): Of the first weights."""

    head: nn.Linear

    def __init__(self, base: Base, tags: int, settings: ClassifierSettings, seed: int = 0) -> None:
        super().__init__(base, settings, seed, lambda: nn.Linear(settings.reads * base.config.hidden_size, tags))

    def loss(self, batch: Batch) -> Tensor:
        """batch: With tags. RETURNS: The sum of the words' cross-entropies in nats; words tagged -100 are left out."""
        assert batch.tags is not None
        smoothing = self.settings.label_smoothing
        return cross_entropy(self(batch), batch.tags, reduction="sum", ignore_index=IGNORED, label_smoothing=smoothing)

    def accumulate(self, windows: Sequence[Window], budget: int) -> tuple[float, int]:
        """Adds up the gradients of the windows' summed losses, in micro-batches of at most `budget` pieces.

        RETURNS: The summed loss in nats, and over how many words.
        """
        self.train()
        total, words = 0.0, 0
        for chosen in by_budget(self.lengths(windows), budget):
            batch = self.collate([windows[i] for i in chosen])
            loss = self.loss(batch)
            loss.backward()
            total += float(loss.detach())
            words += sum(int(np.count_nonzero(windows[i].tags != IGNORED)) for i in chosen)
        return total, words
