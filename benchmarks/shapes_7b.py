"""What a training step at the shape of Mistral-7B would hold on a GPU, against the plan, without any GPU.

    python benchmarks/shapes_7b.py --output benchmarks/results/shapes_7b.json [--memory 7.5GiB] [--tiny]

The step runs on PyTorch's device "meta", where each operation gives a tensor's shape and no values; attention by the
operation that a CUDA device has for it. Counted are the bytes of all tensors alive at once. What the allocator cannot
use between its blocks, the kernels' own workspace and CUDA itself come on top: `gpu_7b.py` measures them, on a GPU. The
program makes a 4-bit base of random weights first, 4 GB in the temporary folder. `--tiny` takes a small shape.
"""

from __future__ import annotations

import argparse
import tempfile
import weakref
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from common import save
from gpu_7b import MISTRAL_7B, TAGS, TINY, make_classifier
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from spacy_qlora.engine import attention
from spacy_qlora.engine.classifier import TokenClassifier
from spacy_qlora.engine.memory import MIB, Job, Shape
from spacy_qlora.engine.plan import fit
from spacy_qlora.engine.settings import LoopSettings, read_size
from spacy_qlora.engine.window import Window

META = torch.device("meta")
PIECES, LENGTH = 1024, 256  # of a micro-batch, and of each of its texts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="the JSON file to write")
    parser.add_argument("--memory", default="7.5GiB", help="the budget of the plan")
    parser.add_argument("--tiny", action="store_true", help="a small shape: shows that it runs")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        classifier = make_classifier(Path(folder), TINY if args.tiny else MISTRAL_7B, META)
    shape = Shape.of(classifier.base.config)
    settings = LoopSettings(batch_pieces=PIECES)
    words_a_piece = 1 - 1 / LENGTH  # all but the begin-of-text
    usual = Job.usual(shape, classifier.settings, settings, TAGS, LENGTH, words_a_piece, device="cuda")
    usual = replace(usual, padding=1.0)  # the texts are about equally long
    planned, _ = fit(usual, 1, read_size(args.memory))
    results, runs = [], {}
    for checkpointed in sorted({usual.adapted, planned.checkpointed, 0}, reverse=True):
        job = replace(usual, checkpointed=checkpointed)
        found, items = step(classifier, checkpointed), job.items()
        kept = items["activations"] + items["checkpoints"]
        passing = items["one layer at a time"] + items["dequantised for one product"]
        which = f"{checkpointed} of {job.adapted} layers checkpointed"
        most = kept + passing + items["their gradients"]
        results += [
            row(f"kept for the backward pass, {which}", found["kept"], kept),
            row(f"most at once beside the weights, {which}", found["most"], most),
        ]
        runs[which] = [found]
    save(args.output, results, runs)


def row(name: str, found: int, planned: int) -> dict[str, Any]:
    mib = {"ours": round(found / MIB, 2), "peer": round(planned / MIB, 2)}
    return {"name": name, **mib, "ratio": round(found / planned, 3), "unit": "MiB"}


def step(classifier: TokenClassifier, checkpointed: int) -> dict[str, int]:
    """Two micro-batches of a step, of which the second finds the gradients of the first.

    checkpointed: Layers whose activations are computed again.
    RETURNS: Bytes that the second keeps for its backward pass, and the most that it holds at once, gradients included.
    """
    pieces = [np.arange(LENGTH - 1 - shorter) for shorter in (0, *[1] * (PIECES // LENGTH - 1))]
    windows = [Window(each, np.stack((each, each), axis=1), each, each % TAGS) for each in pieces]
    classifier.checkpointed = checkpointed
    classifier.train()
    # transformers 4 turns autocast off around the rotary embedding; "meta" has none.
    without_autocast = patch.object(torch, "autocast", lambda **_: nullcontext())
    with patch.object(attention, "scaled_dot_product_attention", fused), without_autocast:
        classifier.loss(classifier.collate(windows)).backward()
        with Alive() as alive:
            loss = classifier.loss(classifier.collate(windows))
            kept = alive.now
            loss.backward()
    gradients = sum(parameter.nbytes for _, parameter in classifier.named_trained())
    return {"kept": kept, "most": alive.most + gradients}


class Alive(TorchDispatchMode):
    """Within, counts the bytes of the tensors that operations make.  now, most: Alive at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._sizes: dict[int, int] = {}  # by storage; 0 for those that were there before

    def __torch_dispatch__(
        self, function: Callable[..., Any], types: object, args: tuple = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self._add((args, kwargs), new=False)
        made = function(*args, **(kwargs or {}))
        self._add(made, new=True)
        return made

    def _add(self, values: Any, new: bool) -> None:
        for tensor in tree_leaves(values):
            if isinstance(tensor, Tensor) and tensor.device == META:
                storage = tensor.untyped_storage()
                if storage._cdata not in self._sizes:
                    self._sizes[storage._cdata] = size = storage.nbytes() * new
                    weakref.finalize(storage, self._drop, storage._cdata)
                    self.now += size
                    self.most = max(self.most, self.now)

    def _drop(self, storage: int) -> None:
        self.now -= self._sizes.pop(storage)


def fused(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None, is_causal: bool, enable_gqa: bool
) -> Tensor:
    """Attention by the operations that a CUDA device takes; "meta" would take plain products.

    Without a mask, FlashAttention, which needs no copies of shared keys and values; with one, the kernel that reads it.
    """
    if attn_mask is None:
        return torch.ops.aten._scaled_dot_product_flash_attention(query, key, value, 0.0, is_causal)[0]
    shared = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(shared, dim=1) for x in (key, value))  # as `attend` does on a GPU
    bias = torch.zeros_like(attn_mask, dtype=query.dtype).expand(-1, query.shape[1], query.shape[2], -1)
    return torch.ops.aten._scaled_dot_product_efficient_attention(query, key, value, bias, True, 0.0, is_causal)[0]


if __name__ == "__main__":
    main()
