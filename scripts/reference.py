"""Writes docs/reference.md: every command with its options, every registered name, every error.

python scripts/reference.py
"""

from __future__ import annotations

import inspect
from configparser import ConfigParser
from pathlib import Path
from typing import Any

from typer.main import get_command

from spacy_qlora.cli import app
from spacy_qlora.errors import MESSAGES

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reference.md"
PROGRAM = "python -m spacy qlora"
INTRODUCTION = """# Commands, names, errors

Made from the code by `python scripts/reference.py`. The settings have [a page of their own](config.md).

## Commands

Every command has `--help`. Exit codes: 0 for done, 1 for wrong input or a failed check, 2 for wrong usage. `train` ends
with 130 after Ctrl-C, and with 0 after a SIGTERM that left it time to save its state.
"""
NAMES = """## Names

What spaCy finds by entry points, once the package is installed. A name that is released never changes.

| group | name |
|---|---|
"""
ERRORS = """## Errors

An error is one line, with a code that never changes its meaning. In Python it is an `InputError` (a `ValueError`) where
the input is wrong, or a `RunError` (a `RuntimeError`) where a run cannot go on; `error.code` is the code. In braces:
what the message names.

| code | message |
|---|---|
"""


def main() -> None:
    PAGE.write_text(render(), encoding="utf8")


def render() -> str:
    """The whole page."""
    commands = "\n".join(describe(name, command) for name, command in sorted(get_command(app).commands.items()))
    names = "".join(f"| `{group}` | `{name}` |\n" for group, name in registered())
    errors = "".join(f"| {code} | {cell(message)} |\n" for code, message in sorted(MESSAGES.items()))
    return f"{INTRODUCTION}\n{commands}\n{NAMES}{names}\n{ERRORS}{errors}"


def describe(name: str, command: Any) -> str:
    """A command's section. Its parts are read one by one: how they are laid out in --help changes with typer."""
    given = [param.metavar or param.name.upper() for param in command.params if not is_option(param)]
    settings = " [--section.key value ...]" if command.context_settings.get("ignore_unknown_options") else ""
    usage = f"{PROGRAM} {name} {' '.join(given)} [OPTIONS]{settings}"
    rows = "".join(f"| `{title(param)}` | {cell(param.help or '')}{default(param)} |\n" for param in command.params)
    return f"### {name}\n\n`{usage}`\n\n{inspect.cleandoc(command.help)}\n\n| | |\n|---|---|\n{rows}"


def is_option(param: Any) -> bool:
    return param.param_type_name == "option"


def title(param: Any) -> str:
    return ", ".join([*param.opts, *param.secondary_opts]) if is_option(param) else param.metavar or param.name.upper()


def default(param: Any) -> str:
    if param.required:
        return " Required."
    value = getattr(param.default, "value", param.default)  # of an enum
    return "" if value is None or value is False or callable(value) else f" Default: `{value}`."


def registered() -> list[tuple[str, str]]:
    """Group and name of each entry point."""
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf8")
    points = setup["options.entry_points"].items()
    return [(group, line.partition("=")[0].strip()) for group, lines in points for line in lines.strip().splitlines()]


def cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    main()
