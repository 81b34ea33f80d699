from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spacy_qlora.engine.batching import POOL, by_budget, collate, shuffled
from spacy_qlora.engine.window import IGNORED, Window

LENGTHS = st.lists(st.integers(1, 60), max_size=80)
BUDGETS = st.integers(1, 200)


def cost(lengths: list[int], batch: list[int]) -> int:
    return len(batch) * max(lengths[i] for i in batch)


@given(lengths=LENGTHS, budget=BUDGETS)
def test_budgets_hold_and_every_window_comes_once(lengths: list[int], budget: int) -> None:
    batches = list(by_budget(lengths, budget))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert all(cost(lengths, batch) <= budget or len(batch) == 1 for batch in batches)
    in_turn = [lengths[i] for batch in batches for i in batch]
    assert in_turn == sorted(lengths, reverse=True)


@given(lengths=LENGTHS, budget=BUDGETS, data=st.data())
def test_a_given_order_is_kept_and_batches_are_full(lengths: list[int], budget: int, data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(lengths))))
    batches = list(by_budget(lengths, budget, order))
    assert [i for batch in batches for i in batch] == order
    for batch, following in pairwise(batches):
        assert cost(lengths, batch) <= budget or len(batch) == 1
        assert cost(lengths, [*batch, following[0]]) > budget, "one more would not have fitted"


@given(lengths=LENGTHS, budget=BUDGETS, seed=st.integers(0, 99))
def test_an_epoch_holds_every_window_once(lengths: list[int], budget: int, seed: int) -> None:
    def epoch() -> list[list[int]]:
        return shuffled(lengths, budget, torch.Generator().manual_seed(seed))

    batches = epoch()
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert all(cost(lengths, batch) <= budget or len(batch) == 1 for batch in batches)
    assert epoch() == batches


def test_epochs_differ_and_waste_little() -> None:
    lengths = np.random.default_rng(0).integers(4, 120, 8000).tolist()
    one, other = (shuffled(lengths, 1024, torch.Generator().manual_seed(seed)) for seed in (0, 1))
    assert one != other
    assert {tuple(sorted(batch)) for batch in one} != {tuple(sorted(batch)) for batch in other}
    padded = sum(cost(lengths, batch) for batch in one)
    assert padded < 1.1 * sum(lengths)
    widths = [max(lengths[i] for i in batch) for batch in one]
    assert widths != sorted(widths), "short batches and long ones come mixed"
    assert len(one) > 5 * POOL


def make(ids: list[int], positions: list[int], tags: list[int] | None = None) -> Window:
    return Window(
        np.array(ids), np.array(positions), np.arange(len(positions)), None if tags is None else np.array(tags)
    )


def test_padding_stands_to_the_right() -> None:
    batch = collate([make([5, 6], [0, 1], [1, 2]), make([7, 8, 9], [2], [IGNORED])])
    assert batch.pieces.tolist() == [[5, 6, 0], [7, 8, 9]]
    assert batch.mask is not None
    assert batch.mask.tolist() == [[True, True, False], [True, True, True]]
    assert batch.positions.tolist() == [0, 1, 5]
    assert batch.pieces.flatten()[batch.positions].tolist() == [5, 6, 9]
    assert batch.tags is not None
    assert batch.tags.tolist() == [1, 2, IGNORED]


def test_begin_of_text_moves_all_positions() -> None:
    batch = collate([make([5, 6], [0, 1]), make([7, 8, 9], [2])], first=1)
    assert batch.pieces.tolist() == [[1, 5, 6, 0], [1, 7, 8, 9]]
    assert batch.mask is not None
    assert batch.mask.tolist() == [[True, True, True, False], [True] * 4]
    assert batch.positions.tolist() == [1, 2, 7]
    assert batch.tags is None


def test_equal_lengths_need_no_mask() -> None:
    assert collate([make([5, 6], [0]), make([7, 8], [1])]).mask is None


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
    assert batch.pieces.flatten()[batch.positions].tolist() == expected
    width = max(lengths) + (first is not None)
    assert batch.pieces.shape == (len(lengths), width)
    real = torch.ones_like(batch.pieces, dtype=torch.bool) if batch.mask is None else batch.mask
    assert real.sum(1).tolist() == [length + (first is not None) for length in lengths]
    moved = batch.to(torch.device("cpu"))
    assert torch.equal(moved.pieces, batch.pieces)
