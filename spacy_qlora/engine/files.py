"""Folders and files that appear whole or not at all."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from spacy_qlora.errors import InputError


def save_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Writes a safetensors file that others may read, where safetensors itself gives it to its owner alone.

    Raises OSError where the disk is full or the path cannot be written.
    """
    try:
        save_file(dict(tensors), path, metadata={"format": "pt", **(metadata or {})})
    except SafetensorError as error:
        if code := re.search(r"os error (\d+)", str(error)):
            raise OSError(int(code[1]), os.strerror(int(code[1])), str(path)) from error
        raise
    path.chmod(0o644)


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
