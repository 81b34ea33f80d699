from __future__ import annotations

import pytest

from spacy_qlora.corpus.check import check
from spacy_qlora.corpus.record import Mention, Place, Row
from spacy_qlora.corpus.rules import Action, Rule

PLACE = Place("notes.jsonl", 1)


def run(text: str | None, words: list[str], tags: list[str]) -> tuple[list[tuple[int, int, str]] | None, list[Rule]]:
    record, rules = check(Row(PLACE, text, words, tags))
    return record and [(m.start, m.end, m.label) for m in record.mentions], rules


@pytest.mark.parametrize(
    ("text", "words", "tags", "rule"),
    [
        ("", ["rash"], ["O"], Rule.EMPTY),
        (" \n\u200b", ["rash"], ["O"], Rule.EMPTY),
        ("rash", [], [], Rule.EMPTY),
        ("rash", [" ", ""], ["B-X", "I-X"], Rule.EMPTY),
        ("rash", ["fever"], ["O"], Rule.WORDS_NOT_IN_TEXT),
        ("rash fever", ["fever", "rash"], ["O", "O"], Rule.WORDS_NOT_IN_TEXT),
        ("no fever, then fever", ["fever"], ["B-X"], Rule.AMBIGUOUS_WORDS),
        ("rash", ["rash"], ["X"], Rule.UNKNOWN_TAG),
        ("rash", ["rash"], ["o"], Rule.UNKNOWN_TAG),
        ("rash", ["rash"], [""], Rule.UNKNOWN_TAG),
        ("rash", ["rash"], ["S-X"], Rule.UNKNOWN_TAG),
        ("rash", ["rash"], ["B- X"], Rule.UNKNOWN_TAG),
        ("rash", ["rash"], ["B-"], Rule.EMPTY_LABEL),
        ("rash", ["rash"], ["I- "], Rule.EMPTY_LABEL),
        ("rash \ud83d", ["rash"], ["O"], Rule.NOT_UNICODE),
        ("rash", ["rash"], ["B-\udc00"], Rule.NOT_UNICODE),
    ],
)
def test_drops(text: str, words: list[str], tags: list[str], rule: Rule) -> None:
    assert run(text, words, tags) == (None, [rule])
    assert rule.action is Action.DROPPED


@pytest.mark.parametrize("before", ["O", "B-Y", "I-Y"])
def test_an_i_tag_that_continues_nothing_begins_a_mention(before: str) -> None:
    mentions, rules = run("acute rash spread", ["acute", "rash", "spread"], [before, "I-X", "I-X"])
    assert mentions is not None
    assert mentions[-1] == (6, 17, "X")
    assert rules == [Rule.BROKEN_BIO]


def test_blank_words_are_taken_out_of_a_mention() -> None:
    words, tags = ["chest", " ", " pain", "\u200b", "eases"], ["B-X", "I-X", "I-X", "O", "O"]
    assert run("chest \u200bpain eases", words, tags) == ([(0, 11, "X")], [Rule.BLANK_WORD])


def test_mentions_parted_by_a_blank_word_stay_two() -> None:
    mentions, rules = run("rash fever", ["rash", " ", "fever"], ["B-X", "O", "I-X"])
    assert mentions == [(0, 4, "X"), (5, 10, "X")]
    assert rules == [Rule.BLANK_WORD, Rule.BROKEN_BIO]


def test_a_mention_is_kept_where_the_words_leave_out_text_but_only_one_place_fits() -> None:
    assert run("Fever, no rash!", ["Fever", "rash"], ["B-X", "B-X"]) == (
        [(0, 5, "X"), (10, 14, "X")],
        [Rule.UNCOVERED_TEXT],
    )


def test_control_characters_stay() -> None:
    assert run("rash\x07 here", ["rash", "here"], ["B-X", "O"]) == ([(0, 4, "X")], [Rule.CONTROL_CHARACTER])
    assert run("rash\r\n\there", ["rash", "here"], ["B-X", "O"]) == ([(0, 4, "X")], [])


def test_words_without_a_text_become_one() -> None:
    record, rules = check(Row(PLACE, None, ["No", "", "rash", "."], ["O", "O", "B-X", "O"]))
    assert record is not None
    assert (record.text, record.mentions, rules) == ("No rash.", (Mention(3, 7, "X"),), [Rule.BLANK_WORD])
