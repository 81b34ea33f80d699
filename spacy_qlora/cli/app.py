"""The typer app behind `python -m spacy qlora`, and what all its commands share."""

from __future__ import annotations

import errno
import functools
import os
import shlex
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from spacy_qlora.errors import InputError, QLoRAError, RunError

app = typer.Typer(
    name="qlora",
    help="Clinical entity extraction with a 4-bit Mistral and LoRA adapters.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def import_code(path: Path | None) -> Path | None:
    """As `--code` of spaCy's commands, before the command itself runs."""
    from spacy.cli._util import import_code

    import_code(path)
    return path


Code = Annotated[
    Path | None,
    typer.Option("--code", "-c", callback=import_code, help="A Python file with registered functions of your own."),
]


def command(name: str, **settings: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Adds a function, `in_one_line`, to the app."""
    return lambda function: app.command(name, **settings)(in_one_line(function))


def in_one_line(function: Callable[..., None]) -> Callable[..., None]:
    """The function, as a command: an error that the user can mend becomes one line on stderr and exit code 1."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        # In any other error, some versions of typer would print the values of all variables, and so texts.
        os.environ["_TYPER_STANDARD_TRACEBACK"] = "1"
        try:
            function(*args, **kwargs)
        except QLoRAError as error:
            fail(error)
        except OSError as error:
            fail(os_error(error))
        except (MemoryError, RuntimeError) as error:
            from spacy_qlora.engine.memory import is_out_of_memory

            if not is_out_of_memory(error):
                raise
            fail(RunError("Q005"))

    return run


def read_overrides(context: typer.Context) -> dict[str, Any]:
    """The config settings among the arguments, as in 'spacy train'."""
    from click import NoSuchOption
    from spacy.cli._util import parse_config_overrides

    try:
        return parse_config_overrides(context.args)
    except (NoSuchOption, SystemExit) as error:
        raise typer.BadParameter("settings are overridden as --section.key value") from error


def os_error(error: OSError) -> QLoRAError:
    """The one-line error for what the operating system refused: a full disk, a missing file, no permission."""
    if error.errno == errno.ENOMEM:
        return RunError("Q005")
    path = error.filename or "output"
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return RunError("Q002", path=path)
    return InputError("Q003", path=path, reason=error.strerror or type(error).__name__)


def stopped(stop: BaseException, message: str, arguments: Sequence[str]) -> NoReturn:
    """Ends a command that a signal stopped, and says how to go on.

    stop: The StopRun, with the signal's number.  arguments: Of the command that goes on.
    """
    quote = subprocess.list2cmdline if os.name == "nt" else shlex.join
    typer.echo(f"{message} Go on with: {quote(['python', '-m', 'spacy', *arguments])}")
    # A scheduler that stops a job in good time is no failure; Ctrl-C also ends what would come after this command.
    raise typer.Exit(0 if stop.args == (signal.SIGTERM,) else 130) from None


def fail(error: QLoRAError) -> None:
    typer.echo(f"Error: {error}", err=True)
    raise typer.Exit(1)
