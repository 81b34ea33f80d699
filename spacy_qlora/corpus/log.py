"""What the checks found in one input, for the screen and for report.json."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

from spacy_qlora.corpus.bio import read_bio
from spacy_qlora.corpus.record import Place, Record, Row
from spacy_qlora.corpus.rules import Action, Rule
from spacy_qlora.errors import MESSAGES, InputError

SHOWN = 3  # records named on the screen for each rule
LISTED = 100  # records named in the report for each rule


class Log:
    """Counts records, mentions and broken rules of an input.

    strict (bool): Whether a broken rule is an error: `note` raises InputError.
    """

    def __init__(self, *, strict: bool) -> None:
        self.strict = strict
        self.records_in = 0
        self.records_out = 0
        self.mentions_in = 0
        self.mentions_out = 0
        self.lost: Counter[Rule] = Counter()
        self.counts: Counter[Rule] = Counter()
        self.places: dict[Rule, list[Place]] = defaultdict(list)

    def note(self, rule: Rule, place: Place) -> None:
        """Counts a broken rule. RAISES (InputError): The log is strict."""
        if self.strict:
            raise InputError(rule.code, place=place)
        self.counts[rule] += 1
        if len(self.places[rule]) < LISTED:
            self.places[rule].append(place)

    def add(self, row: Row, record: Record | None, rules: list[Rule]) -> None:
        """Counts a row, the rules that it broke and the record that became of it, if any.

        RAISES (InputError): It broke a rule, and the log is strict.
        """
        for rule in rules:
            self.note(rule, row.place)
        read, kept = len(read_bio(row.tags)[0]), len(record.mentions) if record else 0
        self.records_in += 1
        self.mentions_in += read
        self.records_out += record is not None
        self.mentions_out += kept
        if read > kept:
            cause = next((rule for rule in rules if rule.action is Action.DROPPED), Rule.BLANK_WORD)
            self.lost[cause] += read - kept

    def lines(self) -> list[str]:
        """One line for each of the first records that broke a rule, then the count of the rest."""
        lines = []
        for rule, count in self.counts.items():
            shown = [MESSAGES[rule.code].format(place=place) for place in self.places[rule][:SHOWN]]
            if count > len(shown):
                shown.append(f"{count - len(shown)} more, see report.json.")
            lines += [f"{rule.action.value}: [{rule.code}] {line}" for line in shown]
        return lines

    def report(self) -> dict[str, Any]:
        """The counts, with rules by name; `records` of a rule holds the first hundred record numbers."""
        return {
            "records_in": self.records_in,
            "records_out": self.records_out,
            "mentions_in": self.mentions_in,
            "mentions_out": self.mentions_out,
            "lost": {rule.name.lower(): count for rule, count in self.lost.items()},
            "problems": {
                rule.name.lower(): {
                    "code": rule.code,
                    "action": rule.action.value,
                    "count": count,
                    "records": [place.record for place in self.places[rule]],
                }
                for rule, count in self.counts.items()
            },
        }
