"""The optimizer for `[training.optimizer]`, in both training loops."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from spacy.util import registry
from thinc.api import Optimizer

from spacy_qlora.engine.settings import OptimizerSettings

if TYPE_CHECKING:
    from spacy_qlora.engine.encoder import Encoder
    from spacy_qlora.engine.optimizer import AdapterOptimizer


class AdamW(Optimizer):
    """Settings of the adapter's own optimizer. Other components of the pipeline get thinc's Adam with decoupled decay.

    settings (OptimizerSettings): For `qlora_ner`, and the adapter of a transformer.
    total_steps (int): Of the run, for warmup and decay; 0 if not known.
    """

    def __init__(self, settings: OptimizerSettings, total_steps: int, learn_rate: float) -> None:
        super().__init__(learn_rate, L2=settings.weight_decay, grad_clip=settings.grad_clip, L2_is_weight_decay=True)
        self.settings, self.total_steps = settings, total_steps


@registry.optimizers("spacy-qlora.AdamW.v1")
def make_adamw(
    adapter_lr: float = 4e-4,
    head_lr: float = 2e-3,
    weight_decay: float = 0.01,
    warmup: float = 0.1,
    decay: str = "cosine",
    grad_clip: float = 1.0,
    total_steps: int = 0,
    learn_rate: float = 1e-3,
) -> AdamW:
    """adapter_lr (float): Highest learning rate of the adapter.
    head_lr (float): Highest learning rate of the head.
    weight_decay (float): Decoupled weight decay.
    warmup (float): Share of all steps in which the rates rise.
    decay (str): "cosine" or "linear", down to 0 after the last step, or "constant".
    grad_clip (float): Highest norm of all gradients together; 0 for none.
    total_steps (int): Steps of the run under `spacy train`, which does not tell; 0 for neither warmup nor decay there.
        `spacy qlora train` counts its steps itself.
    learn_rate (float): Of other components in the pipeline, under `spacy train`.
    RETURNS (AdamW): The optimizer.
    """
    settings = OptimizerSettings(adapter_lr, head_lr, weight_decay, warmup, decay, grad_clip)
    return AdamW(settings, total_steps, learn_rate)


class Stepper:
    """Applies gradients by the optimizer that `spacy train` hands over, whichever it is."""

    def __init__(self) -> None:
        self._made: tuple[AdamW, Encoder, AdapterOptimizer] | None = None  # and what it was made from

    def step(self, sgd: Optimizer, key: object, encoder: Encoder, words: int = 1) -> None:
        """Applies the gradients added up since the last step, and clears them.

        sgd: `spacy-qlora.AdamW.v1` or any optimizer of thinc.  key: The component's, for the optimizer's own keys.
        words: Over how many words the losses were summed.
        """
        from spacy_qlora.engine.optimizer import AdapterOptimizer

        if not isinstance(sgd, AdamW):
            apply_thinc(sgd, key, encoder, words)
            return
        if self._made is None or self._made[0] is not sgd or self._made[1] is not encoder:
            self._made = sgd, encoder, AdapterOptimizer(encoder, sgd.settings, sgd.total_steps)
        self._made[2].step(words)

    def __getstate__(self) -> dict[str, Any]:
        return {"_made": None}


@torch.no_grad()
def apply_thinc(sgd: Optimizer, name: object, encoder: Encoder, words: int) -> None:
    """One step of any thinc optimizer on what is trained, through NumPy, and the gradients cleared.

    name: The component's, for the optimizer's keys.  words: Over how many words the losses were summed.
    """
    for key, parameter in encoder.named_trained():
        if parameter.grad is not None:
            gradient = (parameter.grad / words).cpu().numpy()
            new, _ = sgd((name, key), parameter.cpu().numpy(), gradient)  # type: ignore[arg-type]
            parameter.copy_(torch.from_numpy(new))
            parameter.grad = None


@contextmanager
def use_params(params: Mapping[Any, Any], name: object, encoder: Encoder) -> Iterator[None]:
    """Within, the weights are those of `params`, by (name, their own name), where it has them."""
    swapped = {key: weight for key, weight in encoder.named_trained() if (name, key) in params}
    before = {key: weight.detach().clone() for key, weight in swapped.items()}
    _set(swapped, {key: torch.from_numpy(params[name, key]) for key in swapped})
    try:
        yield
    finally:
        _set(swapped, before)


@torch.no_grad()
def _set(weights: Mapping[str, torch.nn.Parameter], values: Mapping[str, torch.Tensor]) -> None:
    for key, weight in weights.items():
        weight.copy_(values[key])
