"""The model of spacy-transformers' `transformer` component: thinc's side of the adapter."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from spacy.tokens import Doc
from spacy_transformers.data_classes import FullTransformerBatch
from thinc.api import Model, Optimizer, Shim, get_torch_default_device
from tokenizers import Encoding
from torch import Tensor
from transformers.utils import ModelOutput

from spacy_qlora.bridge.adapted import AdaptedEncoder, TransformerSettings
from spacy_qlora.bridge.pieces import lay_out
from spacy_qlora.bridge.saved import from_bytes, to_bytes
from spacy_qlora.engine.source import read_shape
from spacy_qlora.errors import RunError
from spacy_qlora.optimizer import Stepper, use_params


class QLoRATransformer(Model[list[Doc], FullTransformerBatch]):
    """Opens the base when the first text comes, so that a pipeline loads, initialises and saves without it.

    Saved as one safetensors file with the adapter by peft's names, and all else as JSON in its header.
    """

    def __init__(self, settings: TransformerSettings) -> None:
        self.shim = AdapterShim(AdaptedEncoder("transformer", settings))
        super().__init__("qlora-transformer", forward, init=init, dims={"nO": None}, shims=[self.shim])

    def to_bytes(self) -> bytes:
        return to_bytes(self.shim.adapted, self.maybe_get_dim("nO"))

    def from_bytes(self, bytes_data: bytes) -> QLoRATransformer:
        """Raises InputError where the data is not what `to_bytes` gave."""
        self.shim.adapted, width = from_bytes(self.shim.adapted, bytes_data)
        if width is not None:
            self.set_dim("nO", width)
        return self

    def copy(self) -> QLoRATransformer:
        """spaCy would put copies in the place of listeners, by `replace_listeners`. Raises RunError."""
        raise RunError("Q701")


class AdapterShim(Shim):
    """What is trained, for thinc's optimizers."""

    def __init__(self, adapted: AdaptedEncoder) -> None:
        super().__init__(None)
        self.adapted = adapted
        self._stepper = Stepper()
        self._awaited = False  # whether states were given out whose gradients have not come back
        self._due: Optimizer | None = None  # of a step that has to wait for them

    def read(self, encodings: Sequence[Encoding], train: bool) -> tuple[Tensor, Callable[[Tensor], None] | None]:
        """As `AdaptedEncoder.read`."""
        if train:
            self._awaited = False
            if self._due is not None:  # the last states were given out in vain
                self.finish_update(self._due)
            self._awaited, self._due = True, None
        states, backward = self.adapted.read(encodings, train)

        def take(gradient: Tensor) -> None:
            assert backward is not None
            backward(gradient)
            self._awaited = False
            if self._due is not None:
                self.finish_update(self._due)

        return states, take if train else None

    def finish_update(self, optimizer: Optimizer) -> None:
        """Applies the gradients added up since the last step.

        `nlp.update` asks for it as soon as the states are given out, before the listeners are updated: it is then done
        when their gradients are there. In between, the weights must not change.
        """
        if self._awaited:
            self._due = optimizer
        elif any(weight.grad is not None for weight in self.adapted.encoder.adapter.values()):
            self._stepper.step(optimizer, self.id, self.adapted.encoder)

    @contextmanager
    def use_params(self, params: Mapping[tuple[int, str], Any]) -> Iterator[None]:
        """Within, the weights are those of `params`, such as an optimizer's averages, where it has them."""
        with use_params(params, self.id, self.adapted.encoder) if params else nullcontext():
            yield


def init(model: QLoRATransformer, X: object = None, Y: object = None) -> None:
    """Takes the seed and the width; weights come into being when they are first needed."""
    settings = model.shim.adapted.settings
    model.shim.adapted = AdaptedEncoder("transformer", settings, torch.initial_seed() % 2**31)
    model.set_dim("nO", read_shape(settings.base).hidden)


def forward(
    model: QLoRATransformer, docs: list[Doc], is_train: bool
) -> tuple[FullTransformerBatch, Callable[[FullTransformerBatch], list[Doc]]]:
    read = [doc for doc in docs if len(doc)]
    encodings = model.shim.adapted.encode(read)
    states, backward = model.shim.read(encodings, is_train)
    wordpieces, align = lay_out(read, encodings, states.shape[1])
    batch = FullTransformerBatch(
        spans=[[doc[:]] if len(doc) else [] for doc in docs],
        wordpieces=wordpieces,
        model_output=ModelOutput(last_hidden_state=states.to(get_torch_default_device())),
        align=align,
    )

    def backprop(gradients: FullTransformerBatch) -> list[Doc]:
        assert backward is not None
        gradient: Any = gradients.tensors[0]
        backward(gradient.cpu())
        return docs

    return batch, backprop
