"""AdamW over adapter and head, each at its own rate, with warmup and decay."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.nn.utils import clip_grad_norm_
from torch.optim.lr_scheduler import LambdaLR

from spacy_qlora.engine.classifier import TokenClassifier
from spacy_qlora.errors import InputError

DECAYS = ("cosine", "linear", "constant")


@dataclass(frozen=True)
class OptimizerSettings:
    """adapter_lr, head_lr: Highest learning rates.  weight_decay: Decoupled.  warmup: Share of all steps.
    decay: "cosine" or "linear" down to 0 at the last step, or "constant".  grad_clip: Highest norm of all gradients, 0 for none.
    """

    adapter_lr: float = 4e-4
    head_lr: float = 2e-3
    weight_decay: float = 0.01
    warmup: float = 0.05
    decay: str = "cosine"
    grad_clip: float = 1.0

    def __post_init__(self) -> None:
        for name in ("adapter_lr", "head_lr", "weight_decay", "grad_clip"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise InputError("Q210", name=name, value=getattr(self, name), rule="at least 0")
        if not 0 <= self.warmup <= 1:
            raise InputError("Q210", name="warmup", value=self.warmup, rule="a share between 0 and 1")
        if self.decay not in DECAYS:
            raise InputError("Q210", name="decay", value=self.decay, rule=f"one of {list(DECAYS)}")

    def factor(self, step: int, total: int) -> float:
        """What the learning rates are multiplied by at `step` of `total`; without a total there is no decay."""
        warmup = max(1, round(self.warmup * total))
        if step < warmup:
            return (step + 1) / warmup
        if not total or self.decay == "constant":
            return 1.0
        rest = min(1.0, (step - warmup) / max(1, total - warmup))
        return 1 - rest if self.decay == "linear" else (1 + math.cos(math.pi * rest)) / 2


class AdapterOptimizer:
    """The optimizer of one classifier.

    total (int): Steps of the whole run, for warmup and decay; 0 if not known.
    """

    def __init__(self, classifier: TokenClassifier, settings: OptimizerSettings, total: int) -> None:
        self.settings = settings
        adapter, head = list(classifier.adapter.values()), list(classifier.head.parameters())
        self.parameters = [*adapter, *head]
        groups = [{"params": adapter, "lr": settings.adapter_lr}, {"params": head, "lr": settings.head_lr}]
        self.adamw = torch.optim.AdamW(groups, weight_decay=settings.weight_decay)
        self.schedule = LambdaLR(self.adamw, lambda step: settings.factor(step, total))

    def step(self, words: int) -> float:
        """Applies the gradients of summed losses and clears them.

        words: Over how many words the losses were summed.  RETURNS: The norm of the mean's gradients before clipping.
        """
        for parameter in self.parameters:
            if parameter.grad is not None:
                parameter.grad /= max(words, 1)
        norm = float(clip_grad_norm_(self.parameters, self.settings.grad_clip or math.inf))
        if math.isfinite(norm):
            self.adamw.step()
        self.schedule.step()
        self.adamw.zero_grad(set_to_none=True)
        return norm

    def state_dict(self) -> dict[str, object]:
        return {"adamw": self.adamw.state_dict(), "schedule": self.schedule.last_epoch}
