"""AdamW over adapter and head, each at its own rate, with warmup and decay."""

from __future__ import annotations

import math

import torch
from bitsandbytes.optim import AdamW8bit
from torch.autograd.graph import increment_version
from torch.nn.utils import clip_grad_norm_
from torch.optim.lr_scheduler import LambdaLR

from spacy_qlora.engine.encoder import Encoder
from spacy_qlora.engine.settings import OptimizerSettings
from spacy_qlora.errors import RunError


class AdapterOptimizer:
    """The optimizer of one adapter and its head, if it has one.

    total (int): Steps of the whole run, for warmup and decay; 0 if not known.
    eight_bit (bool): Keep the moments of all but small parameters in 8 bits, by bitsandbytes.
    """

    def __init__(self, encoder: Encoder, settings: OptimizerSettings, total: int, eight_bit: bool = False) -> None:
        self.settings = settings
        adapter, head = list(encoder.adapter.values()), list(encoder.head.parameters())
        self.parameters = [*adapter, *head]
        groups = [{"params": adapter, "lr": settings.adapter_lr}, {"params": head, "lr": settings.head_lr}]
        self.adamw: torch.optim.Optimizer
        if eight_bit:
            self.adamw = AdamW8bit(groups, weight_decay=settings.weight_decay)
        else:
            fused = encoder.device.type in ("cpu", "cuda")
            self.adamw = torch.optim.AdamW(groups, weight_decay=settings.weight_decay, fused=fused or None)
        self.schedule = LambdaLR(self.adamw, lambda step: settings.factor(step, total))

    def step(self, words: int) -> float:
        """Applies the gradients of summed losses and clears them.

        words: Over how many words the losses were summed.  RETURNS: The norm of the mean's gradients before clipping.
        Raises RunError where it is not a number, as it is once a loss is not; nothing is applied then.
        """
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        torch._foreach_div_(gradients, max(words, 1))
        norm = float(clip_grad_norm_(self.parameters, self.settings.grad_clip or math.inf))
        if not math.isfinite(norm):
            raise RunError("Q402", step=self.schedule.last_epoch + 1)
        self.adamw.step()
        for parameter in self.parameters:  # fused kernels do not tell, and weights folded for prediction would go stale
            increment_version(parameter)
        self.schedule.step()
        self.adamw.zero_grad(set_to_none=True)
        return norm

    def go_to(self, step: int) -> None:
        """Sets the learning rates to those of `step`, for a run that goes on."""
        self.schedule.last_epoch = step
        for group, rate, factor in zip(
            self.adamw.param_groups, self.schedule.base_lrs, self.schedule.lr_lambdas, strict=True
        ):
            group["lr"] = rate * factor(step)
