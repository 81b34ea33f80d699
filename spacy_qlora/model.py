"""What a `qlora_ner` holds: labels, trained weights and, once opened, the classifier on its base."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from spacy.tokens import Doc

from spacy_qlora.adapted import Adapted
from spacy_qlora.engine.window import IGNORED, Window
from spacy_qlora.errors import RunError
from spacy_qlora.settings import NERSettings
from spacy_qlora.text.alignment import doc_windows
from spacy_qlora.text.bio import BIO
from spacy_qlora.text.spans import ScoredSpan, find_spans, without_smoothing

if TYPE_CHECKING:
    from spacy_qlora.engine.base import Base
    from spacy_qlora.engine.classifier import TokenClassifier


class NERModel(Adapted[NERSettings, "TokenClassifier"]):
    """Docs in, tags out.

    labels (Tuple[str]): None yet before training.  temperature (float): Divides the logits that probabilities are made
    of.  threshold (float): Lowest probability of an entity, where the settings name none.  held (Any): See `Adapted`.
    """

    def __init__(
        self,
        name: str,
        settings: NERSettings,
        labels: tuple[str, ...] = (),
        seed: int = 0,
        temperature: float = 1.0,
        threshold: float = 0.0,
        **held: Any,
    ) -> None:
        super().__init__(name, settings, seed, **held)
        self.labels, self.bio = labels, BIO(labels)
        self.temperature, self.threshold = temperature, threshold

    def forget_calibration(self) -> None:
        """The temperature and the threshold were found for weights that are about to change, or just have."""
        self.temperature, self.threshold = 1.0, 0.0

    @property
    def encoder(self) -> TokenClassifier:
        """As in `Adapted`. Raises RunError without labels, too."""
        if not self.labels:
            raise RunError("Q304", name=self.name)
        return super().encoder

    @property
    def classifier(self) -> TokenClassifier:
        """The encoder, which has a head here."""
        return self.encoder

    def build(self, base: Base) -> TokenClassifier:
        from spacy_qlora.engine.classifier import TokenClassifier

        return TokenClassifier(base, len(self.bio.tags), self.settings.classifier, self.seed)

    def windows(self, docs: Sequence[Doc], tags: Sequence[NDArray[np.int64]] | None = None) -> list[Window]:
        """The windows of all docs, one after another.

        tags: [tokens] of each doc, for training; windows without a known tag are left out.
        """
        all_windows = [window for windows in self._windows(docs, tags) for window in windows]
        return [window for window in all_windows if window.tags is None or np.any(window.tags != IGNORED)]

    def _windows(self, docs: Sequence[Doc], tags: Sequence[NDArray[np.int64]] | None = None) -> list[list[Window]]:
        gold = [None] * len(docs) if tags is None else tags
        return [
            doc_windows(doc, encoding, *self.settings.cut, known, self.settings.classifier.reads)
            for doc, encoding, known in zip(docs, self.encode(docs), gold, strict=True)
        ]

    def predict(self, docs: Sequence[Doc]) -> list[list[ScoredSpan]]:
        """RETURNS: The entities of each doc, with their probabilities."""
        return [find_spans(self.bio, scores, self.temperature) for scores in self.scores(docs)]

    def scores(self, docs: Sequence[Doc]) -> list[NDArray[np.float32]]:
        """RETURNS: For each doc, [tokens, tags] logits, without the effect of label smoothing."""
        smoothing = self.settings.classifier.label_smoothing
        per_doc = self._windows(docs)
        rows = iter(
            self.classifier.predict([window for windows in per_doc for window in windows], self.settings.batch_pieces)
        )
        found = []
        for doc, windows in zip(docs, per_doc, strict=True):
            scores = self.bio.unread(len(doc))
            for window in windows:
                scores[window.words] = without_smoothing(next(rows), smoothing)
            found.append(scores)
        return found
