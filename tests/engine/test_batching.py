from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spacy_qlora.engine.batching import PADDING, POOL, SHORTEST, Layout, by_budget, collate, shuffled
from spacy_qlora.engine.window import IGNORED, Window

LENGTHS = st.lists(st.integers(1, 60), max_size=80)
BUDGETS = st.integers(1, 200)


def padded(lengths: list[int], batch: list[int]) -> int:
    return len(batch) * max(lengths[i] for i in batch)


def fits(lengths: list[int], batch: list[int], budget: int) -> bool:
    wide, many = padded(lengths, batch) > PADDING * budget, len(batch) * SHORTEST > budget
    return sum(lengths[i] for i in batch) <= budget and not wide and not many


@given(lengths=LENGTHS, budget=BUDGETS)
def test_budgets_hold_and_every_window_comes_once(lengths: list[int], budget: int) -> None:
    batches = list(by_budget(lengths, budget))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert all(fits(lengths, batch, budget) or len(batch) == 1 for batch in batches)
    in_turn = [lengths[i] for batch in batches for i in batch]
    assert in_turn == sorted(lengths, reverse=True)


@given(lengths=LENGTHS, budget=BUDGETS, data=st.data())
def test_a_given_order_is_kept_and_batches_are_full(lengths: list[int], budget: int, data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(lengths))))
    batches = list(by_budget(lengths, budget, order))
    assert [i for batch in batches for i in batch] == order
    for batch, following in pairwise(batches):
        assert fits(lengths, batch, budget) or len(batch) == 1
        assert not fits(lengths, [*batch, following[0]], budget), "one more would not have fitted"


@given(lengths=LENGTHS, budget=BUDGETS, seed=st.integers(0, 99))
def test_an_epoch_holds_every_window_once(lengths: list[int], budget: int, seed: int) -> None:
    def epoch() -> list[list[int]]:
        return shuffled(lengths, budget, torch.Generator().manual_seed(seed))

    batches = epoch()
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert all(fits(lengths, batch, budget) or len(batch) == 1 for batch in batches)
    assert epoch() == batches


def test_epochs_differ_and_waste_little() -> None:
    lengths = np.random.default_rng(0).integers(4, 120, 8000).tolist()
    one, other = (shuffled(lengths, 1024, torch.Generator().manual_seed(seed)) for seed in (0, 1))
    assert one != other
    assert {tuple(sorted(batch)) for batch in one} != {tuple(sorted(batch)) for batch in other}
    assert sum(padded(lengths, batch) for batch in one) < 1.1 * sum(lengths)
    assert len(one) < 1.1 * sum(lengths) / 1024
    widths = [max(lengths[i] for i in batch) for batch in one]
    assert widths != sorted(widths), "short batches and long ones come mixed"
    assert len(one) > 5 * POOL


def make(ids: list[int], positions: list, tags: list[int] | None = None) -> Window:
    return Window(
        np.array(ids), np.array(positions), np.arange(len(positions)), None if tags is None else np.array(tags)
    )


def test_windows_stand_one_after_another() -> None:
    batch = collate([make([5, 6], [0, 1], [1, 2]), make([7, 8, 9], [2], [IGNORED])])
    assert batch.pieces.tolist() == [5, 6, 7, 8, 9]
    assert batch.read.tolist() == [0, 1, 4]
    assert batch.words.tolist() == [0, 1, 2]
    assert batch.tags is not None
    assert batch.tags.tolist() == [1, 2, IGNORED]


def test_begin_of_text_moves_all_positions() -> None:
    batch = collate([make([5, 6], [0, 1]), make([7, 8, 9], [2])], first=1)
    assert batch.pieces.tolist() == [1, 5, 6, 1, 7, 8, 9]
    assert batch.read.tolist() == [1, 2, 6]
    assert batch.tags is None


def test_a_piece_that_two_reads_share_is_computed_once() -> None:
    windows = [make([5, 6, 7], [[0, 0], [1, 2]]), make([8, 9], [[0, 1], [1, 1]])]
    batch = collate(windows, first=1)
    assert batch.read.tolist() == [1, 2, 3, 5, 6]
    assert batch.words.tolist() == [0, 0, 1, 2, 3, 4, 4, 4]


def test_padding_stands_to_the_right() -> None:
    layout, rows = Layout.of([2, 3, 1]), torch.arange(1, 10)[:, None]  # three rows after the last piece
    assert layout.mask is not None
    assert layout.mask.tolist() == [[True, True, False], [True, True, True], [True, False, False]]
    assert layout.spread(rows, zero=True).flatten().tolist() == [1, 2, 0, 3, 4, 5, 6, 0, 0]
    assert layout.spread(rows)[layout.mask.flatten()].flatten().tolist() == [1, 2, 3, 4, 5, 6]
    assert layout.collect(layout.spread(rows), 9).flatten().tolist() == [1, 2, 3, 4, 5, 6, 0, 0, 0]


def test_equal_lengths_need_no_mask() -> None:
    layout, rows = Layout.of([2, 2]), torch.arange(5)[:, None]
    assert layout.mask is None
    assert layout.spread(rows).flatten().tolist() == [0, 1, 2, 3]
    assert layout.collect(layout.spread(rows), 5).flatten().tolist() == [0, 1, 2, 3, 0]


@pytest.mark.parametrize("first", [None, 3])
@given(lengths=st.lists(st.integers(1, 12), min_size=1, max_size=6), data=st.data())
def test_every_word_is_read_at_its_own_piece(first: int | None, lengths: list[int], data: st.DataObject) -> None:
    windows, expected, count = [], [], 10
    for length in lengths:
        ids = list(range(count, count + length))
        positions = sorted(data.draw(st.sets(st.sampled_from(range(length)), min_size=1)))
        windows.append(make(ids, positions, [0] * len(positions)))
        expected += [ids[position] for position in positions]
        count += length
    batch = collate(windows, first)
    assert batch.pieces[batch.read[batch.words]].tolist() == expected
    whole = [length + (first is not None) for length in lengths]
    assert len(batch.pieces) == sum(whole)
    rectangle = batch.layout.spread(batch.pieces[:, None], zero=True).view(len(lengths), max(whole))
    for row, length, own in zip(rectangle, whole, batch.pieces.split(whole), strict=True):
        assert torch.equal(row[:length], own)
        assert not row[length:].any()
    assert torch.equal(batch.layout.collect(rectangle.view(-1, 1), len(batch.pieces))[:, 0], batch.pieces)
    moved = batch.to(torch.device("meta"))
    assert moved.pieces.is_meta
    assert moved.layout.mask is None or moved.layout.mask.is_meta
