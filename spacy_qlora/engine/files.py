"""Folders and files that appear whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from spacy_qlora.errors import InputError


@contextmanager
def new_folder(path: Path, is_ours: Callable[[Path], bool]) -> Iterator[Path]:
    """Yields a temporary folder beside `path` that takes its place when the block ends without an error.

    is_ours: Whether an existing folder at `path` is one that this program wrote and may replace.
    Raises InputError where something else stands at `path`.
    """
    path = path.absolute()
    if path.exists() and not (path.is_dir() and (is_ours(path) or not any(path.iterdir()))):
        raise InputError("Q004", path=path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        temporary.chmod(0o755)
        yield temporary
        replace_folder(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def replace_folder(new: Path, path: Path) -> None:
    """Renames `new` to `path`; a reader finds the old folder or the new one, never a mixture."""
    if path.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
        path.rename(old / "old")
        new.rename(path)
        shutil.rmtree(old, ignore_errors=True)
    else:
        new.rename(path)
