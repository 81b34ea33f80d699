"""What 4 bits do to a base: bits a weight, errors against the float weights, outliers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from bitsandbytes.functional import QuantState, dequantize_4bit, dequantize_blockwise
from torch import Tensor
from torch.nn.functional import pad
from tqdm import tqdm

from spacy_qlora.engine.base import PREFIX
from spacy_qlora.engine.info import NF4
from spacy_qlora.engine.quantize import quantize
from spacy_qlora.errors import InputError

TINY = torch.finfo(torch.float32).tiny  # in place of a divisor 0, where all weights are 0
PARTS = {"self_attn": "attention", "mlp": "MLP", "embed_tokens": "embedding"}  # by a part of the name; else a norm


@dataclass(frozen=True)
class Errors:
    """Sums of squares over a linear: of its float weights, and of what NF4 and the uniform grid change in them."""

    square: float
    nf4: float
    uniform: float


@dataclass(frozen=True)
class Linear:
    """A linear of a base.  layer, name: Such as 0 and "q_proj".  weights: How many.
    stored: Bytes that they take, constants counted.  largest: The largest |weight|, in units of their root mean square.
    errors: None where the float weights are not known.
    """

    layer: int
    name: str
    weights: int
    stored: int
    largest: float
    errors: Errors | None = None


def bits(linears: Iterable[Linear]) -> float:
    """Bits that a weight takes."""
    linears = list(linears)
    return 8 * sum(linear.stored for linear in linears) / sum(linear.weights for linear in linears)


def relative_error(linears: Iterable[Linear], grid: str) -> float:
    """The root mean square error in units of the root mean square of the float weights, which have to be known.

    grid: "nf4" or "uniform".
    """
    errors = [linear.errors for linear in linears if linear.errors]
    return math.sqrt(sum(getattr(error, grid) for error in errors) / max(sum(error.square for error in errors), TINY))


def measure(tensors: Mapping[str, Tensor]) -> dict[str, Linear]:
    """The linears of a base by the names of their weights, layer by layer. tensors: All that the base stores."""
    names = sorted((name for name in tensors if f"{name}.absmax" in tensors), key=lambda name: (_layer(name), name))
    return {name: _measure(name, tensors) for name in tqdm(names, desc="Measuring", unit=" weights")}


def _measure(name: str, tensors: Mapping[str, Tensor]) -> Linear:
    weight = dequantize_4bit(tensors[name], _state(name, tensors))
    largest = weight.abs().max() / weight.square().mean().sqrt().clamp_min(TINY)
    short = name.removesuffix(".weight").rpartition(".")[2]
    return Linear(_layer(name), short, weight.numel(), stored_bytes(name, tensors), float(largest))


def _layer(name: str) -> int:
    return int(name.removeprefix(PREFIX).split(".")[1])


def _state(name: str, tensors: Mapping[str, Tensor]) -> QuantState:
    stats = {key: value for key, value in tensors.items() if key.startswith(f"{name}.")}
    state = QuantState.from_dict(stats, device=torch.device("cpu"))
    state.dtype = torch.float32  # no rounding to the checkpoint's type on top
    return state


def stored_bytes(name: str, tensors: Mapping[str, Tensor]) -> int:
    """What a weight and its constants take in memory: all that is stored of it but the description of its shape."""
    parts = (key for key in tensors if key.startswith(name) and ".quant_state." not in key)
    return sum(tensors[key].nbytes for key in parts)


def memory(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, int]]:
    """Bytes by part of a base: if each weight took 16 bits, and as it is stored."""
    found = dict.fromkeys([*PARTS.values(), "norms"], (0, 0))
    for name in (name for name in tensors if name.endswith(".weight")):
        part = next((part for key, part in PARTS.items() if f".{key}." in name), "norms")
        weights = _state(name, tensors).shape.numel() if f"{name}.absmax" in tensors else tensors[name].numel()
        before, after = found[part]
        found[part] = before + 2 * weights, after + stored_bytes(name, tensors)
    return found


def add_errors(
    linears: Mapping[str, Linear], tensors: Mapping[str, Tensor], floats: Iterable[tuple[str, Tensor]], source: str
) -> dict[str, Linear]:
    """The linears with their errors against the float weights that the base was made from.

    tensors: All that the base stores.  floats: (name, tensor) of the checkpoint.  source: Its name, for errors.
    Raises InputError where quantising `floats` does not give `tensors` to the bit.
    """
    found, left = dict(linears), {name for name in tensors if name.endswith(".weight")}
    needed = ((name, weight) for name, weight in floats if name in left)
    for name, weight in tqdm(needed, desc="Comparing", unit=" weights", total=len(left)):
        again = quantize(name, weight)
        if not all(torch.equal(tensor, tensors[key]) for key, tensor in again.items()):
            raise InputError("Q220", source=source, name=name)
        if name in linears:
            found[name] = replace(linears[name], errors=_errors(weight.float(), _state(name, tensors), tensors[name]))
        left.discard(name)
    if left:
        raise InputError("Q220", source=source, name=min(left))
    return found


def _errors(weight: Tensor, state: QuantState, packed: Tensor) -> Errors:
    scales = dequantize_blockwise(state.absmax, state.state2) + state.offset
    grids = dequantize_4bit(packed, state), uniform_4bit(weight, scales)
    return Errors(float(weight.square().sum()), *(float((weight - grid).square().sum()) for grid in grids))


def uniform_4bit(weight: Tensor, scales: Tensor) -> Tensor:
    """What 16 evenly spaced codes from -1 to 1 make of a weight, at the size of NF4 and with its scales.

    As in NF4, each weight is divided by the largest of its block, rounded to the nearest code, and multiplied by the
    block's scale as it is stored.
    """
    blocks = pad(weight.flatten(), (0, -weight.numel() % NF4["block"])).view(-1, NF4["block"])
    largest = blocks.abs().amax(1, keepdim=True).clamp_min(TINY)
    codes = ((blocks / largest + 1) * 7.5).round()
    return ((codes / 7.5 - 1) * scales[:, None]).flatten()[: weight.numel()].view_as(weight)
