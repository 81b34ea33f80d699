from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from spacy.util import registry
from thinc.api import SGD, Adam, Optimizer

from spacy_qlora.engine.base import load_base
from spacy_qlora.engine.classifier import TokenClassifier
from spacy_qlora.engine.settings import ClassifierSettings, OptimizerSettings
from spacy_qlora.engine.window import Window
from spacy_qlora.errors import InputError
from spacy_qlora.optimizer import AdamW, Stepper, apply_thinc

PLACES = np.arange(12)
WINDOWS = [Window(PLACES + 40, PLACES, PLACES, PLACES % 5)]


@pytest.fixture
def classifier(base: Path) -> TokenClassifier:
    return TokenClassifier(load_base(base, torch.device("cpu"), torch.float32), 5, ClassifierSettings())


def test_the_registered_name_gives_settings_and_a_thinc_optimizer() -> None:
    made = registry.optimizers.get("spacy-qlora.AdamW.v1")(adapter_lr=1e-3, total_steps=7, learn_rate=0.5)
    assert isinstance(made, AdamW)
    assert isinstance(made, Optimizer)
    assert made.settings == OptimizerSettings(adapter_lr=1e-3)
    assert (made.total_steps, made.learn_rate) == (7, 0.5)
    with pytest.raises(InputError, match="Q210"):
        registry.optimizers.get("spacy-qlora.AdamW.v1")(decay="sudden")


def test_a_thinc_step_is_by_the_mean_over_words(classifier: TokenClassifier) -> None:
    before = {name: parameter.detach().clone() for name, parameter in classifier.named_trained()}
    _, words = classifier.accumulate(WINDOWS, budget=64)
    gradients = {name: parameter.grad.clone() for name, parameter in classifier.named_trained()}
    apply_thinc(SGD(0.1, grad_clip=0, L2=0), "ner", classifier, words)
    for name, parameter in classifier.named_trained():
        torch.testing.assert_close(parameter.detach(), before[name] - 0.1 * gradients[name] / words)
        assert parameter.grad is None


def test_thinc_learns(classifier: TokenClassifier) -> None:
    optimizer, losses = Adam(0.01), []
    for _ in range(20):
        loss, words = classifier.accumulate(WINDOWS, budget=64)
        apply_thinc(optimizer, "ner", classifier, words)
        losses.append(loss / words)
    assert losses[-1] < losses[0] / 2


def test_one_optimizer_serves_one_encoder_after_another(base: Path) -> None:
    """As where a component is initialised again."""
    stepper, sgd = Stepper(), AdamW(OptimizerSettings(warmup=0.0), total_steps=0, learn_rate=1e-3)
    loaded = load_base(base, torch.device("cpu"), torch.float32)
    for classifier in (TokenClassifier(loaded, 5, ClassifierSettings()) for _ in range(2)):
        before = classifier.head.weight.detach().clone()
        _, words = classifier.accumulate(WINDOWS, budget=64)
        stepper.step(sgd, "ner", classifier, words)
        assert not torch.equal(classifier.head.weight, before)
