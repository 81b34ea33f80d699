"""The rules that a record can break, and what becomes of it then."""

from __future__ import annotations

from enum import Enum


class Action(str, Enum):
    """What is done with a record that breaks a rule, unless the conversion is strict and stops."""

    DROPPED = "dropped"
    REPAIRED = "repaired"
    KEPT = "kept"


class Rule(Enum):
    """Each rule with the code of its message in `errors.MESSAGES`, which explains it, and the action."""

    NOT_JSON = "Q110", Action.DROPPED
    MISSING_KEY = "Q111", Action.DROPPED
    WRONG_TYPE = "Q112", Action.DROPPED
    UNPAIRED = "Q113", Action.DROPPED
    NOT_UNICODE = "Q114", Action.DROPPED
    EMPTY = "Q115", Action.DROPPED
    UNKNOWN_TAG = "Q116", Action.DROPPED
    EMPTY_LABEL = "Q117", Action.DROPPED
    WORDS_NOT_IN_TEXT = "Q118", Action.DROPPED
    AMBIGUOUS_WORDS = "Q119", Action.DROPPED
    DUPLICATE = "Q120", Action.DROPPED
    CONFLICT = "Q121", Action.DROPPED
    BOM = "Q122", Action.REPAIRED
    BLANK_WORD = "Q123", Action.REPAIRED
    BROKEN_BIO = "Q124", Action.REPAIRED
    UNCOVERED_TEXT = "Q125", Action.KEPT
    CONTROL_CHARACTER = "Q126", Action.KEPT
    REPEATED = "Q127", Action.KEPT
    LEAK = "Q128", Action.KEPT

    def __init__(self, code: str, action: Action) -> None:
        self.code = code
        self.action = action
