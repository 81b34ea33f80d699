"""Gold docs from a .spacy file."""

from __future__ import annotations

from pathlib import Path

from spacy.tokens import Doc, DocBin
from spacy.vocab import Vocab

from spacy_qlora.errors import InputError


def read_docs(path: Path, vocab: Vocab) -> list[Doc]:
    """The docs of a .spacy file, without those that have no token.

    path (Path): The file. vocab (Vocab): That of the pipeline which the docs are for.
    RAISES (InputError): No such file, no or a damaged DocBin, no docs, or no entity annotation in any.
    """
    if not path.is_file():
        raise InputError("Q001", path=path, kind=".spacy file")
    try:
        docs = [doc for doc in DocBin().from_disk(path).get_docs(vocab) if len(doc)]
    except OSError:
        raise
    except Exception as error:  # whatever msgpack and NumPy make of foreign bytes; their words may quote the file's
        raise InputError("Q502", path=path) from error
    if not docs:
        raise InputError("Q503", path=path)
    if not any(doc.has_annotation("ENT_IOB") for doc in docs):
        raise InputError("Q504", path=path)
    return docs
