"""Folders and files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import glob
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from spacy_qlora.errors import InputError


def save_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Writes a safetensors file with the usual permissions, where safetensors itself gives it to its owner alone.

    Raises OSError where the disk is full or the path cannot be written.
    """
    try:
        save_file(dict(tensors), path, metadata={"format": "pt", **(metadata or {})})
    except SafetensorError as error:
        if code := re.search(r"os error (\d+)", str(error)):
            number = int(code[1])  # on Windows a code of its own, which OSError translates where it comes last
            raise OSError(number, os.strerror(number), str(path), number) from error
        raise
    path.chmod(0o666 & ~current_umask())


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def require_place(path: Path, is_ours: Callable[[Path], bool]) -> None:
    """Raises InputError where something stands at `path` that this program did not write.

    is_ours: Whether an existing folder is one that it wrote and may replace.
    """
    if path.exists() and not (path.is_dir() and (is_ours(path) or not any(path.iterdir()))):
        raise InputError("Q004", path=path)


def make_folder(path: Path) -> None:
    """Makes a folder to write to, so that a wrong path is known before the work and not after it.

    Raises OSError where it cannot be made or written to.
    """
    path.mkdir(parents=True, exist_ok=True)
    if not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))


def require_writable(path: Path, *inputs: Path | None) -> None:
    """Makes the folder of a file to come, so that a wrong path is known before the work and not after it.

    inputs (Path | None): Files that it must not take the place of.
    RAISES (InputError): It is one of them. (OSError): The path is a folder, or its folder cannot be made or written to.
    """
    make_folder(path.parent)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if any(given and given.exists() and path.exists() and path.samefile(given) for given in inputs):
        raise InputError("Q006", path=path)


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yields the path of a temporary file that takes the place of `path` when the block ends without an error.

    A device, such as /dev/null, is yielded itself. Raises OSError, with the path, where it cannot be written.
    """
    if path.exists() and not path.is_file():
        yield path
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """Writes a file: whatever stood at the path stays until the new one is whole. Raises as `new_file`."""
    with new_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: object) -> None:
    """As `write_whole`. Raises ValueError where a figure is no number, too."""
    write_whole(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


@contextmanager
def new_folder(path: Path, is_ours: Callable[[Path], bool]) -> Iterator[Path]:
    """Yields a temporary folder beside `path` that takes its place when the block ends without an error.

    is_ours: As in `require_place`, which it calls.
    """
    path = path.absolute()
    bring_back(path)
    require_place(path, is_ours)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        temporary.chmod(0o777 & ~current_umask())
        yield temporary
        replace_folder(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def aside_of(path: Path) -> Path:
    """Where a folder stands for a moment while another takes its place."""
    return path.with_name(f".{path.name}.old")


def bring_back(path: Path) -> None:
    """Ends what a kill between the two renames of `replace_folder` left undone."""
    aside = aside_of(path)
    if aside.exists() and not path.exists():
        aside.rename(path)


def replace_folder(new: Path, path: Path) -> None:
    """Renames `new` to `path`; what stood there stands aside for a moment, and comes back if that fails."""
    aside = aside_of(path)
    make_way(aside)
    if path.exists():
        rename(path, aside)
    try:
        rename(new, path)
    except OSError:
        if aside.exists():
            rename(aside, path)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def make_way(folder: Path) -> None:
    """Removes a folder, or gives it another name where Windows keeps files in it that a program has mapped."""
    for left in (folder, *folder.parent.glob(f"{glob.escape(folder.name)}.*")):
        shutil.rmtree(left, ignore_errors=True)
    if folder.exists():
        rename(folder, folder.with_name(f"{folder.name}.{time.time_ns()}"))


def rename(folder: Path, target: Path) -> None:
    """As `Path.rename`; tried for two seconds on Windows, where a virus scanner may have new files open."""
    for _ in range(20 if os.name == "nt" else 0):
        with contextlib.suppress(PermissionError):
            folder.rename(target)
            return
        time.sleep(0.1)
    folder.rename(target)
