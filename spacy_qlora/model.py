"""What a component holds: labels, trained weights and, once opened, the classifier on its base."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from spacy.tokens import Doc
from tokenizers import Tokenizer
from torch import Tensor

from spacy_qlora.engine.info import BaseInfo
from spacy_qlora.engine.window import IGNORED, Window
from spacy_qlora.errors import InputError, RunError
from spacy_qlora.settings import NERSettings
from spacy_qlora.text.alignment import doc_windows, encode_docs
from spacy_qlora.text.bio import BIO
from spacy_qlora.text.spans import ScoredSpan, find_spans

if TYPE_CHECKING:
    from spacy_qlora.engine.classifier import TokenClassifier

Tensors = Mapping[str, Tensor]


class NERModel:
    """Docs in, tags out. Opens the base when it is first needed.

    name (str): The component's, for errors.  labels (Tuple[str]): None yet before training.
    seed (int): Of the first weights.
    trained (Optional[Tuple[Tensors, Tensors]]): Adapter and head as saved; fresh ones if None.
    trained_on (Optional[BaseInfo]): The only base that `trained` fits.
    carried (Optional[Path]): The base in the pipeline's own folder.
    temperature (float): Divides the logits that probabilities are made of.
    """

    def __init__(
        self,
        name: str,
        settings: NERSettings,
        labels: tuple[str, ...] = (),
        seed: int = 0,
        trained: tuple[Tensors, Tensors] | None = None,
        trained_on: BaseInfo | None = None,
        tokenizer: Tokenizer | None = None,
        carried: Path | None = None,
        temperature: float = 1.0,
    ) -> None:
        self.name, self.settings, self.labels, self.seed = name, settings, labels, seed
        self.bio = BIO(labels)
        self.trained_on, self.tokenizer, self.carried = trained_on, tokenizer, carried
        self.temperature = temperature
        self._trained = trained
        self._classifier: TokenClassifier | None = None
        self._opening = threading.RLock()
        self._process = os.getpid()

    @property
    def trained(self) -> tuple[Tensors, Tensors] | None:
        """Adapter and head as they are now; None where nothing is trained yet."""
        with self._opening:
            return self._trained if self._classifier is None else self._classifier.trained()

    @property
    def classifier(self) -> TokenClassifier:
        """Opens the base if need be. Raises RunError without labels, or if the weights were trained on another."""
        # A worker of nlp.pipe: forked, it would wait for its parent's threads for ever.
        if self._process != os.getpid():
            if find_device(self.settings.device).type == "cuda":
                raise RunError("Q307", name=self.name)
            torch.set_num_threads(1)
            self._process = os.getpid()
        with self._opening:
            if self._classifier is None:
                with torch.inference_mode(False):  # what is made in inference mode can never be trained
                    self._classifier, self._trained = self._open(), None
            return self._classifier

    def _open(self) -> TokenClassifier:
        from spacy_qlora.engine.base import load_base
        from spacy_qlora.engine.classifier import TokenClassifier

        if not self.labels:
            raise RunError("Q304", name=self.name)
        folder = self.base_folder()
        base = load_base(folder, find_device(self.settings.device), getattr(torch, self.settings.compute_dtype))
        classifier = TokenClassifier(base, len(self.bio.tags), self.settings.classifier, self.seed)
        classifier.set_fold(self.settings.fold)
        if self._trained is not None:
            classifier.load_trained(*self._trained)
        self.trained_on, self.tokenizer = base.info, self.tokenizer or base.tokenizer
        return classifier

    def base_folder(self) -> Path:
        """Where the base lies. Raises InputError or RunError where it cannot be had, or is not the one trained on."""
        from spacy_qlora.engine.source import find_base

        folder = find_base(self.settings.base, self.carried, self.trained_on)
        expected, found = self.trained_on, BaseInfo.from_folder(folder)
        if expected is not None and expected.fingerprint != found.fingerprint:
            one, other = (f"{info.id} ({info.fingerprint[:12]})" for info in (expected, found))
            raise RunError("Q301", name=self.name, expected=one, found=other, path=folder)
        return folder

    def windows(self, docs: Sequence[Doc], tags: Sequence[NDArray[np.int64]] | None = None) -> list[Window]:
        """The windows of all docs, one after another.

        tags: [tokens] of each doc, for training; windows without a known tag are left out.
        """
        all_windows = [window for windows in self._windows(docs, tags) for window in windows]
        return [window for window in all_windows if window.tags is None or np.any(window.tags != IGNORED)]

    def _windows(self, docs: Sequence[Doc], tags: Sequence[NDArray[np.int64]] | None = None) -> list[list[Window]]:
        classifier, tokenizer = self.classifier, self.tokenizer
        assert tokenizer is not None  # set when the classifier is opened
        causal = classifier.settings.bidirectional_from is None
        size, overlap = self.settings.max_pieces, self.settings.overlap
        overlap = size // 2 if overlap is None else overlap
        gold = [None] * len(docs) if tags is None else tags
        return [
            doc_windows(doc, encoding, size, overlap, causal, known)
            for doc, encoding, known in zip(docs, encode_docs(tokenizer, docs), gold, strict=True)
        ]

    def predict(self, docs: Sequence[Doc]) -> list[list[ScoredSpan]]:
        """RETURNS: The entities of each doc, with their probabilities."""
        return [find_spans(self.bio, scores, self.temperature) for scores in self.scores(docs)]

    def scores(self, docs: Sequence[Doc]) -> list[NDArray[np.float32]]:
        """RETURNS: For each doc, [tokens, tags] logits."""
        if not self.labels:
            raise RunError("Q304", name=self.name)
        per_doc = self._windows(docs)
        rows = iter(
            self.classifier.predict([window for windows in per_doc for window in windows], self.settings.batch_pieces)
        )
        found = []
        for doc, windows in zip(docs, per_doc, strict=True):
            scores = self.bio.unread(len(doc))
            for window in windows:
                scores[window.words] = next(rows)
            found.append(scores)
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_classifier": None, "_trained": self.trained, "_opening": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _opening=threading.RLock())


def find_device(setting: str) -> torch.device:
    """setting: "auto" takes a CUDA device where there is one. Raises InputError where it cannot be had."""
    if setting == "auto":
        return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    try:
        device = torch.device(setting)
    except RuntimeError as error:
        raise InputError("Q306", name="device", value=setting, reason="no such device") from error
    if device.type not in ("cpu", "cuda"):
        raise InputError("Q306", name="device", value=setting, reason="not supported")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        reason = f"this machine has {torch.cuda.device_count()} CUDA devices"
        raise InputError("Q306", name="device", value=setting, reason=reason)
    return torch.device("cuda", device.index or 0) if device.type == "cuda" else device
