"""Lines of a text file, plain or gzipped."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from spacy_qlora.errors import InputError

GZIP_MAGIC = b"\x1f\x8b"
BOM = "\ufeff"


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yields each line with its number from 1, a byte order mark and the line's end included.

    Only a line feed ends a line: other separators that Unicode knows may stand in a record.
    RAISES (InputError): A line is not UTF-8, or the gzip data is cut short or damaged.
    """
    number = 0
    with ExitStack() as stack:
        try:
            for number, line in enumerate(_open(path, stack), 1):
                yield number, line.decode("utf8")
        except UnicodeDecodeError as error:
            raise InputError("Q101", path=path, line=number) from error
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise InputError("Q102", path=path, line=number + 1) from error


def _open(path: Path, stack: ExitStack) -> IO[bytes] | gzip.GzipFile:
    file = stack.enter_context(path.open("rb"))
    start = file.read(len(GZIP_MAGIC))
    file.seek(0)
    return stack.enter_context(gzip.open(file)) if start == GZIP_MAGIC else file
