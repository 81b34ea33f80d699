"""The adapted base without a head: what others learn from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from spacy_qlora.engine.base import Base, load_base
from spacy_qlora.engine.encoder import Encoder
from spacy_qlora.engine.optimizer import AdapterOptimizer
from spacy_qlora.engine.settings import ClassifierSettings, LoRASettings, OptimizerSettings
from spacy_qlora.engine.window import Window

HIDDEN = 64
LENGTHS = (3, 30, 1, 17, 8)


@pytest.fixture
def loaded(base: Path) -> Base:
    return load_base(base, torch.device("cpu"), torch.float32)


def make(base: Base) -> Encoder:
    """An encoder whose adapter is no longer zero."""
    encoder = Encoder(base, ClassifierSettings())
    generator = torch.Generator().manual_seed(1)
    encoder.load_trained(
        {name: 0.1 * torch.randn(weight.shape, generator=generator) for name, weight in encoder.adapter.items()}, {}
    )
    return encoder


def windows() -> list[Window]:
    random = np.random.default_rng(0)
    places = [np.arange(0, length, 2) for length in LENGTHS]
    return [Window(random.integers(2, 320, n), own, own) for n, own in zip(LENGTHS, places, strict=True)]


def test_a_prediction_between_states_and_gradients_changes_none(loaded: Base) -> None:
    """Checkpointed layers run once more for the gradients, with the dropout that they had."""
    found = []
    for predicts in (False, True):
        torch.manual_seed(0)
        encoder = Encoder(loaded, ClassifierSettings(LoRASettings(dropout=0.5)))
        encoder.checkpointed = len(encoder.layers)
        rows, backward = encoder.begin(windows(), 40)
        if predicts:
            encoder.predict(windows(), 40)
        backward([torch.ones_like(row) for row in rows])
        found.append([weight.grad for weight in encoder.adapter.values()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_nothing_but_the_adapter_is_trained_and_saved(loaded: Base) -> None:
    encoder = make(loaded)
    assert dict(encoder.named_trained()) == encoder.adapter
    adapter, head = encoder.trained()
    assert adapter.keys() == encoder.adapter.keys()
    assert head == {}


@pytest.mark.parametrize("budget", [1, 40, 10_000])
def test_states_for_training_are_those_of_prediction(loaded: Base, budget: int) -> None:
    encoder = make(loaded)
    rows, _ = encoder.begin(windows(), budget)
    for row, predicted, window in zip(rows, encoder.predict(windows(), budget), windows(), strict=True):
        assert row.shape == (len(window.words), HIDDEN)
        assert not row.requires_grad
        np.testing.assert_allclose(row, predicted, atol=1e-5)


@pytest.mark.parametrize("budget", [1, 40, 10_000])
def test_gradients_given_back_are_those_of_the_states_themselves(loaded: Base, budget: int) -> None:
    encoder, generator = make(loaded), torch.Generator().manual_seed(2)
    rows, backward = encoder.begin(windows(), budget)
    weights = [torch.randn(row.shape, generator=generator) for row in rows]
    backward(weights)
    found = {name: weight.grad.clone() for name, weight in encoder.adapter.items()}
    encoder.zero_grad()
    for window, weight in zip(windows(), weights, strict=True):
        (encoder(encoder.collate([window])) * weight).sum().backward()
    for name, weight in encoder.adapter.items():
        torch.testing.assert_close(found[name], weight.grad, atol=1e-4, rtol=1e-4)


def test_words_that_share_a_piece_share_its_state_and_add_up_their_gradients(loaded: Base) -> None:
    encoder, pieces = make(loaded), windows()[3].pieces
    together, alone = (
        Window(pieces, np.array(places), np.arange(len(places))) for places in ((2, 2, 5, 16), (2, 5, 16))
    )
    [rows], backward = encoder.begin([together], 64)
    torch.testing.assert_close(rows[0], rows[1], atol=0, rtol=0)
    backward([torch.ones_like(rows)])
    found = {name: weight.grad.clone() for name, weight in encoder.adapter.items()}
    encoder.zero_grad()
    [rows], backward = encoder.begin([alone], 64)
    backward([torch.tensor([2.0, 1.0, 1.0])[:, None].expand_as(rows)])
    for name, weight in encoder.adapter.items():
        torch.testing.assert_close(found[name], weight.grad, atol=1e-4, rtol=1e-4)


def test_it_has_an_optimizer_without_a_head(loaded: Base) -> None:
    encoder = make(loaded)
    optimizer = AdapterOptimizer(encoder, OptimizerSettings(), total=0)
    before = encoder.trained()[0]
    rows, backward = encoder.begin(windows(), 64)
    backward(rows)
    assert optimizer.step(1) > 0
    assert all(not torch.equal(before[name], weight) for name, weight in encoder.adapter.items())
