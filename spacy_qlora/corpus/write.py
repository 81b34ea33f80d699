"""Files of a folder that appear together or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path


def write_files(folder: Path, files: Mapping[str, bytes], remove: Iterable[str]) -> None:
    """Writes all files beside their final names first, so that a full disk or a stop leaves what stood there before.

    files (Mapping[str, bytes]): Name and content of each.
    remove (Iterable[str]): Names of an earlier run's files, which the new ones would be mixed with.
    RAISES (OSError): Something cannot be written; `filename` says what.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts = {folder / f"{name}.part": content for name, content in files.items()}
    try:
        for part, content in parts.items():
            _write(part, content)
        for part in parts:
            part.replace(part.with_suffix(""))
    finally:
        for part in parts:
            part.unlink(missing_ok=True)
    for name in remove:
        (folder / name).unlink(missing_ok=True)


def _write(path: Path, content: bytes) -> None:
    try:
        with path.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        error.filename = str(path)  # a failed write does not say where
        raise
