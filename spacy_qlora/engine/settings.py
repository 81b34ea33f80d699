"""The engine's settings, checked when they are made. Imports nothing heavy, so that a pipeline loads fast."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

from spacy_qlora.errors import InputError

LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
DECAYS = ("cosine", "linear", "constant")
UNITS = {"mb": 10**6, "gb": 10**9, "mib": 2**20, "gib": 2**30}
READS = {"last": 1, "first_last": 2}  # pieces of each word that the head reads


def require(allowed: bool, name: str, value: object, rule: str) -> None:
    """Raises InputError where a setting is not allowed; `rule` says what it has to be."""
    if not allowed:
        raise InputError("Q210", name=name, value=value, rule=rule)


def read_size(text: str, name: str = "memory") -> int:
    """Bytes of a size such as "8GiB" or "7.5 GB". name: Of the setting. Raises InputError where it is none."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([MG]i?B)", text.strip(), re.IGNORECASE)
    size = int(float(found[1]) * UNITS[found[2].lower()]) if found else 0
    require(size > 0, name, text, "a size such as 8GiB or 7500MB")
    return size


@dataclass(frozen=True)
class LoRASettings:
    """r: Rank.  alpha: The product is scaled by alpha / r.  dropout: Probability, on the adapter's input.
    target_modules: The linears of each layer that are adapted.
    """

    r: int = 16
    alpha: float = 32
    dropout: float = 0.0
    target_modules: tuple[str, ...] = LINEARS

    def __post_init__(self) -> None:
        require(self.r >= 1, "r", self.r, "at least 1")
        require(self.alpha > 0, "alpha", self.alpha, "above 0")
        require(0 <= self.dropout < 1, "dropout", self.dropout, "at least 0 and below 1")
        known = bool(self.target_modules) and set(self.target_modules) <= set(LINEARS)
        require(known, "target_modules", list(self.target_modules), f"some of {list(LINEARS)}")


@dataclass(frozen=True)
class ClassifierSettings:
    """lora: The adapter.  layers: How many layers of the base to keep, from the bottom; all if None.
    adapted_layers: How many of those are adapted, from the top; all if None.
    bidirectional_from: The first layer with unmasked attention; None leaves every layer causal, and "auto" all but the
        upper half and those that are not adapted.
    pooling: Which pieces of a word the head reads: "last", or "first_last" for both beside each other.
    label_smoothing: Share of a word's target that all tags divide equally, instead of its own taking the whole.
    """

    lora: LoRASettings = field(default_factory=LoRASettings)
    layers: int | None = None
    adapted_layers: int | None = None
    bidirectional_from: int | str | None = "auto"
    pooling: str = "last"
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        for name in ("layers", "adapted_layers"):
            count = getattr(self, name)
            require(count is None or count >= 1, name, count, "empty or at least 1")
        first = self.bidirectional_from
        allowed = first in (None, "auto") or (isinstance(first, int) and first >= 0)
        require(allowed, "bidirectional_from", first, '"auto", empty or at least 0')
        require(self.pooling in READS, "pooling", self.pooling, f"one of {list(READS)}")
        smoothing = self.label_smoothing
        require(0 <= smoothing < 1, "label_smoothing", smoothing, "at least 0 and below 1")

    @property
    def reads(self) -> int:
        """How many pieces of each word the head reads."""
        return READS[self.pooling]

    def depths(self, layers: int, base: str) -> tuple[int, int]:
        """How many layers are kept of a base that has `layers`, and how many of those, from the top, are adapted.

        base: Its name, for errors. Raises InputError where there are too few.
        """
        depth = self.layers or layers
        require(depth <= layers, "layers", depth, f"at most {layers} with {base}")
        adapted = self.adapted_layers or depth
        require(adapted <= depth, "adapted_layers", adapted, f"at most the {depth} layers that are kept")
        return depth, adapted

    def unmasked_from(self, layers: int, base: str) -> int | None:
        """`bidirectional_from` on a base that has `layers`: a number of one that is kept, or None. Raises InputError as
        `depths` does.
        """
        depth, adapted = self.depths(layers, base)
        first = self.bidirectional_from
        if isinstance(first, str):
            return max(depth // 2, depth - adapted)
        allowed = first is None or first <= depth
        require(allowed, "bidirectional_from", first, f"at most the {depth} layers that are kept")
        return None if first == depth else first


@dataclass(frozen=True)
class OptimizerSettings:
    """adapter_lr, head_lr: Highest learning rates.  weight_decay: Decoupled.  warmup: Share of all steps.
    decay: "cosine" or "linear", down to 0 after the last step, or "constant".
    grad_clip: Highest norm of all gradients together, 0 for none.
    """

    adapter_lr: float = 4e-4
    head_lr: float = 2e-3
    weight_decay: float = 0.01
    warmup: float = 0.1
    decay: str = "cosine"
    grad_clip: float = 1.0

    def __post_init__(self) -> None:
        for name in ("adapter_lr", "head_lr", "weight_decay", "grad_clip"):
            value = getattr(self, name)
            require(math.isfinite(value) and value >= 0, name, value, "at least 0")
        require(0 <= self.warmup <= 1, "warmup", self.warmup, "a share between 0 and 1")
        require(self.decay in DECAYS, "decay", self.decay, f"one of {list(DECAYS)}")

    def factor(self, step: int, total: int) -> float:
        """What the learning rates are multiplied by at `step` of `total`; always 1 without a total."""
        warmup = max(1, round(self.warmup * total))
        if step < warmup:
            return (step + 1) / warmup
        if not total or self.decay == "constant":
            return 1.0
        rest = min(1.0, (step - warmup) / max(1, total - warmup))
        return 1 - rest if self.decay == "linear" else (1 + math.cos(math.pi * rest)) / 2


@dataclass(frozen=True)
class LoopSettings:
    """batch_size: Texts a step; 0 fills each step with `batch_pieces` x `accumulate` instead.
    batch_pieces: Most pieces a micro-batch.  accumulate: Micro-batches a step, where batch_size is 0.
    checkpointing: Recompute each layer in the backward pass instead of keeping its activations.
    memory_budget: Such as "8GiB": smaller micro-batches, checkpointed layers and 8-bit moments are then planned to fit,
    whatever `checkpointing` says.  None for no plan.
    prefix_cache: Compute what the layers below the adapted ones make of the corpus once, and keep it on disk.
    compile: Let torch.compile make one kernel of what lies between the products, where there is a compiler.
    checkpoint_minutes: Save the state to resume from when so many minutes passed, and at each evaluation; 0 then only.
    """

    batch_size: int = 0
    batch_pieces: int = 768
    accumulate: int = 1
    checkpointing: bool = False
    memory_budget: str | None = None
    prefix_cache: bool = True
    compile: bool = False
    checkpoint_minutes: float = 10.0

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 0), ("batch_pieces", 1), ("accumulate", 1), ("checkpoint_minutes", 0)):
            require(getattr(self, name) >= least, name, getattr(self, name), f"at least {least}")
        if self.memory_budget:
            read_size(self.memory_budget, "memory_budget")
