"""The base with an adapter: pieces in, hidden states out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.utils.checkpoint import checkpoint

from spacy_qlora.engine.base import Base
from spacy_qlora.engine.batching import Batch, by_budget, collate, rounded
from spacy_qlora.engine.functions import RMSNorm, compiled
from spacy_qlora.engine.layer import LEAVES, Layer
from spacy_qlora.engine.lora import PEFT_PREFIX, LoRALinears
from spacy_qlora.engine.memory import is_out_of_memory
from spacy_qlora.engine.settings import ClassifierSettings
from spacy_qlora.engine.window import Window
from spacy_qlora.errors import RunError


class Encoder(nn.Module):
    """base (Base): Shared and frozen.  seed (int): Of the first weights.
    make_head (Callable): What is trained on top of the states; nothing if not given.
    """

    def __init__(
        self, base: Base, settings: ClassifierSettings, seed: int = 0, make_head: Callable[[], nn.Module] = nn.Identity
    ) -> None:
        super().__init__()
        leaves, lora = base.leaves, settings.lora
        depth, adapted = settings.depths(base.config.num_hidden_layers, base.info.id)
        self.base, self.settings, self.device = base, settings, base.device
        self.unmasked_from = settings.unmasked_from(base.config.num_hidden_layers, base.info.id)
        self.frozen = depth - adapted  # layers below the first adapted one
        self.checkpointed = 0  # so many of the next trade a second forward for the memory of their activations
        self.embed, self.norm = leaves["embed_tokens"], leaves["norm"]
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed those of all GPUs, too
            built = [
                Layer(base.config, {name: leaves[f"layers.{i}.{name}"] for name in LEAVES}, lora, i >= self.frozen)
                for i in range(depth)
            ]
            self.head = make_head().to(self.device)
        self.layers = nn.ModuleList(built)
        self.adapter = {
            f"{PEFT_PREFIX}layers.{i}.{name}": master
            for i, layer in enumerate(built)
            for name, master in layer.masters.items()
        }

    def forward(self, batch: Batch) -> Tensor:
        """RETURNS: [words, reads * hidden] normed states, or what the head makes of them, float32."""
        states = self.frozen_states(batch) if batch.states is None else batch.states
        states = self._through(range(self.frozen, len(self.layers)), states, batch)
        normed = RMSNorm.apply(states[: len(batch.read)], self.norm.weight, self.base.config.rms_norm_eps).float()
        return self.head(normed.index_select(0, batch.words).view(-1, self.settings.reads * normed.shape[1]))

    @torch.no_grad()
    def frozen_states(self, batch: Batch) -> Tensor:
        """What the layers below the adapted ones make of a batch. RETURNS: [pieces, hidden].

        In training, on a CPU, a window's are the same to the bit whatever stands beside it.
        """
        with compiled(False):
            return self._through(range(self.frozen), self.embed(batch.pieces), batch)[: len(batch.pieces)]

    def _through(self, layers: range, states: Tensor, batch: Batch) -> Tensor:
        """states: [pieces, hidden].

        RETURNS: [pieces, hidden], or those read behind the top layer; then rows that round their number up.
        """
        cos, sin = self.base.rotary(states, torch.arange(batch.layout.width, device=self.device)[None])
        states = pad(states, (0, 0, 0, rounded(len(states)) - len(states)))
        read = pad(batch.read, (0, rounded(len(batch.read)) - len(batch.read)))
        for i in layers:
            causal = self.unmasked_from is None or i < self.unmasked_from
            inputs = states, batch.layout, (cos[0], sin[0]), causal, read if i == len(self.layers) - 1 else None
            if i < self.frozen + self.checkpointed and torch.is_grad_enabled():
                states = checkpoint(self.layers[i], *inputs, use_reentrant=False)
            else:
                states = self.layers[i](*inputs)
        return states

    def lengths(self, windows: Sequence[Window]) -> list[int]:
        """Pieces of each window, the begin-of-text that `collate` puts before it counted."""
        lead = self.base.config.bos_token_id is not None
        return [len(window) + lead for window in windows]

    def collate(self, windows: Sequence[Window]) -> Batch:
        return collate(windows, self.base.config.bos_token_id).to(self.device)

    def begin(self, windows: Sequence[Window], budget: int) -> tuple[list[Tensor], Callable[[Sequence[Tensor]], None]]:
        """Reads windows for training, in micro-batches of at most `budget` pieces.

        RETURNS: For each window, [words, hidden] on the CPU; and what takes their gradients, once, and adds up those of
        the adapter. Till then all activations stay.
        """
        self.train()
        rows = [torch.empty(0)] * len(windows)
        parts: list[tuple[list[int], Tensor]] = []
        for chosen in by_budget(self.lengths(windows), budget):
            states = self(self.collate([windows[i] for i in chosen]))
            parts.append((chosen, states))
            counts = [len(windows[i].words) for i in chosen]
            for i, part in zip(chosen, states.detach().cpu().split(counts), strict=True):
                rows[i] = part

        def backward(gradients: Sequence[Tensor]) -> None:
            self.train()  # checkpointed layers run again, and something may have predicted since
            while parts:  # let go of each micro-batch's activations before the next
                chosen, states = parts.pop()
                states.backward(torch.cat([gradients[i] for i in chosen]).to(states.device))

        return rows, backward

    @torch.inference_mode()
    def predict(self, windows: Sequence[Window], budget: int) -> list[NDArray[np.float32]]:
        """What `forward` gives for each window's words, in the order of `windows`.

        budget: Pieces a batch. A batch that memory is too small for is halved.
        Raises RunError where it is too small for a single window.
        """
        self.eval()
        found: list[NDArray[np.float32]] = [np.zeros((0, 0), np.float32)] * len(windows)
        for chosen in by_budget(self.lengths(windows), budget):
            for i, rows in zip(chosen, self._rows([windows[i] for i in chosen]), strict=True):
                found[i] = rows
        return found

    def _rows(self, windows: Sequence[Window]) -> list[NDArray[np.float32]]:
        """What `forward` gives for one batch's windows, or its halves'."""
        try:
            rows = self(self.collate(windows)).cpu().split([len(window.words) for window in windows])
            return [row.numpy() for row in rows]
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if len(windows) == 1:
                raise RunError("Q416", pieces=len(windows[0])) from error
        half = len(windows) // 2  # after the handler: the error keeps the tensors of the failed attempt
        return self._rows(windows[:half]) + self._rows(windows[half:])

    def named_trained(self) -> list[tuple[str, nn.Parameter]]:
        """The parameters that are trained: the adapter's by peft's names, then the head's, such as head.weight."""
        return [*self.adapter.items(), *((f"head.{name}", value) for name, value in self.head.named_parameters())]

    def trained(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """RETURNS: Copies of the adapter's tensors, by peft's names, and of the head's, on the CPU."""
        adapter = {name: value.detach().cpu().clone() for name, value in self.adapter.items()}
        return adapter, {name: value.detach().cpu().clone() for name, value in self.head.named_parameters()}

    @torch.no_grad()
    def load_trained(self, adapter: Mapping[str, Tensor], head: Mapping[str, Tensor]) -> None:
        """Sets what `trained` gave. Raises RunError where names or shapes are others, or a value is no number."""
        own = dict(self.named_trained())
        given = {**adapter, **{f"head.{name}": value for name, value in head.items()}}
        if wrong := {name for name in own.keys() | given.keys() if not _fits(own.get(name), given.get(name))}:
            raise RunError("Q215", name=min(wrong), base=self.base.info.id)
        for name, parameter in own.items():
            parameter.copy_(given[name])

    def set_fold(self, fold: bool) -> None:
        """Whether to keep a copy of the weights with the adapter folded in while predicting, where there is room."""
        for module in self.modules():
            if isinstance(module, LoRALinears):
                module.fold = fold

    def count(self) -> tuple[int, int]:
        """RETURNS: How many parameters are trained, and how many there are in all, each 4-bit weight counted as one."""
        trained = sum(parameter.numel() for _, parameter in self.named_trained())
        frozen = 0
        for module in self.modules():
            if module is not self.head and isinstance(weight := getattr(module, "weight", None), nn.Parameter):
                state = getattr(weight, "quant_state", None)
                frozen += weight.numel() if state is None else state.shape.numel()
        return trained, trained + frozen


def _fits(own: Tensor | None, given: Tensor | None) -> bool:
    if own is None or given is None or own.shape != given.shape:
        return False
    return given.is_floating_point() and bool(torch.isfinite(given).all())
