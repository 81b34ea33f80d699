from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from spacy_qlora.engine.base import load_base
from spacy_qlora.engine.batching import PADDING
from spacy_qlora.engine.classifier import TokenClassifier
from spacy_qlora.engine.loop import Loop
from spacy_qlora.engine.progress import Hooks, Progress, Schedule
from spacy_qlora.engine.settings import ClassifierSettings, LoopSettings, LoRASettings, OptimizerSettings
from spacy_qlora.engine.window import IGNORED, Window
from spacy_qlora.errors import InputError, RunError

TAGS = 3


def make_windows(count: int = 12) -> list[Window]:
    """A task that can be learned: a word's tag depends on its piece."""
    random = np.random.default_rng(0)
    windows = []
    for _ in range(count):
        pieces = random.integers(2, 32, random.integers(3, 20))
        places = np.arange(len(pieces))
        windows.append(Window(pieces, places, places, pieces % TAGS))
    return windows


def make_loop(
    base: Path,
    folder: Path,
    schedule: Schedule,
    settings: LoopSettings | None = None,
    dropout: float = 0.1,
) -> Loop:
    loaded = load_base(base, torch.device("cpu"), torch.float32)
    classifier = TokenClassifier(loaded, TAGS, ClassifierSettings(LoRASettings(r=4, dropout=dropout)))
    return Loop(
        classifier,
        make_windows(),
        settings or LoopSettings(batch_pieces=64),
        OptimizerSettings(adapter_lr=3e-3, head_lr=2e-2),
        schedule,
        folder,
    )


def accuracy(loop: Loop) -> float:
    scores = loop.classifier.predict(loop.windows, budget=64)
    right = [np.mean(row.argmax(-1) == window.tags) for row, window in zip(scores, loop.windows, strict=True)]
    return float(np.mean(right))


class Record:
    """What the loop reported."""

    def __init__(self, scores: list[float] | None = None) -> None:
        self.losses: list[float] = []
        self.steps: list[int] = []
        self.evaluated: list[tuple[int, int, bool]] = []
        self._scores = iter(scores or [])

    def hooks(self) -> Hooks:
        return Hooks(
            lambda: next(self._scores, 0.0), self.on_evaluation, lambda progress: self.steps.append(progress.step)
        )

    def on_evaluation(self, progress: Progress, best: bool) -> None:
        self.losses.append(progress.loss)
        self.evaluated.append((progress.epoch, progress.step, best))


def test_the_task_is_learned(base: Path, tmp_path: Path) -> None:
    loop, record = make_loop(base, tmp_path, Schedule(max_epochs=12)), Record()
    first = accuracy(loop)
    progress = loop.run(Hooks(lambda: accuracy(loop), record.on_evaluation))
    assert record.losses[0] == pytest.approx(math.log(TAGS), abs=0.7)
    assert record.losses[-1] < record.losses[0] / 4
    assert progress.best > 0.95 > first
    assert progress.step == loop.total_steps
    assert progress.pieces == 12 * sum(len(window) for window in loop.windows)
    assert progress.seconds > 0


def test_evaluates_at_the_end_of_each_epoch(base: Path, tmp_path: Path) -> None:
    loop, record = make_loop(base, tmp_path, Schedule(max_epochs=3)), Record([0.2, 0.5, 0.4])
    progress = loop.run(record.hooks())
    per_epoch = loop.total_steps // 3
    assert record.evaluated == [(1, per_epoch, True), (2, 2 * per_epoch, True), (3, 3 * per_epoch, False)]
    assert record.steps == list(range(1, loop.total_steps + 1))
    assert (progress.best, progress.best_step, progress.score) == (0.5, 2 * per_epoch, 0.4)


def test_evaluates_within_epochs_too(base: Path, tmp_path: Path) -> None:
    settings = LoopSettings(batch_size=2, batch_pieces=64)  # 6 steps an epoch
    loop, record = make_loop(base, tmp_path, Schedule(max_epochs=2, eval_frequency=4), settings), Record()
    loop.run(record.hooks())
    assert [step for _, step, _ in record.evaluated] == [4, 6, 8, 12]


def test_a_score_of_zero_is_the_best_so_far(base: Path, tmp_path: Path) -> None:
    loop, record = make_loop(base, tmp_path, Schedule(max_epochs=2)), Record([0.0, 0.0])
    loop.run(record.hooks())
    assert [best for *_, best in record.evaluated] == [True, False]


@pytest.mark.parametrize("limit", [1, 4, 6, 7])
def test_max_steps_ends_a_run_with_an_evaluation(base: Path, tmp_path: Path, limit: int) -> None:
    settings = LoopSettings(batch_size=2, batch_pieces=64)
    loop, record = make_loop(base, tmp_path, Schedule(max_steps=limit), settings), Record()
    assert loop.run(record.hooks()).step == limit == loop.total_steps
    assert record.evaluated[-1][1] == limit


def test_the_tighter_limit_holds(base: Path, tmp_path: Path) -> None:
    settings = LoopSettings(batch_size=2, batch_pieces=64)
    for schedule, steps in ((Schedule(1, 100), 6), (Schedule(5, 7), 7)):
        assert make_loop(base, tmp_path, schedule, settings).total_steps == steps


def test_patience_counts_steps_without_anything_better(base: Path, tmp_path: Path) -> None:
    settings = LoopSettings(batch_size=2, batch_pieces=64)
    loop = make_loop(base, tmp_path, Schedule(patience=10, eval_frequency=3), settings)
    record = Record([0.1, 0.3, 0.3, 0.2, 0.3])
    progress = loop.run(record.hooks())
    assert loop.total_steps == 0
    assert (progress.best_step, progress.step) == (6, 18)


def plan(base: Path, folder: Path, settings: LoopSettings, seed: int = 0) -> list[list[list[int]]]:
    """The windows' numbers by step and micro-batch, over two epochs."""
    loop = make_loop(base, folder, Schedule(max_epochs=2, seed=seed), settings)
    numbers = {id(window): i for i, window in enumerate(loop.windows)}
    accumulate = loop.classifier.accumulate
    steps: list[list[list[int]]] = [[]]

    def recorded(windows: Sequence[Window], budget: int) -> tuple[float, int]:
        assert budget == settings.batch_pieces
        steps[-1].append([numbers[id(window)] for window in windows])
        return accumulate(windows, budget)

    loop.classifier.accumulate = recorded
    loop.run(Hooks(lambda: 0.0, on_step=lambda progress: steps.append([])))
    return steps[:-1]


@pytest.mark.parametrize(
    "settings",
    [
        LoopSettings(batch_pieces=40),
        LoopSettings(batch_pieces=40, accumulate=3),
        LoopSettings(batch_size=5, batch_pieces=40),
        LoopSettings(batch_size=5, batch_pieces=4000),
        LoopSettings(batch_size=1, batch_pieces=1),
    ],
    ids=str,
)
def test_steps_hold_what_the_settings_say(base: Path, tmp_path: Path, settings: LoopSettings) -> None:
    lengths = [len(window) for window in make_windows()]
    steps = plan(base, tmp_path, settings)
    trained = [i for step in steps for batch in step for i in batch]
    assert sorted(trained[:12]) == sorted(trained[12:]) == list(range(12))
    assert trained[:12] != trained[12:]
    for step in steps:
        for batch in step:
            assert len(batch) == 1 or sum(lengths[i] for i in batch) <= settings.batch_pieces
            assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= PADDING * settings.batch_pieces
    if settings.batch_size:
        sizes = [sum(map(len, step)) for step in steps]
        assert max(sizes) == settings.batch_size
        assert len(sizes) == 2 * math.ceil(12 / settings.batch_size)
    else:
        assert max(map(len, steps)) == settings.accumulate
    assert plan(base, tmp_path, settings) == steps
    assert plan(base, tmp_path, settings, seed=1) != steps


def test_the_loss_is_a_mean_over_words_not_over_batches(base: Path, tmp_path: Path) -> None:
    """One step over everything gives the same weights in one micro-batch or in many."""
    found = []
    for pieces in (4000, 20):
        settings = LoopSettings(batch_size=12, batch_pieces=pieces)
        loop = make_loop(base, tmp_path, Schedule(max_steps=1), settings, dropout=0.0)
        record = Record()
        loop.run(record.hooks())
        found.append((record.losses[0], loop.classifier.head.weight.detach()))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    torch.testing.assert_close(found[0][1], found[1][1], atol=1e-5, rtol=0)


def test_a_loss_that_is_no_number_ends_the_run(base: Path, tmp_path: Path) -> None:
    loop = make_loop(base, tmp_path, Schedule(max_epochs=3), LoopSettings(batch_size=2))
    record = Record([0.5])

    def spoil(progress: Progress) -> None:
        if progress.step == 8:
            loop.classifier.head.weight.data[0, 0] = math.nan

    with pytest.raises(RunError, match="Q402") as caught:
        loop.run(Hooks(lambda: 0.5, record.on_evaluation, spoil))
    assert caught.value.where == {"step": 9}
    assert record.evaluated == [(1, 6, True)]


def test_ignored_words_are_not_counted(base: Path, tmp_path: Path) -> None:
    loop = make_loop(base, tmp_path, Schedule(max_steps=1), LoopSettings(batch_size=12))
    places = np.arange(4)
    known = make_windows(2)
    loop.windows = [*known, Window(places + 5, places, places, np.full(4, IGNORED))]
    words: list[int] = []
    loop.run(Hooks(lambda: 0.0, on_step=lambda progress: words.append(progress.words)))
    assert words == [sum(len(window.words) for window in known)]


@pytest.mark.parametrize("wrong", [{"batch_size": -1}, {"batch_pieces": 0}, {"accumulate": 0}], ids=str)
def test_wrong_settings_are_refused(wrong: dict) -> None:
    with pytest.raises(InputError, match="Q210"):
        LoopSettings(**wrong)
