from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spacy_qlora.engine.window import Window
from spacy_qlora.text.bio import BIO
from spacy_qlora.text.windows import cut_windows, window_starts

BIO_TAGS = BIO(["Disease", "Drug"])


@st.composite
def readings(draw: st.DrawFn) -> tuple[int, np.ndarray, np.ndarray]:
    """A length in pieces, the pieces at which words are read (some share one), and the words' numbers."""
    length = draw(st.integers(1, 150))
    positions = sorted(draw(st.lists(st.integers(0, length - 1), max_size=60)))
    gaps = draw(st.lists(st.integers(1, 3), min_size=len(positions), max_size=len(positions)))
    return length, np.array(positions, dtype=np.int64), np.cumsum(gaps, dtype=np.int64)


def all_starts(length: int, size: int, overlap: int) -> list[int]:
    starts, start = [], 0
    while start + size < length:
        starts.append(start)
        start += size - overlap
    return [*starts, max(length - size, 0)]


def service(position: int, start: int, end: int, causal: bool) -> int:
    return position - start if causal else min(position - start, end - 1 - position)


SIZES = st.integers(1, 40).flatmap(lambda size: st.tuples(st.just(size), st.integers(0, size // 2)))  # and overlaps


@given(reading=readings(), sizes=SIZES, causal=st.booleans())
def test_every_word_is_scored_once_where_it_is_served_best(
    reading: tuple[int, np.ndarray, np.ndarray], sizes: tuple[int, int], causal: bool
) -> None:
    (length, positions, words), (size, overlap) = reading, sizes
    windows = cut_windows(np.arange(length), positions, words, size, overlap, causal)
    assert sorted(word for window in windows for word in window.words) == words.tolist()
    at = dict(zip(words.tolist(), positions.tolist(), strict=True))
    spans = [(start, min(start + size, length)) for start in all_starts(length, size, overlap)]
    for window in windows:
        first, behind = int(window.pieces[0]), int(window.pieces[-1]) + 1
        assert len(window) == behind - first <= size
        assert (first, behind) in spans
        for word, position in zip(window.words.tolist(), window.positions.tolist(), strict=True):
            assert first + position == at[word], "read at its own piece"
            best = max(service(at[word], *span, causal) for span in spans if span[0] <= at[word] < span[1])
            assert service(at[word], first, behind, causal) == best
            if causal:
                assert position >= min(at[word], overlap), "the overlap, or all so far"


@given(length=st.integers(0, 300), sizes=SIZES)
def test_windows_cover_the_text(length: int, sizes: tuple[int, int]) -> None:
    size, overlap = sizes
    starts = window_starts(length, size, overlap).tolist()
    assert starts == all_starts(length, size, overlap)
    covered = {i for start in starts for i in range(start, min(start + size, length))}
    assert covered == set(range(length))


def test_a_text_that_fits_is_one_window() -> None:
    pieces = np.arange(8)
    [window] = cut_windows(pieces, np.array([1, 7]), np.array([0, 3]), 8, 4, True, np.array([5, 6, 7, 8]))
    assert window.pieces.tolist() == pieces.tolist()
    assert window.positions.tolist() == [1, 7]
    assert window.words.tolist() == [0, 3]
    assert window.tags is not None
    assert window.tags.tolist() == [5, 8]


def test_a_word_that_begins_before_its_window_is_read_from_there_on() -> None:
    pieces, both = np.arange(24), np.array([[5, 9], [14, 20]])  # windows of 16 start at 0 and at 8
    windows = cut_windows(pieces, both, np.arange(2), 16, 8, causal=True)
    assert [window.positions.tolist() for window in windows] == [[[5, 9]], [[6, 12]]]
    [window] = cut_windows(np.arange(24), np.array([[3, 20]]), np.arange(1), 16, 8, causal=True)
    assert window.positions.tolist() == [[0, 12]]


def test_the_choice_depends_on_the_attention() -> None:
    pieces = np.arange(24)  # windows of 16 start at 0 and at 8
    positions = words = np.arange(24)
    causal = cut_windows(pieces, positions, words, 16, 8, causal=True)
    unmasked = cut_windows(pieces, positions, words, 16, 8, causal=False)
    assert [window.words.tolist() for window in causal] == [list(range(16)), list(range(16, 24))]
    assert [window.words.tolist() for window in unmasked] == [list(range(12)), list(range(12, 24))]


@pytest.mark.parametrize("causal", [True, False])
def test_windows_without_words_are_left_out(causal: bool) -> None:
    windows = cut_windows(np.arange(64), np.array([0, 63]), np.array([0, 1]), 16, 8, causal)
    assert [window.pieces[0] for window in windows] == [0, 48]
    assert cut_windows(np.arange(64), np.array([], dtype=np.int64), np.array([], dtype=np.int64), 16, 8, causal) == []


@st.composite
def annotated(draw: st.DrawFn) -> tuple[list[int], list[tuple[int, int, str]]]:
    """Pieces of each token, 0 for blanks, and mentions, which neither begin nor end with a blank."""
    tokens: list[int] = []
    spans: list[tuple[int, int, str]] = []
    some = st.integers(1, 5)
    for kind in draw(st.lists(st.sampled_from(["word", "blank", "Disease", "Drug"]), max_size=40)):
        if kind in BIO_TAGS.labels:
            body = [draw(some), *draw(st.lists(st.integers(0, 5), max_size=20)), draw(some)][: draw(st.integers(1, 22))]
            while not body[-1]:
                body.pop()
            spans.append((len(tokens), len(tokens) + len(body), kind))
            tokens += body
        else:
            tokens.append(draw(some) if kind == "word" else 0)
    return tokens, spans


def scatter(windows: list[Window], length: int) -> np.ndarray:
    """A perfect model's scores of each window's words, put back in their places."""
    scores = BIO_TAGS.unread(length)
    for window in windows:
        assert window.tags is not None
        scores[window.words] = np.eye(len(BIO_TAGS.tags))[window.tags]
    return scores


@given(record=annotated(), causal=st.booleans())
def test_gold_mentions_come_back_unchanged_through_windows(
    record: tuple[list[int], list[tuple[int, int, str]]], causal: bool
) -> None:
    lengths, spans = record
    ends = np.cumsum(lengths, dtype=np.int64)
    words = np.flatnonzero(lengths)
    tags = BIO_TAGS.encode(len(lengths), spans)
    windows = cut_windows(np.arange(sum(lengths)), ends[words] - 1, words, 16, 8, causal, tags)
    decoded = BIO_TAGS.decode(scatter(windows, len(lengths)))
    assert BIO_TAGS.spans(decoded) == spans
