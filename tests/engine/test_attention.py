from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from spacy_qlora.engine.attention import SHORT, attend, attend_by_products
from spacy_qlora.engine.base import load_base
from spacy_qlora.engine.classifier import TokenClassifier
from spacy_qlora.engine.settings import ClassifierSettings, LoRASettings
from spacy_qlora.engine.window import Window

LENGTHS = [7, 12, 1]  # of the three texts in a batch
HEADS, GROUPS, SIZE = 4, 2, 16
SCALING = SIZE**-0.5


def inputs(length: int = 12, train: bool = False) -> list[Tensor]:
    """Query, key, value, with fewer heads in key and value."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(3, heads, length, SIZE) for heads in (HEADS, GROUPS, GROUPS)]
    return [torch.randn(shape, generator=generator).requires_grad_(train) for shape in shapes]


def padding() -> Tensor:
    return (torch.arange(12) < torch.tensor(LENGTHS)[:, None])[:, None, None, :]


def reference(query: Tensor, key: Tensor, value: Tensor, causal: bool, lengths: list[int]) -> Tensor:
    """In float64, one text, head and piece at a time. [batch, pieces, heads, head size]"""
    query, key, value = query.double(), key.double(), value.double()
    out = torch.zeros(query.shape[0], query.shape[2], HEADS, SIZE, dtype=torch.float64)
    for text, length in enumerate(lengths):
        for head in range(HEADS):
            group = head // (HEADS // GROUPS)
            for piece in range(length):
                seen = piece + 1 if causal else length
                scores = key[text, group, :seen] @ query[text, head, piece] * SCALING
                out[text, piece, head] = scores.softmax(0) @ value[text, group, :seen]
    return out


def compare(found: Tensor, expected: Tensor, lengths: list[int], atol: float) -> None:
    for text, length in enumerate(lengths):
        torch.testing.assert_close(found[text, :length].double(), expected[text, :length], atol=atol, rtol=0)


@pytest.mark.parametrize("train", [True, False], ids=["products", "sdpa"])
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "unmasked"])
@pytest.mark.parametrize("padded", [True, False], ids=["padded", "full"])
def test_attention_by_the_book(causal: bool, padded: bool, train: bool) -> None:
    query, key, value = inputs(train=train)
    lengths = LENGTHS if padded else [12] * 3
    mask = padding() if padded else None
    found, weights = attend(nn.Module(), query, key, value, mask, causal=causal, scaling=SCALING, is_causal=True)
    assert weights is None
    compare(found, reference(query, key, value, causal, lengths), lengths, 1e-5)
    assert bool(torch.isfinite(found).all())


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "unmasked"])
@pytest.mark.parametrize("padded", [True, False], ids=["padded", "full"])
def test_gradients_by_the_book(causal: bool, padded: bool) -> None:
    lengths = LENGTHS if padded else [12] * 3
    real = (torch.arange(12) < torch.tensor(lengths)[:, None])[:, :, None, None]
    target = torch.randn(3, 12, HEADS, SIZE, generator=torch.Generator().manual_seed(1))
    ours, theirs = inputs(train=True), [tensor.detach().double().requires_grad_() for tensor in inputs()]
    found, _ = attend(nn.Module(), *ours, padding() if padded else None, causal=causal, scaling=SCALING)
    (found * target * real).sum().backward()
    (reference(*theirs, causal, lengths) * target * real).sum().backward()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.grad.double(), other.grad, atol=1e-5, rtol=0)


@pytest.mark.parametrize("causal", [True, False])
def test_long_texts_are_trained_by_the_fused_kernel_with_the_same_result(causal: bool) -> None:
    query, key, value = inputs(SHORT + 1, train=True)
    fused, _ = attend(nn.Module(), query, key, value, None, causal=causal, scaling=SCALING)
    plain = attend_by_products(query, key, value, None, causal, SCALING).transpose(1, 2)
    assert "ScaledDotProduct" in fused.grad_fn.next_functions[0][0].name()
    torch.testing.assert_close(fused, plain, atol=1e-5, rtol=0)


def scores(base: Path, ids: list[int], first: int | None, layers: int | None = None) -> np.ndarray:
    settings = ClassifierSettings(layers=layers, bidirectional_from=first)
    classifier = TokenClassifier(load_base(base, torch.device("cpu"), torch.float32), 5, settings)
    places = np.arange(len(ids))
    return classifier.predict([Window(np.array(ids), places, places)], budget=64)[0]


@pytest.mark.parametrize(
    ("first", "layers", "sees_ahead"),
    [
        (None, None, False),
        (0, None, True),
        (2, None, True),
        (2, 2, False),  # without the third layer
        (1, 2, True),
        (3, None, False),
    ],
)
def test_each_layer_looks_ahead_only_where_it_should(
    base: Path, first: int | None, layers: int | None, sees_ahead: bool
) -> None:
    one, other = scores(base, [5, 80, 301, 17], first, layers), scores(base, [5, 80, 301, 99], first, layers)
    assert np.array_equal(one[:3], other[:3]) != sees_ahead
    assert not np.array_equal(one[3], other[3])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("first", [None, 1])
def test_checkpointing_changes_no_gradient(base: Path, dtype: torch.dtype, first: int | None) -> None:
    settings = ClassifierSettings(LoRASettings(r=4, dropout=0.1), bidirectional_from=first)
    loaded = load_base(base, torch.device("cpu"), dtype)
    ids = np.arange(10, 24)
    windows = [Window(ids[:n], np.arange(n), np.arange(n), np.arange(n) % 5) for n in (14, 3, 9)]
    found = []
    for checkpointing in (False, True):
        classifier = TokenClassifier(loaded, 5, settings)
        classifier.checkpointing = checkpointing
        for name, parameter in classifier.named_trained():
            if name.endswith("lora_B.weight"):
                nn.init.constant_(parameter, 0.01)
        torch.manual_seed(3)
        loss, _ = classifier.accumulate(windows, budget=64)
        found.append((loss, [parameter.grad for _, parameter in classifier.named_trained()]))
    assert found[0][0] == found[1][0]
    assert all(torch.equal(one, other) for one, other in zip(found[0][1], found[1][1], strict=True))
    assert all(bool(gradient.any()) for gradient in found[0][1])
