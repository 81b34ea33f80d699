"""What a run costs in memory, by item: computed before it starts."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import MistralConfig

from spacy_qlora.engine.attention import SHORT
from spacy_qlora.engine.batching import PADDING, rounded
from spacy_qlora.engine.heap import give_back_memory
from spacy_qlora.engine.settings import LINEARS, ClassifierSettings, LoopSettings

MIB = 2**20
MASTER = 4  # bytes of an element of the adapter and the head, and of each of their gradients
# What the interpreter and the libraries take before the base is loaded, and what CUDA takes for itself, as estimated.
PROGRAM = {"cpu": 700 * MIB, "cuda": 400 * MIB}
SLACK = 0.05  # of all
OUT_OF_MEMORY = (
    "DefaultCPUAllocator",
    "Cannot allocate memory",
    "could not create a primitive",  # oneDNN, which has no other words for it
    "CUDA error: out of memory",
    "CUDA driver error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",  # cuBLAS's word where there is none to start with
)
RESIDENT = 512 * MIB  # of dequantised weights are kept if all of them are no more


@dataclass(frozen=True)
class Shape:
    """A base's: how many layers, and how wide each part of them is.

    query, kv: All heads together.  mlp: The inner width.
    """

    layers: int
    hidden: int
    heads: int
    query: int
    kv: int
    mlp: int
    vocabulary: int

    @classmethod
    def of(cls, config: MistralConfig) -> Shape:
        size = config.head_dim or config.hidden_size // config.num_attention_heads
        return cls(
            layers=config.num_hidden_layers,
            hidden=config.hidden_size,
            heads=config.num_attention_heads,
            query=config.num_attention_heads * size,
            kv=config.num_key_value_heads * size,
            mlp=config.intermediate_size,
            vocabulary=config.vocab_size,
        )

    def linears(self) -> dict[str, tuple[int, int]]:
        """The widths of each linear of a layer, in and out."""
        hidden, query, kv, mlp = self.hidden, self.query, self.kv, self.mlp
        sizes = [
            (hidden, query),
            (hidden, kv),
            (hidden, kv),
            (query, hidden),
            (hidden, mlp),
            (hidden, mlp),
            (mlp, hidden),
        ]
        return dict(zip(LINEARS, sizes, strict=True))

    @property
    def layer_weights(self) -> int:
        return sum(size * out for size, out in self.linears().values())

    def unquantised(self, layers: int) -> int:
        """Parameters of the embedding and of the norms, with so many layers."""
        return (self.vocabulary + 2 * layers + 1) * self.hidden


@dataclass(frozen=True)
class Job:
    """What the memory of a training run depends on.

    pieces: Of a micro-batch.  length: Pieces of its longest window.  words: That are scored.
    padding: How many times as many pieces attention sees.
    checkpointed: Adapted layers, from the bottom, whose activations are computed again in the backward pass.
    resident: Layers whose dequantised weights stay in memory.  eight_bit: Whether the optimizer's moments are 8-bit.
    size: Bytes of an element of the compute type.  device: "cpu" or "cuda".
    """

    shape: Shape
    settings: ClassifierSettings
    tags: int
    pieces: int
    length: int
    words: int
    checkpointed: int = 0
    resident: int = 0
    eight_bit: bool = False
    size: int = 2
    device: str = "cpu"
    padding: float = 1.0

    @property
    def depth(self) -> int:
        return self.settings.layers or self.shape.layers

    @property
    def adapted(self) -> int:
        return self.settings.adapted_layers or self.depth

    @property
    def rows(self) -> int:
        """Computed for the pieces of a micro-batch."""
        return rounded(self.pieces)

    @classmethod
    def usual(
        cls,
        shape: Shape,
        settings: ClassifierSettings,
        loop: LoopSettings,
        tags: int,
        length: int,
        words_a_piece: float = 1.0,
        size: int = 2,
        device: str = "cpu",
    ) -> Job:
        """What a config describes, before any budget. words_a_piece: In the corpus; none has more than one."""
        pieces = max(loop.batch_pieces, length)
        words = math.ceil(pieces * words_a_piece)
        resident = usually_resident(shape, size)
        job = cls(shape, settings, tags, pieces, length, words, resident=resident, size=size, device=device)
        return replace(job, checkpointed=job.adapted if loop.checkpointing else 0, padding=PADDING)

    def items(self) -> dict[str, int]:
        """Bytes by item."""
        shape, trained = self.shape, self.trained()
        weights = shape.layers * shape.layer_weights
        layer, top = self.layer_activations(), self.adapted - 1
        open_layers = range(self.checkpointed, self.adapted)
        activations = sum(self.layer_activations(first=i == 0, last=i == top) for i in open_layers)
        return {
            "weights in 4 bits": weights // 2,
            "their constants": shape.layers * sum(_constants(a * b) for a, b in shape.linears().values()),
            "embedding and norms": shape.unquantised(shape.layers) * self.size,
            "weights kept dequantised": self.resident * shape.layer_weights * self.size,
            "adapter and head": trained * MASTER,
            "their gradients": trained * MASTER,
            "the optimizer's moments": trained * (2 if self.eight_bit else 2 * MASTER),
            "activations": activations + self._head(),
            "checkpoints": self.checkpointed * self.rows * shape.hidden * self.size,
            "one layer at a time": (layer if self.checkpointed else 0) + self._transient(),
            "dequantised for one product": max(a * b for a, b in shape.linears().values()) * self.size,
            "program": PROGRAM[self.device],
        }

    def total(self) -> int:
        """The most that the run takes at once, with what the allocator cannot use between its blocks."""
        return int(sum(self.items().values()) * (1 + SLACK))

    def trained(self) -> int:
        """How many parameters are trained."""
        head = (self.settings.reads * self.shape.hidden + 1) * self.tags
        return self.adapted * sum(self.layer_adapter().values()) + head

    @property
    def read(self) -> int:
        """Rows of which the head is made, at most: a word of one piece is read there alone."""
        return min(self.pieces, self.words * self.settings.reads)

    def layer_adapter(self) -> dict[str, int]:
        """Parameters that an adapted layer adds, by linear."""
        widths, lora = self.shape.linears(), self.settings.lora
        return {name: lora.r * sum(widths[name]) for name in lora.target_modules}

    def layer_activations(self, first: bool = False, last: bool = False) -> int:
        """What an adapted layer keeps for its backward pass.

        first: Whether it is the lowest, whose input asks for no gradient.
        last: Whether it is the top one, of which only the words are read after the attention.
        """
        return sum(self._kept(asked=not first, read=rounded(self.read) if last else self.rows))

    def _kept(self, asked: bool, read: int) -> Iterator[int]:
        """Bytes kept by each step of a layer.

        asked: Whether the step's input asks for a gradient.  read: Rows after the attention.
        """
        shape, size, targets = self.shape, self.size, set(self.settings.lora.target_modules)
        norm = shape.hidden * size + 4  # what goes in, and one float32 a row
        if asked:
            yield self.rows * norm
        yield self._group(self.rows, shape.hidden, ("q_proj", "k_proj", "v_proj"))
        asked |= bool(targets & {"q_proj", "k_proj", "v_proj"})
        if asked:
            yield self._attention()
        yield self._group(read, shape.query, ("o_proj",))
        asked |= "o_proj" in targets
        if asked:
            yield read * norm
        yield self._group(read, shape.hidden, ("gate_proj", "up_proj"))
        asked |= bool(targets & {"gate_proj", "up_proj"})
        if asked:
            yield 2 * read * shape.mlp * size  # gate and up
        yield self._group(read, shape.mlp, ("down_proj",))

    def _group(self, rows: int, width: int, names: tuple[str, ...]) -> int:
        """Kept by linears that read the same input."""
        lora = self.settings.lora
        adapted = len(set(names) & set(lora.target_modules))
        if not adapted:
            return 0
        dropped = lora.dropout * 8 if self.device == "cpu" else bool(lora.dropout)  # numbers of elements, or booleans
        return rows * (math.ceil(width * (self.size + dropped)) + adapted * lora.r * self.size)

    def _attention(self) -> int:
        shape, pieces = self.shape, math.ceil(self.pieces * self.padding)
        if self.device == "cpu" and self.length <= SHORT:
            scores = shape.heads * self.length
            return pieces * (shape.query + 2 * shape.kv + scores) * self.size
        # Fused: what goes in, what comes out, and one float32 a piece and head; CUDA has keys and values for each head.
        shared = shape.query if self.device == "cuda" else shape.kv
        return pieces * (2 * (shape.query + shared) * self.size + 4 * shape.heads)

    def _head(self) -> int:
        """The final norm over the rows read; each word's in float32, their numbers, log-probabilities and two more."""
        hidden, reads = self.shape.hidden, self.settings.reads
        return self.read * (hidden * self.size + 4) + self.words * (reads * (hidden * 4 + 8) + self.tags * 4 + 16)

    def _transient(self) -> int:
        """Gradients and products that live within one layer's backward pass, at its widest: the MLP."""
        return self.rows * (3 * self.shape.mlp + 4 * self.shape.hidden) * self.size


def usually_resident(shape: Shape, size: int) -> int:
    """Layers whose dequantised weights are kept where no plan says otherwise: all of a small base."""
    return shape.layers if shape.layers * shape.layer_weights * size <= RESIDENT else 0


def peak_memory(device: torch.device) -> int:
    """Highest use so far, in bytes: of a CUDA device's tensors and of CUDA itself, or of the whole process on a CPU;
    0 where no one tells.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) + PROGRAM["cuda"]
    status = Path("/proc/self/status")  # of Linux; its ru_maxrss counts what the parent held when it started this
    if status.exists() and (peak := status.read_text().partition("VmHWM:")[2]):
        return 1024 * int(peak.split(maxsplit=1)[0])
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def forget_peak(device: torch.device) -> None:
    """Gives freed memory back and lets `peak_memory` count anew from what is held now, where the system can do that."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform == "linux":
        give_back_memory()
        with contextlib.suppress(OSError):  # some containers forbid it
            Path("/proc/self/clear_refs").write_text("5")


def is_out_of_memory(error: Exception) -> bool:
    """Whether Python, PyTorch, oneDNN, CUDA or cuBLAS found no memory."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(sign in str(error) for sign in OUT_OF_MEMORY)


def _constants(weights: int) -> int:
    """Bytes of the constants of so many weights: a byte a block of 64, a float32 a 256 of those, and two tables."""
    blocks = -(-weights // 64)
    return blocks + 4 * -(-blocks // 256) + 4 * (16 + 256)
