from __future__ import annotations

from collections import Counter
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spacy_qlora.corpus.record import Place, Record
from spacy_qlora.corpus.split import split_records
from spacy_qlora.errors import InputError

SHARES = {"train": 0.8, "dev": 0.1, "test": 0.1}


def make(*items: tuple[str, str | None]) -> list[Record]:
    return [Record(Place("a", i), text, (), group) for i, (text, group) in enumerate(items, 1)]


def test_shares_are_exact_for_single_records_and_order_is_kept() -> None:
    records = make(*((f"note {i}", None) for i in range(1000)))
    parts = split_records(records, SHARES, seed=0)
    assert {name: len(part) for name, part in parts.items()} == {"train": 800, "dev": 100, "test": 100}
    assert sorted(chain(*parts.values()), key=records.index) == records
    assert all(part == sorted(part, key=lambda record: record.place.record) for part in parts.values())


def test_the_seed_decides() -> None:
    records = make(*((f"note {i}", None) for i in range(50)))
    assert split_records(records, SHARES, seed=3) == split_records(records, SHARES, seed=3)
    assert split_records(records, SHARES, seed=3) != split_records(records, SHARES, seed=4)


def test_equal_texts_join_groups() -> None:
    chain = [("a", "1"), ("b", "1"), (" b\n", "2"), ("c", "2"), ("c", None), ("c", "3"), ("d", "3")]
    parts = split_records(make(*chain, ("x", "4"), ("y", "5")), SHARES, seed=0)
    assert sorted(len(part) for part in parts.values()) == [1, 1, 7]


def test_a_share_of_0_makes_no_split() -> None:
    assert set(split_records(make(("a", None)), {"train": 1.0, "dev": 0.0, "test": 0.0}, seed=0)) == {"train"}


def test_too_few_groups() -> None:
    with pytest.raises(InputError, match="Q108"):
        split_records(make(("a", "1"), ("b", "1"), ("c", None)), SHARES, seed=0)


ITEMS = st.lists(st.tuples(st.sampled_from("abcdefghij"), st.sampled_from([None, *"123456"])), min_size=1, max_size=60)


@given(items=ITEMS, seed=st.integers(0, 9))
def test_no_text_and_no_group_in_two_splits_and_none_empty(items: list[tuple[str, str | None]], seed: int) -> None:
    try:
        parts = split_records(make(*items), SHARES, seed)
    except InputError:
        return
    assert all(parts.values())
    for key in ("folded", "group"):
        homes = Counter(k for part in parts.values() for k in {getattr(r, key) for r in part if getattr(r, key)})
        assert set(homes.values()) <= {1}
