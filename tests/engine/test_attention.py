from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from spacy_qlora.engine.attention import SHORT, ShortAttention, attend, attend_apart
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
    return torch.arange(12) < torch.tensor(LENGTHS)[:, None]


def reference(query: Tensor, key: Tensor, value: Tensor, causal: bool, lengths: list[int]) -> Tensor:
    """In float64, one text, head and piece at a time. [batch, heads, pieces, size]"""
    query, key, value = query.double(), key.double(), value.double()
    out = torch.zeros_like(query)
    for text, length in enumerate(lengths):
        for head in range(HEADS):
            group = head // (HEADS // GROUPS)
            for piece in range(length):
                seen = piece + 1 if causal else length
                scores = key[text, group, :seen] @ query[text, head, piece] * SCALING
                out[text, head, piece] = scores.softmax(0) @ value[text, group, :seen]
    return out


def compare(found: Tensor, expected: Tensor, lengths: list[int], atol: float) -> None:
    for text, length in enumerate(lengths):
        torch.testing.assert_close(found[text, :, :length].double(), expected[text, :, :length], atol=atol, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("causal", [True, False])
def test_apart_a_text_is_the_same_to_the_bit_whatever_stands_beside_it(causal: bool, dtype: torch.dtype) -> None:
    lengths = [100, 64, 120, 64, 3]
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(5, heads, 120, 64, generator=generator).to(dtype) for heads in (9, 3, 3))
    together = attend_apart(query, key, value, torch.arange(120) < torch.tensor(lengths)[:, None], causal)
    for text, length in enumerate(lengths):
        alone = attend_apart(*(x[text : text + 1, :, :length] for x in (query, key, value)), None, causal)
        assert torch.equal(together[text, :, :length], alone[0])
        assert not together[text, :, length:].any()


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "unmasked"])
@pytest.mark.parametrize("padded", [True, False], ids=["padded", "full"])
@pytest.mark.parametrize("short", [0, SHORT], ids=["fused", "products"])
def test_attention_and_its_gradients_by_the_book(
    causal: bool, padded: bool, short: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spacy_qlora.engine.attention.SHORT", short)
    lengths = LENGTHS if padded else [12] * 3
    real = (torch.arange(12) < torch.tensor(lengths)[:, None])[:, None, :, None]
    target = torch.randn(3, HEADS, 12, SIZE, generator=torch.Generator().manual_seed(1))
    ours, theirs = inputs(train=True), [tensor.detach().double().requires_grad_() for tensor in inputs()]
    found, expected = attend(*ours, padding() if padded else None, causal), reference(*theirs, causal, lengths)
    compare(found, expected, lengths, 1e-5)
    assert bool(torch.isfinite(found).all())
    (found * target * real).sum().backward()
    (expected * target * real).sum().backward()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.grad.double(), other.grad, atol=1e-5, rtol=0)


def test_long_texts_take_the_fused_kernel() -> None:
    assert "ShortAttention" in attend(*inputs(SHORT, train=True), None, False).grad_fn.name()
    assert "ScaledDotProduct" in attend(*inputs(SHORT + 1, train=True), None, False).grad_fn.name()


def test_products_follow_the_type_of_the_input() -> None:
    low = [tensor.detach().bfloat16() for tensor in inputs()]
    found = ShortAttention.apply(*low, padding(), False)
    assert found.dtype == torch.bfloat16
    compare(found, reference(*low, False, LENGTHS), LENGTHS, 2e-2)


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
    for checkpointed in (0, 2, 3):
        classifier = TokenClassifier(loaded, 5, settings)
        classifier.checkpointed = checkpointed
        for name, parameter in classifier.named_trained():
            if name.endswith("lora_B.weight"):
                nn.init.constant_(parameter, 0.01)
        torch.manual_seed(3)
        loss, _ = classifier.accumulate(windows, budget=64)
        found.append((loss, [parameter.grad for _, parameter in classifier.named_trained()]))
    for loss, gradients in found[1:]:
        assert loss == found[0][0]
        assert all(torch.equal(one, other) for one, other in zip(gradients, found[0][1], strict=True))
    assert all(bool(gradient.any()) for gradient in found[0][1])
