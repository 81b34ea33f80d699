"""Training at the shape of Mistral-7B under a memory cap: peak memory against the plan, and pieces a second.

    python benchmarks/gpu_7b.py --output benchmarks/results/gpu_7b.json [--memory 8GiB] [--tiny]

The weights are random, so that nothing is downloaded: they serve for memory and speed only. On a CUDA device the
process may not take more than the cap. `--tiny` takes a small shape, also on a CPU, where the cap is a plan alone.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from common import save
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import Tensor

from spacy_qlora.engine import quantize
from spacy_qlora.engine.base import load_base, read_config
from spacy_qlora.engine.classifier import TokenClassifier
from spacy_qlora.engine.info import BaseInfo
from spacy_qlora.engine.loop import Loop
from spacy_qlora.engine.memory import MIB, PROGRAM, peak_memory
from spacy_qlora.engine.progress import Hooks, Progress, Schedule
from spacy_qlora.engine.quantize import parameter_shapes, save_base
from spacy_qlora.engine.settings import ClassifierSettings, LoopSettings, LoRASettings, OptimizerSettings, read_size
from spacy_qlora.engine.window import Window

TAGS, STEPS = 5, 12
MISTRAL_7B = {
    "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 32768, "rope_theta": 1e6, "rms_norm_eps": 1e-5,
    "bos_token_id": 1,
}  # fmt: skip
TINY = {
    **MISTRAL_7B, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 32, "vocab_size": 512,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="the JSON file to write")
    parser.add_argument("--memory", default="8GiB", help="the cap")
    parser.add_argument("--tiny", action="store_true", help="a small shape: shows that it runs, measures nothing")
    args = parser.parse_args()
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        whole = torch.cuda.get_device_properties(device).total_memory
        tensors = read_size(args.memory) - PROGRAM["cuda"]  # the cap leaves out what CUDA takes for itself
        torch.cuda.set_per_process_memory_fraction(min(1.0, tensors / whole), device)
    with tempfile.TemporaryDirectory() as folder:
        loop = make_loop(Path(folder), TINY if args.tiny else MISTRAL_7B, args.memory, device)
        rates: list[float] = []
        loop.run(Hooks(evaluate=lambda: 0.0, on_step=lambda progress: rates.append(show(progress))))
    measured, planned = round(peak_memory(device) / MIB), round(loop.job.total() / MIB)
    speed = round(float(np.median(rates)), 1)
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    results = [
        {"name": f"peak memory against the plan, {card}", "ours": measured, "peer": planned,
         "ratio": round(measured / planned, 3), "unit": "MiB"},
        {"name": f"training, {card}", "ours": speed, "peer": None, "ratio": None, "unit": "pieces/s"},
    ]  # fmt: skip
    if device.type == "cuda":
        results += occupied(device)
    items = {name: round(size / MIB) for name, size in loop.job.items().items()}
    job = {"pieces": loop.job.pieces, "checkpointed": loop.job.checkpointed, "resident": loop.job.resident,
           "halved": loop.progress.backed_off}  # fmt: skip
    save(args.output, results, {"planned MiB": items, "job": job, "pieces_per_s": rates})


def occupied(device: torch.device) -> list[dict[str, Any]]:
    """What a peak of tensors does not tell: what PyTorch held for them, and what CUDA, and other programs, took."""
    free, whole = torch.cuda.mem_get_info(device)
    reserved = torch.cuda.memory_reserved(device)
    held = {"most held by PyTorch": torch.cuda.max_memory_reserved(device), "CUDA itself": whole - free - reserved}
    return [
        {"name": name, "ours": round(size / MIB), "peer": None, "ratio": None, "unit": "MiB"}
        for name, size in held.items()
    ]


def show(progress: Progress) -> float:
    print(f"step {progress.step}: loss {progress.loss:.3f}, {progress.rate:.0f} pieces/s", flush=True)
    return progress.rate


def make_loop(folder: Path, shape: dict[str, object], memory: str, device: torch.device) -> Loop:
    classifier = make_classifier(folder, shape, device)
    settings = LoopSettings(batch_pieces=1024, accumulate=2, memory_budget=memory)
    return Loop(classifier, texts(), settings, OptimizerSettings(), Schedule(max_steps=STEPS), folder)


def make_classifier(folder: Path, shape: dict[str, object], device: torch.device) -> TokenClassifier:
    words = {"<s>": 0, "</s>": 1}
    info = BaseInfo(id="random")
    with patch.object(quantize, "quantize", quantized_once()):
        save_base(folder / "base", info, shape, Tokenizer(WordLevel(words, unk_token="<s>")), weights(shape), "random")
    base = load_base(folder / "base", device, torch.bfloat16)
    lora = LoRASettings(r=16, dropout=0.05)
    return TokenClassifier(base, TAGS, ClassifierSettings(lora, pooling="first_last", label_smoothing=0.1))


def quantized_once() -> Callable[[str, Tensor], dict[str, Tensor]]:
    """`quantize` for weights that are alike where their shapes are: each of its own would take eight minutes."""
    made: dict[torch.Size, tuple[str, dict[str, Tensor]]] = {}
    whole = quantize.quantize

    def once(name: str, weight: Tensor) -> dict[str, Tensor]:
        if weight.shape not in made:
            made[weight.shape] = name, whole(name, weight)
        first, tensors = made[weight.shape]
        return {name + key.removeprefix(first): tensor.clone() for key, tensor in tensors.items()}

    return once


def weights(shape: dict[str, object]) -> Iterator[tuple[str, Tensor]]:
    """Random ones of the spread that training starts from; one draw serves all layers."""
    torch.manual_seed(0)
    drawn: dict[tuple[int, ...], Tensor] = {}
    for name, size in parameter_shapes(read_config(shape)).items():
        if size not in drawn:
            drawn[size] = torch.ones(size) if len(size) == 1 else torch.randn(size) * 0.02
        yield name, drawn[size]


def texts() -> list[Window]:
    """Random pieces in the lengths of clinical sentences."""
    random = np.random.default_rng(0)
    found = []
    for length in np.clip(random.gamma(3, 12, STEPS * 60).astype(int), 4, 256):
        places = np.arange(length)
        reads, tags = np.stack((places, places), axis=1), random.integers(0, TAGS, length)
        found.append(Window(random.integers(2, 500, length), reads, places, tags))
    return found


if __name__ == "__main__":
    main()
