"""Neighbouring records become one doc, and every mention keeps its place."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from spacy_qlora.corpus.join import join_records
from spacy_qlora.corpus.record import Mention, Place, Record


def record(number: int, text: str, *mentions: Mention, group: str | None = None) -> Record:
    return Record(Place("notes.json", number), text, mentions, group)


def joined(records: list[Record], words: int) -> list[str]:
    return [found.text for found in join_records(records, words)]


def test_mentions_move_with_their_text() -> None:
    one = record(1, "Has asthma.", Mention(4, 10, "Disease"))
    other = record(2, "On aspirin.", Mention(3, 10, "Drug"))
    [found] = join_records([one, other], 10)
    assert (found.text, found.place) == ("Has asthma. On aspirin.", one.place)
    assert [found.text[m.start : m.end] for m in found.mentions] == ["asthma", "aspirin"]
    assert [m.label for m in found.mentions] == ["Disease", "Drug"]


def test_up_to_so_many_words() -> None:
    records = [record(i, text) for i, text in enumerate(["a b", "c d", "e", "f g h i j k", "l"])]
    assert joined(records, 5) == ["a b c d e", "f g h i j k", "l"]
    assert joined(records, 1) == [each.text for each in records]


def test_only_neighbours_of_one_group() -> None:
    groups = ["x", "x", "y", None, None]
    records = [record(i, str(i), group=group) for i, group in enumerate(groups)]
    assert joined(records, 99) == ["0 1", "2", "3 4"]
    assert joined([record(1, "a"), record(3, "b"), record(4, "c")], 99) == ["a", "b c"]


def test_lengths_differ_where_they_are_drawn() -> None:
    records = [record(i, "a b c d e") for i in range(2000)]
    found = list(join_records(records, 200, seed=1))
    assert found == list(join_records(records, 200, seed=1))
    sizes = [len(each.text.split()) for each in found]
    assert sum(sizes) == 10_000
    assert (min(sizes), max(sizes) > 150, max(sizes) <= 200) == (5, True, True)
    assert 0.3 < sum(size <= 40 for size in sizes) / len(sizes) < 0.7


@given(st.lists(st.text(alphabet="ab \n", min_size=1), min_size=1), st.integers(1, 30))
def test_nothing_is_lost(texts: list[str], words: int) -> None:
    records = [record(i, text, Mention(0, len(text), "X")) for i, text in enumerate(texts)]
    found = list(join_records(records, words))
    assert [each.text[m.start : m.end] for each in found for m in each.mentions] == texts
    assert all(len(each.mentions) == 1 or len(each.text.split()) <= words for each in found)
