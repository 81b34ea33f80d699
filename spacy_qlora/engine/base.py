"""A frozen 4-bit base on disk and in memory, shared by all that use it."""

from __future__ import annotations

import copy
import hashlib
import json
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit, Params4bit
from safetensors import safe_open
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import MistralConfig, MistralModel

from spacy_qlora.engine.heap import keep_few_kernels, keep_freed_memory
from spacy_qlora.engine.info import CONFIG, TOKENIZER, WEIGHTS, BaseInfo
from spacy_qlora.engine.memory import Shape, is_out_of_memory, usually_resident
from spacy_qlora.engine.tokenizer import make_tokenizer
from spacy_qlora.errors import InputError

PREFIX = "model."  # of the weights' names, as in MistralForCausalLM
SHAPE = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "head_dim", "hidden_act", "max_position_embeddings", "rms_norm_eps", "rope_theta", "rope_scaling",
    "bos_token_id",
)  # fmt: skip


class Base:
    """The modules of a 4-bit Mistral: one copy in memory, however many classifiers are built on it.

    info (BaseInfo): Where it came from.  config (MistralConfig): Its shape.  tokenizer (Tokenizer): Its pieces.
    leaves (Mapping[str, nn.Module]): Embedding, norms and Linear4bit by name, such as "layers.0.mlp.up_proj".
    rotary (nn.Module): Gives the cosines and sines of positions.
    device, dtype: Where it lies and what it computes in.
    """

    def __init__(
        self,
        info: BaseInfo,
        config: MistralConfig,
        tokenizer: Tokenizer,
        leaves: Mapping[str, nn.Module],
        rotary: nn.Module,
    ) -> None:
        self.info, self.config, self.tokenizer, self.leaves = info, config, tokenizer, leaves
        self.rotary = rotary
        norm = next(leaves["norm"].parameters())
        self.device, self.dtype = norm.device, norm.dtype

    def keep_resident(self, layers: int, twice: bool = False) -> None:
        """Keeps the dequantised weights of so many layers, from the bottom: dequantising at each use takes time.

        twice: Whether there is room for a second copy, with an adapter folded in, while predicting.
        """
        for name, leaf in self.leaves.items():
            if isinstance(leaf, Linear4bit):
                if hasattr(leaf, "resident"):
                    del leaf.resident
                if int(name.split(".")[1]) < layers:
                    leaf.resident = dequantize(leaf)
                    leaf.twice = twice  # type: ignore[assignment]  # as of any module, thought to be a tensor


_open: weakref.WeakValueDictionary[tuple[object, ...], Base] = weakref.WeakValueDictionary()
_opening = threading.Lock()


def load_base(folder: Path, device: torch.device, dtype: torch.dtype) -> Base:
    """Loads the base in `folder`, or hands out the one already in memory.

    device: Where it shall lie.  dtype: What it computes in, bfloat16 or float32; storage is 4-bit either way.
    Raises InputError where a file is missing, cut or not what base.json says.
    """
    key = (folder.resolve(), device, dtype, (folder / WEIGHTS).stat().st_mtime_ns if (folder / WEIGHTS).exists() else 0)
    with _opening:
        if (base := _open.get(key)) is None:
            base = _open[key] = _load(folder, device, dtype)
    return base


def read_base(folder: Path) -> tuple[BaseInfo, MistralConfig, dict[str, Tensor], Tokenizer]:
    """What a base's files hold, checked against its fingerprint; the tensors are memory-mapped.

    Raises InputError where a file is missing, cut or not what base.json says.
    """
    info = BaseInfo.from_folder(folder)
    try:
        fields = json.loads((folder / CONFIG).read_text(encoding="utf8"))
        config = read_config(fields)
        tensors = read_weights(folder)
        tokenizer = make_tokenizer((folder / TOKENIZER).read_text(encoding="utf8"), folder)
    except InputError:
        raise
    except Exception as error:  # tokenizers raises nothing narrower
        if is_out_of_memory(error):
            raise
        raise InputError("Q202", path=folder) from error
    if (found := fingerprint(tensors, fields)) != info.fingerprint:
        raise InputError("Q203", path=folder, expected=info.fingerprint[:12], found=found[:12])
    return info, config, tensors, tokenizer


def _load(folder: Path, device: torch.device, dtype: torch.dtype) -> Base:
    info, config, tensors, tokenizer = read_base(folder)
    with torch.device("meta"):
        skeleton = MistralModel(config)
    leaves = {
        name: _fill(module, f"{PREFIX}{name}.weight", tensors, device, dtype)
        for name, module in skeleton.named_modules()
        if hasattr(module, "weight")
    }
    if device.type == "cpu":
        keep_freed_memory()
        keep_few_kernels()
    base = Base(info, config, tokenizer, leaves, type(skeleton.rotary_emb)(config).to(device))
    base.keep_resident(usually_resident(Shape.of(config), dtype.itemsize), twice=True)
    return base


def _fill(
    module: nn.Module, name: str, tensors: Mapping[str, Tensor], device: torch.device, dtype: torch.dtype
) -> nn.Module:
    if isinstance(module, nn.Linear):
        module = Linear4bit(module.in_features, module.out_features, bias=False, device="meta")
        stats = {key: tensors[key] for key in tensors if key.startswith(f"{name}.")}
        module.weight = Params4bit.from_prequantized(tensors[name], stats, device=device, module=module)
        module.weight.quant_state.dtype = module.compute_dtype = dtype
        module.compute_type_is_set = True
        # On a CPU with AVX512-BF16, bitsandbytes would repack the weights in place at the first forward without
        # gradients; from then on gradients, dequantisation and saved weights are wrong.
        module.support_avx512bf16_for_cpu = False
    else:
        module.weight = nn.Parameter(tensors[name].to(device, dtype), requires_grad=False)
    return module


def dequantize(linear: nn.Module) -> Tensor:
    """The weight of a linear, [out, in], in the type that it computes in."""
    weight: Any = getattr(linear, "resident", linear.weight)
    state = getattr(weight, "quant_state", None)
    return weight if state is None else dequantize_4bit(weight.data, state)


def read_config(fields: dict[str, Any]) -> MistralConfig:
    """fields: A config.json of either line of transformers, of a Mistral or of a Llama."""
    # A copy: transformers 5 writes into nested settings. Where nothing begins a text, its default would be piece 1.
    kept = {"bos_token_id": None, **copy.deepcopy(shape_fields(fields))}
    return MistralConfig(**kept, sliding_window=None, use_cache=False)


def shape_fields(fields: dict[str, Any]) -> dict[str, Any]:
    """What a base keeps of a config.json; the rotary settings under the names that both lines of transformers read."""
    kept = {key: fields[key] for key in SHAPE if fields.get(key) is not None}
    if rope := fields.get("rope_parameters"):
        kept["rope_theta"] = rope["rope_theta"]
        if rope.get("rope_type", "default") != "default":
            kept["rope_scaling"] = {key: value for key, value in rope.items() if key != "rope_theta"}
    return kept


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of a base, memory-mapped."""
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no mapping


def fingerprint(tensors: Mapping[str, Tensor], fields: dict[str, Any]) -> str:
    """SHA-256 over what a base keeps of its config.json, and names, types, shapes and bytes in the order of names."""
    digest = hashlib.sha256(json.dumps(shape_fields(fields), sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
