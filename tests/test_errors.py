"""The table of messages and the code that raises them, read as source."""

from __future__ import annotations

import ast
import pickle
from collections.abc import Iterator
from pathlib import Path
from string import Formatter

import pytest

import spacy_qlora
from spacy_qlora.corpus.rules import Rule
from spacy_qlora.errors import MESSAGES, InputError, QLoRAError, RunError

PACKAGE = Path(spacy_qlora.__file__).parent
RULES = {rule.code for rule in Rule}  # raised by their rule, with the place


def raised() -> Iterator[tuple[str, str, set[str]]]:
    """(file and line, code, fields) of every InputError and RunError made in the package with its code written out."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("InputError", "RunError"):
                code = node.args[0]
                if isinstance(code, ast.Constant):
                    yield f"{path.name}:{node.lineno}", code.value, {keyword.arg or "" for keyword in node.keywords}


RAISED = list(raised())


def fields(code: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(MESSAGES[code]) if name is not None}


@pytest.mark.parametrize(("line", "code", "given"), RAISED, ids=[line for line, _, _ in RAISED])
def test_what_is_raised_has_a_message_and_its_fields(line: str, code: str, given: set[str]) -> None:
    assert code in MESSAGES
    assert given == fields(code)


def test_every_message_is_raised() -> None:
    assert MESSAGES.keys() - RULES == {code for _, code, _ in RAISED}
    assert MESSAGES.keys() >= RULES
    assert all(fields(code) == {"place"} for code in RULES)


@pytest.mark.parametrize("code", MESSAGES)
def test_a_message_is_one_line_of_sentences(code: str) -> None:
    assert "\n" not in MESSAGES[code]
    assert MESSAGES[code].endswith(".")


def test_an_error_is_one_line_whatever_its_fields_hold() -> None:
    error = InputError("Q003", path="a\nb", reason="two\r\n lines")
    assert str(error) == "[Q003] a b: two lines. Check the path and its permissions."
    assert error.code == "Q003"


@pytest.mark.parametrize(("kind", "builtin"), [(InputError, ValueError), (RunError, RuntimeError)])
def test_an_error_travels_between_processes(kind: type[QLoRAError], builtin: type[Exception]) -> None:
    error = pickle.loads(pickle.dumps(kind("Q304", name="qlora_ner")))
    assert type(error) is kind
    assert isinstance(error, builtin)
    assert (error.code, error.where, str(error)) == ("Q304", {"name": "qlora_ner"}, str(kind("Q304", name="qlora_ner")))
