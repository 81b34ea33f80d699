"""Layers below the adapted ones, and the cache of what they make of a corpus."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from spacy_qlora.engine.base import load_base
from spacy_qlora.engine.classifier import TokenClassifier
from spacy_qlora.engine.prefix import with_states
from spacy_qlora.engine.settings import ClassifierSettings, LoRASettings
from spacy_qlora.engine.window import Window
from spacy_qlora.errors import InputError

CPU = torch.device("cpu")
TAGS = 5
LENGTHS = (3, 30, 1, 17, 8, 8, 30, 2)


def make(
    base: Path, adapted: int | None = 1, dtype: torch.dtype = torch.float32, **settings: object
) -> TokenClassifier:
    settings = {"lora": LoRASettings(r=4, dropout=0.1), "adapted_layers": adapted, **settings}
    return TokenClassifier(load_base(base, CPU, dtype), TAGS, ClassifierSettings(**settings))


def corpus(seed: int = 0) -> list[Window]:
    random = np.random.default_rng(seed)
    places = [np.arange(length) for length in LENGTHS]
    return [Window(random.integers(2, 320, len(i)), i, i, random.integers(0, TAGS, len(i))) for i in places]


@contextmanager
def frozen_layers_counted(classifier: TokenClassifier) -> Iterator[list[int]]:
    """Yields a list that gets the rows of each batch that goes through the frozen layers."""
    rows: list[int] = []
    hook = classifier.layers[0].register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    yield rows
    hook.remove()


def step(classifier: TokenClassifier, windows: list[Window], seed: int) -> tuple[float, list[torch.Tensor]]:
    torch.manual_seed(seed)
    classifier.zero_grad()
    loss, _ = classifier.accumulate(windows, budget=64)
    return loss, [parameter.grad for _, parameter in classifier.named_trained()]


def test_only_the_top_layers_are_adapted(base: Path) -> None:
    classifier = make(base, adapted=2)
    assert {name.split(".")[3] for name in classifier.adapter} == {"1", "2"}
    whole = make(base, adapted=None)
    assert classifier.count()[0] - TAGS * 65 == (whole.count()[0] - TAGS * 65) * 2 // 3
    _, gradients = step(classifier, corpus(), seed=0)
    assert len(gradients) == 2 * 14 + 2


@pytest.mark.parametrize("threads", [1, 5, 7])
def test_a_windows_states_are_the_same_in_any_batch_on_any_number_of_threads(base: Path, threads: int) -> None:
    classifier, texts = make(base), [window for seed in range(20) for window in corpus(seed)]
    classifier.train()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        alone = [classifier.frozen_states(classifier.collate([text])) for text in texts]
        together = classifier.frozen_states(classifier.collate(texts))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(together, torch.cat(alone))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("first", [None, 0, 1])
def test_cached_states_change_neither_loss_nor_gradients(
    base: Path, tmp_path: Path, first: int | None, dtype: torch.dtype
) -> None:
    classifier, texts = make(base, dtype=dtype, bidirectional_from=first), corpus()
    cached = with_states(classifier, texts, 1000, tmp_path)
    for seed in range(3):
        (loss, gradients), (expected, others) = step(classifier, cached, seed), step(classifier, texts, seed)
        assert loss == expected
        assert all(map(torch.equal, gradients, others))


def test_states_are_computed_once_for_all_runs(base: Path, tmp_path: Path) -> None:
    texts = corpus()
    first, second = make(base), make(base, lora=LoRASettings(r=2))
    with frozen_layers_counted(first) as rows:
        cached = with_states(first, texts, 64, tmp_path)
        assert rows
        del rows[:]
        step(first, cached, seed=0)
        assert not rows
    with frozen_layers_counted(second) as rows:
        again = with_states(second, texts, 16, tmp_path)
        step(second, again, seed=0)
        assert not rows
    assert all(torch.equal(one.states, other.states) for one, other in zip(cached, again, strict=True))
    [file] = tmp_path.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.stat().st_size == sum(first.lengths(texts)) * 64 * 4


@pytest.mark.parametrize(
    "other",
    [{"adapted": 2}, {"bidirectional_from": 1}, {"layers": 2}, {"dtype": torch.bfloat16}],
    ids=["more-adapted", "attention", "fewer-layers", "type"],
)
def test_states_are_those_of_the_same_layers_and_texts(base: Path, tmp_path: Path, other: dict[str, object]) -> None:
    with_states(make(base), corpus(), 64, tmp_path)
    with_states(make(base, **other), corpus(), 64, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    with_states(make(base), corpus(seed=1), 64, tmp_path)
    with_states(make(base), corpus()[::-1], 64, tmp_path)
    assert len(list(tmp_path.iterdir())) == 4


def test_attention_above_the_frozen_layers_does_not_matter(base: Path, tmp_path: Path) -> None:
    for first in (2, None):
        with_states(make(base, bidirectional_from=first), corpus(), 64, tmp_path)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_cut_file_is_written_again(base: Path, tmp_path: Path) -> None:
    classifier, texts = make(base), corpus()
    whole = [window.states.clone() for window in with_states(classifier, texts, 64, tmp_path)]
    [file] = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-1])
    again = with_states(classifier, texts, 64, tmp_path)
    assert all(torch.equal(window.states, states) for window, states in zip(again, whole, strict=True))


def test_an_interrupted_run_leaves_nothing(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = make(base)
    calls = iter([classifier.frozen_states])

    def fail_at_second(batch: object) -> torch.Tensor:
        return next(calls, _interrupt)(batch)

    monkeypatch.setattr(classifier, "frozen_states", fail_at_second)
    with pytest.raises(KeyboardInterrupt):
        with_states(classifier, corpus(), 32, tmp_path)
    assert not list(tmp_path.iterdir())


def _interrupt(batch: object) -> torch.Tensor:
    raise KeyboardInterrupt


def test_predictions_need_no_cache(base: Path, tmp_path: Path) -> None:
    classifier = make(base)
    texts = [replace(window, tags=None) for window in corpus()]
    for one, other in zip(
        classifier.predict(texts, 64), classifier.predict(with_states(classifier, texts, 64, tmp_path), 64), strict=True
    ):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize(("adapted", "layers"), [(4, None), (3, 2), (0, None)])
def test_more_layers_than_there_are_cannot_be_adapted(base: Path, adapted: int, layers: int | None) -> None:
    with pytest.raises(InputError, match=r"\[Q210\] adapted_layers"):
        make(base, adapted, layers=layers)
