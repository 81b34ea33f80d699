"""The spaCy component: Docs in, doc.ents out."""

# No postponed annotations here: spaCy builds its checks of the arguments from them.
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from spacy.language import Language
from spacy.pipeline.pipe import Pipe
from spacy.tokens import Doc
from spacy.training import Example, validate_examples, validate_get_examples
from spacy.util import minibatch
from spacy.vocab import Vocab

from spacy_qlora import saved
from spacy_qlora.errors import InputError
from spacy_qlora.model import NERModel
from spacy_qlora.optimizer import Stepper, use_params
from spacy_qlora.settings import NERSettings
from spacy_qlora.text.ents import set_ents
from spacy_qlora.text.gold import gold_tags
from spacy_qlora.text.spans import ScoredSpan


class QLoRANER(Pipe):
    """A named entity recogniser: a 4-bit base, a LoRA adapter and a head that tags tokens by BIO.

    The base is opened when the first text comes, so that a pipeline loads, initialises and saves without it.

    vocab (Vocab): The shared vocabulary.
    name (str): The component's name in the pipeline.
    settings (NERSettings): See there.
    scorer (Optional[Callable]): The scoring method.
    """

    def __init__(self, vocab: Vocab, name: str, settings: NERSettings, scorer: Callable | None = None) -> None:
        self.vocab, self.name, self.scorer = vocab, name, scorer
        self._set_model(NERModel(name, settings))

    def _set_model(self, model: NERModel) -> None:
        self.model = model
        self._words = 0  # over which losses were summed since the last step
        self._stepper = Stepper()
        for label in model.labels:
            self.vocab.strings.add(label)  # for good: within nlp.memory_zone(), what is new is forgotten at its end

    @property
    def settings(self) -> NERSettings:
        return self.model.settings

    @property
    def threshold(self) -> float:
        """The lowest probability with which an entity gets into doc.ents: of the settings, or of the calibration."""
        return self.model.threshold if self.settings.threshold is None else self.settings.threshold

    @property
    def labels(self) -> tuple[str, ...]:
        """The entity labels, in the order of the head's outputs."""
        return self.model.labels

    @property
    def label_data(self) -> tuple[str, ...]:
        """What `spacy init labels` writes and `initialize` takes."""
        return self.labels

    @property
    def is_trainable(self) -> bool:
        return True

    def __call__(self, doc: Doc) -> Doc:
        """Sets the entities of one doc. DOCS: https://spacy.io/api/pipe#call"""
        next(iter(self.pipe([doc], batch_size=1)), None)
        return doc

    def pipe(self, stream: Iterable[Doc], *, batch_size: int = 256) -> Iterator[Doc]:
        """Sets the entities of many docs; windows of `batch_size` docs at a time share the model's batches.

        Where that fails, each doc is tried alone, and the error handler gets the docs that fail.
        """
        handle = self.get_error_handler()
        for docs in minibatch(stream, batch_size):
            try:
                self.set_annotations(docs, self.predict(docs))
                done = True
            except Exception as error:
                done = False
                if len(docs) == 1:
                    handle(self.name, self, docs, error)
            if done:
                yield from docs
            elif len(docs) > 1:  # outside the handler: the error keeps the tensors of the failed attempt
                yield from self.pipe(docs, batch_size=1)

    def predict(self, docs: Sequence[Doc]) -> list[list[ScoredSpan]]:
        """RETURNS: The entities of each doc, with their probabilities."""
        return self.model.predict(docs)

    def set_annotations(self, docs: Iterable[Doc], found: Iterable[Sequence[ScoredSpan]]) -> None:
        """Sets doc.ents as the settings say; one without an entity gets an empty list, not none."""
        settings = self.settings
        for doc, spans in zip(docs, found, strict=True):
            set_ents(doc, spans, settings.earlier_ents, self.threshold, settings.spans_key)

    def initialize(
        self,
        get_examples: Callable[[], Iterable[Example]],
        *,
        nlp: Language | None = None,
        labels: Sequence[str] | None = None,
    ) -> None:
        """Takes the labels and the seed; weights come into being when they are first needed.

        get_examples (Callable): Gives the training examples; read whole if `labels` are not given.
        labels (Optional[Sequence[str]]): As `spacy init labels` writes them.
        Raises InputError where the corpus has no entity.
        """
        if labels is None:
            validate_get_examples(get_examples, "QLoRANER.initialize")
            labels = sorted({span.label_ for example in get_examples() for span in example.reference.ents})
        if not labels:
            raise InputError("Q303", name=self.name)
        labels, seed = tuple(dict.fromkeys(labels)), torch.initial_seed() % 2**31
        self._set_model(NERModel(self.name, self.settings, labels, seed, carried=self.model.carried))

    def update(
        self,
        examples: Iterable[Example],
        *,
        drop: float = 0.0,
        sgd: Any = None,
        losses: dict[str, float] | None = None,
    ) -> dict[str, float]:
        """Adds up the gradients of a batch, and steps if `sgd` is given. `spacy train` calls it.

        drop (float): Not used; the adapter's dropout is a setting of the component.
        sgd (Any): An optimizer, or None or False to leave the step to `finish_update`.
        losses (Dict[str, float]): Gets the batch's mean cross-entropy of a word added, in nats, by component.
        """
        examples = list(examples)
        losses = {} if losses is None else losses
        losses.setdefault(self.name, 0.0)
        validate_examples(examples, "QLoRANER.update")
        windows = self.model.windows([example.predicted for example in examples], self._gold(examples))
        total, words = self.model.classifier.accumulate(windows, self.settings.batch_pieces)
        self._words += words
        losses[self.name] += total / max(words, 1)
        if sgd not in (None, False):
            self.finish_update(sgd)
        return losses

    def finish_update(self, sgd: Any) -> None:
        """Applies the gradients added up since the last step, by `spacy-qlora.AdamW.v1` or any optimizer of thinc."""
        if self._words:
            self._stepper.step(sgd, self.name, self.model.classifier, self._words)
            self._words = 0
            self.model.forget_calibration()

    def use_params(self, params: Mapping[tuple[str, str], Any]) -> Iterator[None]:
        """Till it goes on, the weights are those of `params`, such as an optimizer's averages, where it has them."""
        with use_params(params, self.name, self.model.classifier):
            yield

    def training_windows(self, examples: Iterable[Example]) -> list:
        """RETURNS (List[Window]): What the engine's loop trains on; read in parts, so few docs are held at once."""
        windows, stream = [], iter(examples)
        while part := list(islice(stream, 256)):
            windows += self.model.windows([example.predicted for example in part], self._gold(part))
        return windows

    def _gold(self, examples: Sequence[Example]) -> list[NDArray[np.int64]]:
        known = set(self.labels)
        for example in examples:
            for span in example.reference.ents:
                if span.label_ not in known:
                    raise InputError("Q302", name=self.name, label=span.label_, count=len(known))
        return [gold_tags(example, self.model.bio) for example in examples]

    def to_bytes(self, *, exclude: Iterable[str] = ()) -> bytes:
        """RETURNS (bytes): The component without its base. Its parts make one whole: `exclude` leaves none out."""
        return saved.to_bytes(self.model)

    def from_bytes(self, data: bytes, *, exclude: Iterable[str] = ()) -> "QLoRANER":
        """data (bytes): What `to_bytes` gave."""
        self._set_model(saved.from_bytes(self.model, data))
        return self

    def to_disk(self, path: str | Path, *, exclude: Iterable[str] = ()) -> None:
        """Writes cfg, tokenizer.json, adapter/, head.safetensors, base.json, and base/ if asked to carry it."""
        saved.to_disk(self.model, Path(path))

    def from_disk(self, path: str | Path, *, exclude: Iterable[str] = ()) -> "QLoRANER":
        """path (Path): What `to_disk` wrote. Raises InputError where a part is missing, cut or wrong."""
        self._set_model(saved.from_disk(self.model, Path(path)))
        return self
