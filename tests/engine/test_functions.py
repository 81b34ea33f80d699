"""What lies between the linears of a layer, against float64 and numerical gradients."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck
from transformers.models.mistral.modeling_mistral import MistralRMSNorm, apply_rotary_pos_emb

from spacy_qlora.engine.base import dequantize, load_base
from spacy_qlora.engine.batching import Layout, rounded
from spacy_qlora.engine.functions import RMSNorm, SwiGLU, ToHeads, ToRows, can_compile, compiled, scale_rows, swiglu

CPU = torch.device("cpu")
PIECES, HEADS, SIZE = 5, 3, 8
LENGTHS = [[5, 5], [5, 3], [2, 5, 1]]  # of the windows in a batch
ROUNDING = {
    torch.float32: 1e-5,
    torch.bfloat16: 2**-6,
}  # relative; bfloat16 keeps 8 bits, of which a few steps take two


def double(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def angles() -> tuple[Tensor, Tensor]:
    half = torch.rand(PIECES, SIZE // 2, dtype=torch.float64) * 6
    both = torch.cat((half, half), dim=1)
    return both.cos(), both.sin()


@pytest.mark.parametrize("dtype", list(ROUNDING))
@pytest.mark.parametrize("scale", [1e-3, 1.0, 50.0])
def test_norm_and_its_gradient(dtype: torch.dtype, scale: float) -> None:
    stock = MistralRMSNorm(64, eps=1e-5)
    nn.init.normal_(stock.weight)
    weight = stock.weight.detach().to(dtype)
    stock.weight.data = weight.double()
    x = (torch.randn(7, 64) * scale).to(dtype).requires_grad_()
    reference = x.detach().double().requires_grad_()
    along = torch.randn(7, 64).to(dtype)
    found, expected = RMSNorm.apply(x, weight, 1e-5), stock(reference)
    found.backward(along)
    expected.backward(along.double())
    for one, other in ((found, expected), (x.grad, reference.grad)):
        bound = float(other.detach().abs().max()) * ROUNDING[dtype]
        torch.testing.assert_close(one.double(), other.double(), atol=bound, rtol=0)


@pytest.mark.parametrize("dtype", list(ROUNDING))
def test_rows_are_scaled_in_float32_and_rounded_once(dtype: torch.dtype) -> None:
    x, factors = torch.randn(33, 64).to(dtype), torch.randn(33)
    assert torch.equal(scale_rows(x, factors), (x.float() * factors[:, None]).to(dtype))


def test_swiglu() -> None:
    gate, up = double(7, 8), double(7, 8)
    torch.testing.assert_close(SwiGLU.apply(gate, up), nn.functional.silu(gate) * up)
    assert gradcheck(SwiGLU.apply, (gate, up))


def results(dtype: torch.dtype) -> list[Tensor]:
    """Outputs and gradients of a norm and a SwiGLU, always of the same values."""
    torch.manual_seed(0)
    x, gate, up = (torch.randn(40, 64).to(dtype).requires_grad_() for _ in range(3))
    outputs = [RMSNorm.apply(x, torch.randn(64).to(dtype), 1e-5), SwiGLU.apply(gate, up)]
    torch.autograd.backward(outputs, [torch.randn(40, 64).to(dtype) for _ in outputs])
    return [tensor.detach() for tensor in (*outputs, x.grad, gate.grad, up.grad)]


@pytest.mark.parametrize("dtype", list(ROUNDING))
def test_compiled_kernels_compute_the_same(dtype: torch.dtype) -> None:
    if not can_compile(CPU):
        pytest.skip("no C++ compiler")
    with compiled(True):
        made = results(dtype)
    for one, other in zip(made, results(dtype), strict=True):
        bound = float(other.abs().max()) * ROUNDING[dtype]
        torch.testing.assert_close(one.double(), other.double(), atol=bound, rtol=0)


def test_without_a_compiler_nothing_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **settings: object) -> None:
        raise RuntimeError("no compiler")

    monkeypatch.setattr(swiglu, "kernel", fail)
    assert not can_compile(CPU)
    assert len(results(torch.float32)) == 5


@pytest.mark.parametrize("more", [0, 6])
@pytest.mark.parametrize("lengths", LENGTHS)
def test_heads_are_turned_as_transformers_does(lengths: list[int], more: int) -> None:
    layout, (cos, sin) = Layout.of(lengths), angles()
    real = (torch.arange(PIECES) < torch.tensor(lengths)[:, None])[:, None, :, None]  # what padding holds is not told
    x = double(sum(lengths) + more, HEADS * SIZE)
    plain = ToHeads.apply(x, layout, SIZE, None)
    assert plain.is_contiguous()
    assert torch.equal(plain[1, 2, 1], x[lengths[0] + 1, 2 * SIZE :])
    expected, _ = apply_rotary_pos_emb(plain, plain, cos[None], sin[None])
    torch.testing.assert_close(ToHeads.apply(x, layout, SIZE, (cos, sin)) * real, expected * real)
    assert gradcheck(lambda x: ToHeads.apply(x, layout, SIZE, (cos, sin)) * real, x)
    assert gradcheck(lambda x: ToHeads.apply(x, layout, SIZE, None) * real, x)


@pytest.mark.parametrize("more", [0, 6])
@pytest.mark.parametrize("lengths", LENGTHS)
def test_rows_are_what_heads_were(lengths: list[int], more: int) -> None:
    layout, rows = Layout.of(lengths), sum(lengths) + more
    x = double(rows, HEADS * SIZE)
    back = ToRows.apply(ToHeads.apply(x, layout, SIZE, None), layout, rows)
    assert torch.equal(back[: sum(lengths)], x[: sum(lengths)])
    assert not back[sum(lengths) :].any()
    assert gradcheck(lambda x: ToRows.apply(x, layout, rows), double(len(lengths), HEADS, PIECES, SIZE))


def test_rows_are_rounded_to_few_numbers() -> None:
    numbers = {rounded(pieces) for pieces in range(1, 2049)}
    assert len(numbers) <= 16 + 8 * 4
    assert all(pieces <= rounded(pieces) <= max(pieces * 9 / 8, pieces + 15) for pieces in range(1, 5000))


@pytest.mark.parametrize("dtype", list(ROUNDING))
def test_a_small_base_keeps_the_weights_that_dequantising_gives(
    base: Path, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = load_base(base, CPU, dtype)
    linears = {name: leaf for name, leaf in kept.leaves.items() if hasattr(leaf.weight, "quant_state")}
    assert len(linears) == 7 * kept.config.num_hidden_layers
    weights = {name: dequantize(linear) for name, linear in linears.items()}
    assert all(dequantize(linear) is weights[name] for name, linear in linears.items())
    for name, linear in linears.items():
        monkeypatch.delattr(linear, "resident")
        assert torch.equal(dequantize(linear), weights[name])
        assert dequantize(linear) is not weights[name]


def test_freed_memory_is_used_again(base: Path) -> None:
    """Without this, each of these tensors would come as new pages, of 4 KiB, that the system clears one by one."""
    resource = pytest.importorskip("resource", reason="not on Windows")
    load_base(base, CPU, torch.float32)
    for _ in range(3):
        torch.ones(2**22)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(2**22)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 4096  # one of ten tensors
