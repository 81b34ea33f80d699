from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from spacy_qlora.engine.base import load_base
from spacy_qlora.engine.classifier import TokenClassifier
from spacy_qlora.engine.optimizer import AdapterOptimizer
from spacy_qlora.engine.settings import ClassifierSettings, LoRASettings, OptimizerSettings
from spacy_qlora.engine.window import Window
from spacy_qlora.errors import InputError, RunError

PLACES = np.arange(12)
WINDOW = Window(PLACES + 40, PLACES, PLACES, PLACES % 5)


@pytest.fixture
def classifier(base: Path) -> TokenClassifier:
    settings = ClassifierSettings(LoRASettings(r=4))
    return TokenClassifier(load_base(base, torch.device("cpu"), torch.float32), 5, settings)


def values(classifier: TokenClassifier) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in classifier.named_trained()}


def test_warmup_rises_to_one_and_decay_falls_to_zero() -> None:
    factor = OptimizerSettings(warmup=0.1, decay="linear").factor
    assert [factor(step, 100) for step in (0, 4, 9, 10, 55, 100)] == [0.1, 0.5, 1.0, 1.0, 0.5, 0.0]
    factor = OptimizerSettings(warmup=0.1, decay="cosine").factor
    assert factor(55, 100) == pytest.approx(0.5)
    assert factor(32, 100) == pytest.approx((1 + math.cos(math.pi * 22 / 90)) / 2)
    assert factor(100, 100) == factor(200, 100) == 0
    constant = OptimizerSettings(warmup=0.1, decay="constant").factor
    assert [constant(step, 100) for step in (0, 9, 10, 99, 500)] == [0.1, 1, 1, 1, 1]


@pytest.mark.parametrize("decay", ["cosine", "linear", "constant"])
@pytest.mark.parametrize("warmup", [0.0, 0.05, 1.0])
@pytest.mark.parametrize("total", [1, 2, 7, 100])
def test_no_step_is_wasted(decay: str, warmup: float, total: int) -> None:
    """Each of the run's own steps has a rate above 0 and at most 1."""
    factors = [OptimizerSettings(warmup=warmup, decay=decay).factor(step, total) for step in range(total)]
    assert all(0 < factor <= 1 for factor in factors)
    top = factors.index(max(factors))
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)


def test_without_a_total_there_is_no_decay() -> None:
    assert {OptimizerSettings().factor(step, 0) for step in range(0, 10_000, 99)} == {1.0}


def test_adapter_and_head_have_their_own_rates(classifier: TokenClassifier) -> None:
    """Adam's first step is as long as the rate, whatever the gradient."""
    settings = OptimizerSettings(adapter_lr=1e-3, head_lr=1e-2, weight_decay=0, warmup=0, decay="constant")
    optimizer = AdapterOptimizer(classifier, settings, 10)
    before = values(classifier)
    for _, parameter in classifier.named_trained():
        parameter.grad = torch.full_like(parameter, 3.0)
    optimizer.step(words=1)
    for name, parameter in classifier.named_trained():
        rate = 1e-2 if name.startswith("head.") else 1e-3
        torch.testing.assert_close(before[name] - parameter, torch.full_like(parameter, rate), rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("eight_bit", [False, True])
def test_predictions_follow_each_step(base: Path, eight_bit: bool) -> None:
    """Though weights with the adapter folded in are kept between predictions."""
    settings = ClassifierSettings(LoRASettings(r=128))  # large enough for moments in 8 bits
    classifier = TokenClassifier(load_base(base, torch.device("cpu"), torch.float32), 5, settings)
    optimizer = AdapterOptimizer(classifier, OptimizerSettings(adapter_lr=1e-2), 0, eight_bit)
    for _ in range(2):  # the first makes B other than zero
        classifier.accumulate([WINDOW], budget=64)
        [before] = classifier.predict([WINDOW], budget=64)
        optimizer.step(1)
    [after] = classifier.predict([WINDOW], budget=64)
    classifier.train()  # drops what was kept
    [expected] = classifier.predict([WINDOW], budget=64)
    assert np.abs(after - before).max() > 1e-2
    np.testing.assert_array_equal(after, expected)


def test_rates_follow_the_schedule(classifier: TokenClassifier) -> None:
    settings = OptimizerSettings(adapter_lr=1e-3, head_lr=1e-2, warmup=0.2, decay="linear")
    optimizer = AdapterOptimizer(classifier, settings, 10)
    for step in range(10):
        rates = [group["lr"] for group in optimizer.adamw.param_groups]
        assert rates == pytest.approx([rate * settings.factor(step, 10) for rate in (1e-3, 1e-2)])
        classifier.accumulate([WINDOW], budget=64)
        optimizer.step(12)


def test_weight_decay_is_decoupled(classifier: TokenClassifier) -> None:
    settings = OptimizerSettings(adapter_lr=0.1, head_lr=0.1, weight_decay=0.5, warmup=0, decay="constant")
    optimizer = AdapterOptimizer(classifier, settings, 10)
    before = values(classifier)
    for _, parameter in classifier.named_trained():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step(1)
    for name, parameter in classifier.named_trained():
        torch.testing.assert_close(parameter.detach(), before[name] * (1 - 0.1 * 0.5))


def norm(classifier: TokenClassifier) -> float:
    return math.sqrt(sum(float((p.grad**2).sum()) for _, p in classifier.named_trained() if p.grad is not None))


def test_the_norm_is_that_of_the_mean_over_words(classifier: TokenClassifier) -> None:
    optimizer = AdapterOptimizer(classifier, OptimizerSettings(grad_clip=0), 10)
    classifier.accumulate([WINDOW], budget=64)
    summed = norm(classifier)
    assert optimizer.step(12) == pytest.approx(summed / 12, rel=1e-5)
    assert all(parameter.grad is None for _, parameter in classifier.named_trained())


@pytest.mark.parametrize("repeats", [2, 5])
def test_more_of_the_same_words_make_the_same_step(base: Path, repeats: int) -> None:
    found = []
    for count in (1, repeats):
        settings = ClassifierSettings(LoRASettings(r=4))
        classifier = TokenClassifier(load_base(base, torch.device("cpu"), torch.float32), 5, settings)
        optimizer = AdapterOptimizer(classifier, OptimizerSettings(), 10)
        words = sum(classifier.accumulate([WINDOW], budget=64)[1] for _ in range(count))
        found.append((optimizer.step(words), classifier.head.weight.detach()))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    torch.testing.assert_close(found[0][1], found[1][1], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(("clip", "expected"), [(0.01, 0.01), (1e6, None), (0.0, None)])
def test_clipping(classifier: TokenClassifier, clip: float, expected: float | None) -> None:
    """By the first moment, which is a tenth of the first gradient."""
    optimizer = AdapterOptimizer(classifier, OptimizerSettings(grad_clip=clip), 10)
    classifier.accumulate([WINDOW], budget=64)
    before = optimizer.step(12)
    assert before > 0.01
    moments = [optimizer.adamw.state[parameter]["exp_avg"] for _, parameter in classifier.named_trained()]
    length = math.sqrt(sum(float((moment**2).sum()) for moment in moments)) / 0.1
    assert length == pytest.approx(before if expected is None else expected, rel=1e-3)


def test_a_step_without_a_number_changes_nothing(classifier: TokenClassifier) -> None:
    optimizer = AdapterOptimizer(classifier, OptimizerSettings(), 10)
    before = values(classifier)
    classifier.accumulate([WINDOW], budget=64)
    classifier.head.weight.grad[0, 0] = math.nan
    with pytest.raises(RunError, match=r"Q402.*step 1"):
        optimizer.step(12)
    assert all(torch.equal(before[name], parameter) for name, parameter in classifier.named_trained())


@pytest.mark.parametrize(
    "wrong",
    [
        {"adapter_lr": -1e-4},
        {"head_lr": math.nan},
        {"weight_decay": math.inf},
        {"grad_clip": -1},
        {"warmup": 1.5},
        {"decay": "exponential"},
    ],
    ids=str,
)
def test_wrong_settings_are_refused(wrong: dict) -> None:
    with pytest.raises(InputError, match=f"Q210.*{next(iter(wrong))}"):
        OptimizerSettings(**wrong)
