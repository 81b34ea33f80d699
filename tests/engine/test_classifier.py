from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from spacy_qlora.engine.base import Base, load_base
from spacy_qlora.engine.classifier import TokenClassifier
from spacy_qlora.engine.settings import ClassifierSettings, LoRASettings
from spacy_qlora.engine.window import IGNORED, Window
from spacy_qlora.errors import InputError, RunError

CPU = torch.device("cpu")
TAGS = 5
ATTENTION = [None, 0, 2]


@pytest.fixture(scope="module")
def loaded(base: Path) -> Base:
    return load_base(base, CPU, torch.float32)


def make(base: Base, seed: int = 0, **settings: object) -> TokenClassifier:
    """A classifier whose adapter is no longer zero."""
    classifier = TokenClassifier(base, TAGS, ClassifierSettings(**settings), seed)
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(9)
        for name, parameter in classifier.named_trained():
            if "lora_B" in name:
                parameter.normal_(std=0.05)
    return classifier


def windows(*lengths: int, tagged: bool = True) -> list[Window]:
    random = np.random.default_rng(len(lengths))
    return [
        Window(
            pieces=random.integers(2, 320, length),
            positions=np.arange(0, length, 2),
            words=np.arange((length + 1) // 2),
            tags=random.integers(0, TAGS, (length + 1) // 2) if tagged else None,
        )
        for length in lengths
    ]


def gradients(classifier: TokenClassifier) -> list[torch.Tensor]:
    found = [parameter.grad.clone() for _, parameter in classifier.named_trained()]
    classifier.zero_grad()
    return found


@pytest.mark.parametrize("first", ATTENTION)
def test_padding_mixture_and_order_change_no_score(loaded: Base, first: int | None) -> None:
    classifier = make(loaded, bidirectional_from=first)
    texts = windows(3, 30, 1, 17, 8, 8, 30, 2, tagged=False)
    alone = [classifier.predict([text], budget=1)[0] for text in texts]
    for budget in (1, 40, 10_000):
        together = classifier.predict(texts, budget)
        backwards = classifier.predict(texts[::-1], budget)[::-1]
        for text, *found in zip(texts, alone, together, backwards, strict=True):
            assert all(scores.shape == (len(text.words), TAGS) for scores in found)
            assert np.abs(found[0] - found[1]).max() < 1e-5
            assert np.abs(found[0] - found[2]).max() < 1e-5


def test_what_padding_holds_does_not_matter(loaded: Base) -> None:
    classifier = make(loaded)
    batch = classifier.collate(windows(12, 4))
    with torch.no_grad():
        before = classifier(batch)
        batch.layout.sources[batch.layout.padding] = 0
        assert torch.equal(classifier(batch), before)


def test_budgets_count_begin_of_text(loaded: Base) -> None:
    classifier = make(loaded)
    texts = windows(7, 7, 7, 3)
    assert classifier.lengths(texts) == [8, 8, 8, 4]
    sizes: list[int] = []
    classifier.register_forward_pre_hook(lambda _, inputs: sizes.append(inputs[0].pieces.numel()))
    classifier.predict(texts, budget=23)
    assert sizes == [16, 12]


def test_prediction_of_nothing(loaded: Base) -> None:
    assert make(loaded).predict([], budget=64) == []


def test_scores_are_float32_also_under_bfloat16(base: Path) -> None:
    classifier = make(load_base(base, CPU, torch.bfloat16))
    [scores] = classifier.predict(windows(9), budget=64)
    assert scores.dtype == np.float32
    assert {parameter.dtype for _, parameter in classifier.named_trained()} == {torch.float32}


@pytest.mark.parametrize("first", ATTENTION)
def test_micro_batches_add_up_to_one_batch(loaded: Base, first: int | None) -> None:
    classifier = make(loaded, bidirectional_from=first)
    texts = windows(3, 30, 1, 17, 8, 8, 30, 2)
    whole, words = classifier.accumulate(texts, budget=10_000)
    expected = gradients(classifier)
    for budget in (1, 40):
        loss, counted = classifier.accumulate(texts, budget)
        assert counted == words == sum(len(text.words) for text in texts)
        assert loss == pytest.approx(whole, rel=1e-5)
        for one, other in zip(gradients(classifier), expected, strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_the_loss_is_the_summed_cross_entropy(loaded: Base) -> None:
    classifier = make(loaded)
    [text] = windows(20)
    assert text.tags is not None
    loss, _ = classifier.accumulate([text], budget=64)
    scores = classifier.predict([text], budget=64)[0].astype(np.float64)
    chosen = scores[np.arange(len(text.words)), text.tags] - np.log(np.exp(scores).sum(-1))
    assert loss == pytest.approx(-chosen.sum(), rel=1e-5)


def test_ignored_words_count_for_nothing(loaded: Base) -> None:
    classifier = make(loaded)
    [text] = windows(20)
    assert text.tags is not None
    kept = np.arange(len(text.words)) % 3 == 0
    masked = Window(text.pieces, text.positions, text.words, np.where(kept, text.tags, IGNORED))
    fewer = Window(text.pieces, text.positions[kept], text.words[kept], text.tags[kept])
    found, words = classifier.accumulate([masked], budget=64)
    first = gradients(classifier)
    expected, same = classifier.accumulate([fewer], budget=64)
    assert words == same == kept.sum()
    assert found == pytest.approx(expected, rel=1e-6)
    for one, other in zip(first, gradients(classifier), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_a_text_of_ignored_words_alone(loaded: Base) -> None:
    classifier = make(loaded)
    places = np.arange(4)
    assert classifier.accumulate([Window(places + 5, places, places, np.full(4, IGNORED))], budget=64) == (0.0, 0)
    assert not any(bool(gradient.any()) for gradient in gradients(classifier))


def test_only_adapter_and_head_are_trained(loaded: Base) -> None:
    classifier = make(loaded, lora=LoRASettings(r=4))
    trained = {id(parameter) for _, parameter in classifier.named_trained()}
    assert {id(parameter) for parameter in classifier.parameters() if parameter.requires_grad} == trained


def test_count_is_by_weights_not_by_bytes(loaded: Base) -> None:
    classifier = make(loaded, lora=LoRASettings(r=4))
    hidden, mlp, key = 64, 128, 32
    layer = 2 * hidden * hidden + 2 * hidden * key + 3 * hidden * mlp
    adapter = 4 * (2 * 2 * hidden + 2 * (hidden + key) + 3 * (hidden + mlp))
    head = TAGS * (hidden + 1)
    trained = 3 * adapter + head
    assert classifier.count() == (trained, trained + 3 * (layer + 2 * hidden) + hidden + 320 * hidden)


def test_the_seed_decides_the_first_weights_and_leaves_the_global_one_alone(loaded: Base) -> None:
    state = torch.get_rng_state()
    one, same, other = (TokenClassifier(loaded, TAGS, ClassifierSettings(), seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    for (_, a), (_, b) in zip(one.named_trained(), same.named_trained(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(one.head.weight, other.head.weight)


def test_two_classifiers_share_a_base_and_nothing_else(loaded: Base) -> None:
    one, other = make(loaded), make(loaded)
    [text] = windows(10)
    before = other.predict([text], budget=64)[0]
    with torch.no_grad():
        for parameter in one.adapter.values():
            parameter.fill_(1)
    one.accumulate([text], budget=64)
    assert np.array_equal(other.predict([text], budget=64)[0], before)
    assert other.head.weight.grad is None


def test_trained_weights_move_to_another_classifier(loaded: Base) -> None:
    one, other = make(loaded, seed=1), make(loaded, seed=2)
    texts = windows(10, 4)
    other.load_trained(*one.trained())
    for a, b in zip(one.predict(texts, 64), other.predict(texts, 64), strict=True):
        assert np.array_equal(a, b)
    adapter, _ = one.trained()
    next(iter(adapter.values())).zero_()
    assert bool(next(iter(one.adapter.values())).any()), "what trained() gives is a copy"


@pytest.mark.parametrize("change", ["shape", "missing", "unknown", "tags"])
def test_weights_of_another_shape_are_refused(loaded: Base, change: str) -> None:
    classifier = make(loaded)
    adapter, head = classifier.trained()
    name = next(iter(adapter))
    if change == "shape":
        adapter[name] = adapter[name][:-1]
    elif change == "missing":
        del adapter[name]
    elif change == "unknown":
        name = "base_model.model.layers.7.mlp.up_proj.lora_A.weight"
        adapter[name] = torch.zeros(1)
    else:
        name = "head.weight"
        head = {"weight": torch.zeros(TAGS + 2, 64), "bias": head["bias"]}
    before = classifier.trained()
    with pytest.raises(RunError, match="Q215") as caught:
        classifier.load_trained({key: value + 1 for key, value in adapter.items()}, head)
    assert caught.value.where["name"] == name
    for part, same in zip(classifier.trained(), before, strict=True):
        assert all(torch.equal(part[key], same[key]) for key in same), "nothing was set"


@pytest.mark.parametrize(
    ("settings", "first"),
    [
        ({}, 15),
        ({"adapted_layers": 25}, 15),
        ({"adapted_layers": 10}, 20),
        ({"layers": 12}, 6),
        ({"layers": 12, "adapted_layers": 4}, 8),
        ({"bidirectional_from": 0, "adapted_layers": 10}, 0),
        ({"bidirectional_from": None}, None),
    ],
)
def test_where_attention_is_unmasked(settings: dict[str, int | None], first: int | None) -> None:
    assert ClassifierSettings(**settings).unmasked_from(30, "a base") == first


def test_settings_that_fit_no_model_are_refused() -> None:
    for wrong in ({"layers": 0}, {"bidirectional_from": -1}):
        with pytest.raises(InputError, match="Q210"):
            ClassifierSettings(**wrong)
