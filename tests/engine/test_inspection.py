"""Bits, errors and outliers of a base, by hand and by numpy."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit
from torch import Tensor

from spacy_qlora.engine.base import read_base
from spacy_qlora.engine.inspection import Linear, add_errors, bits, measure, memory, relative_error, uniform_4bit
from spacy_qlora.engine.memory import Job, Shape
from spacy_qlora.engine.quantize import quantize
from spacy_qlora.engine.settings import LINEARS, ClassifierSettings
from spacy_qlora.engine.source import read_shards
from spacy_qlora.errors import InputError

NAME = "model.layers.0.mlp.up_proj.weight"
# Appendix E of the QLoRA paper (arXiv 2305.14314).
NF4 = np.array(
    [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
     -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
     0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0]
)  # fmt: skip


def compare(weight: Tensor) -> Linear:
    tensors = quantize(NAME, weight)
    return add_errors(measure(tensors), tensors, [(NAME, weight)], "made up")[NAME]


def to_nearest(weight: Tensor, codes: np.ndarray) -> np.ndarray:
    """Each weight over its block's largest, as the nearest code, times the scale that double quantisation leaves."""
    _, state = quantize_4bit(weight, blocksize=64, compress_statistics=False, quant_type="nf4")
    _, double = quantize_4bit(weight, blocksize=64, compress_statistics=True, quant_type="nf4")
    ones, _ = quantize_4bit(torch.ones_like(weight), blocksize=64, quant_type="nf4")
    scales = dequantize_4bit(ones, double).flatten()[::64].numpy()  # of weights that are all 1: the scales themselves
    blocks = weight.numpy().reshape(-1, 64)
    assert np.array_equal(np.abs(blocks).max(1), state.absmax.numpy())
    found = np.empty_like(blocks)
    for i, block in enumerate(blocks):
        for j, value in enumerate(block):
            found[i, j] = scales[i] * codes[np.argmin(np.abs(value / np.abs(block).max() - codes))]
    return found.reshape(weight.shape)


@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_errors_against_plain_numpy(scale: float) -> None:
    torch.manual_seed(1)
    weight = torch.randn(8, 128) * scale
    found = compare(weight)
    for grid, codes in (("nf4", NF4), ("uniform", np.linspace(-1, 1, 16))):
        error = np.linalg.norm(weight.numpy() - to_nearest(weight, codes)) / np.linalg.norm(weight.numpy())
        assert relative_error([found], grid) == pytest.approx(error, rel=1e-4)
    stored = to_nearest(weight, NF4)
    assert found.largest == pytest.approx(np.abs(stored).max() / np.sqrt(np.mean(stored**2)))


def test_errors_by_hand() -> None:
    """Of 64 weights, 62 are codes of both grids; 0.5 lies by 0.0626170 from a code of NF4, by 1/30 from one of 16."""
    weight = torch.full((1, 64), -1.0)
    weight[0, 0], weight[0, 1] = 1.0, 0.5
    found = compare(weight)
    assert found.errors
    assert found.errors.square == 63.25
    assert math.sqrt(found.errors.nf4) == pytest.approx(0.5 - 0.44070982933044434, abs=1e-6)
    assert math.sqrt(found.errors.uniform) == pytest.approx(1 / 30, abs=1e-6)


def test_the_uniform_grid_has_16_codes_and_takes_any_size() -> None:
    weight = torch.linspace(-2, 2, 130)
    found = uniform_4bit(weight, torch.tensor([2.0, 2.0, 2.0]))
    assert found.shape == weight.shape
    assert len(found[:64].unique()) == 8, "half of the codes: all 64 weights are below 0"
    everything = uniform_4bit(torch.linspace(-2, 2, 64), torch.tensor([2.0]))
    assert torch.allclose(everything.unique(), torch.linspace(-2, 2, 16))


def test_nf4_is_better_on_normal_weights_and_the_uniform_grid_on_uniform_ones() -> None:
    normal, even = compare(torch.randn(64, 64)), compare(torch.rand(64, 64) * 2 - 1)
    assert relative_error([normal], "nf4") < 0.95 * relative_error([normal], "uniform")
    assert relative_error([even], "uniform") < 0.95 * relative_error([even], "nf4")


def test_weights_that_are_all_zero() -> None:
    found = compare(torch.zeros(2, 64))
    assert found.largest == 0
    assert relative_error([found], "nf4") == 0
    assert math.isfinite(relative_error([found], "uniform"))


# A base


@pytest.fixture(scope="module")
def tensors(base: Path) -> dict[str, Tensor]:
    return read_base(base)[2]


@pytest.fixture(scope="module")
def floats(checkpoint: Path) -> list[tuple[str, Tensor]]:
    return list(read_shards(checkpoint))


def test_bits_by_hand(tensors: dict[str, Tensor]) -> None:
    """4 bits, a byte for each of the 64 blocks, one float32 for all of them, and the tables of 16 and 256 float32."""
    found = measure(tensors)
    q_proj = found["model.layers.1.self_attn.q_proj.weight"]
    assert (q_proj.layer, q_proj.name, q_proj.weights) == (1, "q_proj", 64 * 64)
    assert q_proj.stored == 64 * 64 // 2 + 64 + 4 + 4 * (16 + 256)
    down = found["model.layers.1.mlp.down_proj.weight"]
    assert bits([q_proj, down]) == 8 * (q_proj.stored + down.stored) / (64 * 64 + 64 * 128)


def test_all_linears_layer_by_layer(tensors: dict[str, Tensor]) -> None:
    found = list(measure(tensors).values())
    assert [linear.layer for linear in found] == [0] * 7 + [1] * 7 + [2] * 7
    assert {linear.name for linear in found[:7]} == set(LINEARS)


def test_memory_is_what_the_plan_says(base: Path, tensors: dict[str, Tensor]) -> None:
    shape = Shape.of(read_base(base)[1])
    items = Job(shape, ClassifierSettings(), 5, 64, 64, 64).items()
    found = memory(tensors)
    weights = items["weights in 4 bits"] * 2
    linears = found["attention"], found["MLP"]
    rest = found["embedding"], found["norms"]
    assert sum(before for before, _ in linears) == 2 * weights
    assert sum(after for _, after in linears) == items["weights in 4 bits"] + items["their constants"]
    assert sum(after for _, after in rest) == sum(before for before, _ in rest) == items["embedding and norms"]


def test_every_linear_gets_its_errors(tensors: dict[str, Tensor], floats: list[tuple[str, Tensor]]) -> None:
    found = add_errors(measure(tensors), tensors, floats, "tiny")
    assert list(found) == list(measure(tensors))
    assert all(linear.errors for linear in found.values())
    name, weight = next((name, weight) for name, weight in floats if name in found)
    assert found[name].errors == compare(weight).errors


def test_half_precision_floats_are_compared_in_float32() -> None:
    weight = torch.randn(64, 64)
    half, full = compare(weight.bfloat16()), compare(weight.bfloat16().float())
    assert half.errors == full.errors


def test_an_outlier_is_found() -> None:
    weight = torch.ones(64, 64)
    weight[3, 5] = -100.0
    tensors = {**quantize(NAME, torch.ones(64, 64)), **quantize(NAME.replace("layers.0", "layers.7"), weight)}
    found = max(measure(tensors).values(), key=lambda linear: linear.largest)
    assert found.layer == 7
    assert found.largest == pytest.approx(100 / math.sqrt((64 * 64 - 64 + 1e4) / 4096), rel=0.05), "its block is zeroed"


def changed(floats: list[tuple[str, Tensor]], target: str, change: str) -> Iterator[tuple[str, Tensor]]:
    for name, weight in floats:
        if name != target:
            yield name, weight
        elif change == "scaled":
            yield name, weight * 1.5
        elif change == "cut":
            yield name, weight[:-1]
        elif change == "one weight":
            weight = weight.clone()
            weight.view(-1)[0] += 1
            yield name, weight


@pytest.mark.parametrize("change", ["scaled", "cut", "one weight", "left out"])
@pytest.mark.parametrize("target", ["model.layers.2.mlp.up_proj.weight", "model.norm.weight"])
def test_floats_of_another_model_are_refused(
    tensors: dict[str, Tensor], floats: list[tuple[str, Tensor]], target: str, change: str
) -> None:
    with pytest.raises(InputError) as raised:
        add_errors(measure(tensors), tensors, changed(floats, target, change), "other")
    assert raised.value.code == "Q220"
    assert raised.value.where == {"source": "other", "name": target}
