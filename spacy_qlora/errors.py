"""Every error that the package raises, with its code and the way to mend it.

No message holds a word of a record's text: it names the file, the record number, character offsets, the label or the rule.
"""

from __future__ import annotations

MESSAGES = {
    # Q0xx: files, settings and the command line
    "Q001": "{path}: no such {kind}. Check the path.",
    # Q1xx: the corpus
    # Q2xx: the base and the engine
    # Q3xx: the component
    # Q4xx: training
    # Q5xx: evaluation
}


class QLoRAError(Exception):
    """An error with a code and one line that says where and what to do.

    code (str): A key of MESSAGES, such as "Q001". It stands in the message too and never changes its meaning.
    where: The fields of the message. Line breaks in them become blanks.
    """

    def __init__(self, code: str, **where: object) -> None:
        self.code = code
        self.where = where
        fields = {name: " ".join(str(value).split()) for name, value in where.items()}
        super().__init__(f"[{code}] {MESSAGES[code].format(**fields)}")

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.code, self.where)


class InputError(QLoRAError, ValueError):
    """What the user gave is wrong: a file, a record, a setting."""


class RunError(QLoRAError, RuntimeError):
    """What was given is right, but the run cannot go on."""


def _rebuild(kind: type[QLoRAError], code: str, where: dict[str, object]) -> QLoRAError:
    return kind(code, **where)
