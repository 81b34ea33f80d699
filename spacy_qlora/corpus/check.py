"""From a row as read to a checked record."""

from __future__ import annotations

import re
from bisect import bisect_left

from spacy_qlora.corpus.bio import Span, read_bio
from spacy_qlora.corpus.locate import Offsets, covers, is_blank, locate, locate_last
from spacy_qlora.corpus.record import Mention, Record, Row
from spacy_qlora.corpus.rules import Action, Rule
from spacy_qlora.corpus.untokenize import untokenize

# All but tab, line feed and carriage return.
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def check(row: Row) -> tuple[Record | None, list[Rule]]:
    """Holds a row to the rules, and repairs what can be repaired without a guess.

    RETURNS (tuple[Record | None, list[Rule]]): The record, None if it is dropped, and the rules that the row breaks.
    """
    rules = [*row.rules]
    fatal = next((rule for rule in rules if rule.action is Action.DROPPED), None) or _unusable(row)
    if fatal:
        return None, list(dict.fromkeys([*rules, fatal]))
    words = [word.strip() for word in row.words]
    filled = [i for i, word in enumerate(words) if not is_blank(word)]
    text = untokenize([words[i] for i in filled]) if row.text is None else row.text
    spans, broken = read_bio(row.tags)
    found = _place(text, [words[i] for i in filled], _without_blanks(spans, filled))
    if isinstance(found, Rule):
        return None, [*rules, found]
    mentions, covered = found
    checks = {
        Rule.BLANK_WORD: words != row.words or len(filled) < len(words),
        Rule.BROKEN_BIO: broken,
        Rule.UNCOVERED_TEXT: not covered,
        Rule.CONTROL_CHARACTER: bool(CONTROL.search(text)),
    }
    rules += [rule for rule, is_broken in checks.items() if is_broken]
    return Record(row.place, text, mentions, row.group), rules


def _without_blanks(spans: list[Span], filled: list[int]) -> list[Span]:
    """Spans counted in words that are filled; a span of blank words alone is left out."""
    moved = [(bisect_left(filled, first), bisect_left(filled, end), label) for first, end, label in spans]
    return [span for span in moved if span[0] < span[1]]


def _place(text: str, words: list[str], spans: list[Span]) -> tuple[tuple[Mention, ...], bool] | Rule:
    """The mentions at spans of words, and whether the words cover the text; or the rule that forbids it."""
    offsets = locate(text, words)
    if offsets is None:
        return Rule.WORDS_NOT_IN_TEXT
    covered = covers(text, offsets)
    mentions = _mentions(offsets, spans)
    if not covered and mentions != _mentions(locate_last(text, words), spans):
        return Rule.AMBIGUOUS_WORDS
    return mentions, covered


def _mentions(offsets: Offsets, spans: list[Span]) -> tuple[Mention, ...]:
    return tuple(Mention(offsets[first][0], offsets[end - 1][1], label) for first, end, label in spans)


def _unusable(row: Row) -> Rule | None:
    """The rule for which a row is dropped before its words are looked for in the text."""
    if not _is_unicode("".join([row.text or "", *row.words, *row.tags])):
        return Rule.NOT_UNICODE
    if all(map(is_blank, row.words)) or (row.text is not None and is_blank(row.text)):
        return Rule.EMPTY
    for tag in row.tags:
        mark, label = tag[:2], tag[2:]
        if mark in ("B-", "I-") and is_blank(label):
            return Rule.EMPTY_LABEL
        if tag != "O" and (mark not in ("B-", "I-") or label != label.strip()):
            return Rule.UNKNOWN_TAG
    return None


def _is_unicode(text: str) -> bool:
    """JSON can name half of a surrogate pair, which is no character: spaCy cannot store it."""
    try:
        text.encode("utf8")
    except UnicodeEncodeError:
        return False
    return True
