"""A checkpoint in, a 4-bit base out."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from bitsandbytes.functional import quantize_4bit
from tokenizers import Tokenizer
from torch import Tensor
from tqdm import tqdm
from transformers import MistralConfig, MistralModel

from spacy_qlora.engine.base import PREFIX, fingerprint, read_config, shape_fields
from spacy_qlora.engine.files import new_folder, save_tensors
from spacy_qlora.engine.info import CONFIG, NF4, TOKENIZER, WEIGHTS, BaseInfo, is_base
from spacy_qlora.engine.settings import LINEARS
from spacy_qlora.engine.threads import one_thread
from spacy_qlora.errors import InputError

# Written beside the shape, so that transformers' own from_pretrained reads a base too.
QUANTIZATION_CONFIG = {
    "quant_method": "bitsandbytes",
    "load_in_4bit": True,
    "bnb_4bit_quant_type": NF4["type"],
    "bnb_4bit_use_double_quant": NF4["double"],
    "bnb_4bit_compute_dtype": "bfloat16",
    "llm_int8_skip_modules": ["score", "lm_head"],
}


def quantize(name: str, weight: Tensor) -> dict[str, Tensor]:
    """The stored tensors of one weight: NF4 with its constants for a layer's linear, bfloat16 for anything else.

    Always on the CPU, so that every machine makes the same base of the same checkpoint.
    """
    if name.removesuffix(".weight").rpartition(".")[2] not in LINEARS:
        return {name: weight.to(torch.bfloat16).contiguous()}
    with one_thread():
        packed, state = quantize_4bit(
            weight.contiguous(), blocksize=NF4["block"], compress_statistics=NF4["double"], quant_type=NF4["type"]
        )
    return {name: packed, **{f"{name}.{key}": value for key, value in state.as_dict(packed=True).items()}}


def save_base(
    out: Path,
    info: BaseInfo,
    shape: dict[str, Any],
    tokenizer: Tokenizer,
    weights: Iterable[tuple[str, Tensor]],
    source: str,
) -> BaseInfo:
    """Quantises `weights` one at a time and writes the base to `out`; nothing stands there until all of it does.

    shape: Fields of a config.json, of a Mistral or a Llama.
    source: Where the weights come from, for errors.
    weights: (name, tensor) as in MistralForCausalLM; what the classifier does not need (lm_head) is left out.
    Raises InputError where a weight is missing or has the wrong shape, or `out` holds something else.
    """
    tensors: dict[str, Tensor] = {}
    expected = parameter_shapes(read_config(shape))
    needed = ((name, weight) for name, weight in weights if name in expected)
    for name, weight in tqdm(needed, desc="Quantising", unit=" weights", total=len(expected)):
        if tuple(weight.shape) != expected.pop(name):
            raise InputError("Q204", source=source, name=name)
        tensors.update(quantize(name, weight))
    if expected:
        raise InputError("Q204", source=source, name=min(expected))
    info = replace(info, fingerprint=fingerprint(tensors, shape))
    config = {
        **shape_fields(shape),
        "model_type": "mistral",
        "architectures": ["MistralModel"],
        "sliding_window": None,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "quantization_config": QUANTIZATION_CONFIG,
    }
    with new_folder(out, is_base) as folder:
        save_tensors(tensors, folder / WEIGHTS)
        (folder / TOKENIZER).write_text(tokenizer.to_str(), encoding="utf8")
        (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf8")
        info.to_folder(folder)
    return info


def parameter_shapes(config: MistralConfig) -> dict[str, tuple[int, ...]]:
    """The names and shapes that a checkpoint of this shape must hold."""
    with torch.device("meta"):
        return {PREFIX + name: tuple(p.shape) for name, p in MistralModel(config).named_parameters()}
