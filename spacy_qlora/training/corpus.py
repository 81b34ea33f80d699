"""The corpora of a run: what is wrong with them, and what will be missed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Corpus, Example  # noqa: F401, registers the corpus readers
from wasabi import msg

from spacy_qlora.component import QLoRANER
from spacy_qlora.errors import InputError
from spacy_qlora.text.tokenizer import FINE
from spacy_qlora.training.config import CorpusReader


def require_docbins(corpora: Mapping[str, Any]) -> None:
    """Raises InputError where spaCy's reader is to read a file that is none of its own: it would find nothing in it."""
    for corpus in corpora.values():
        file = Path(corpus.get("path") or "") if corpus.get("@readers") == "spacy.Corpus.v1" else Path()
        if file.is_file() and file.suffix != ".spacy":
            raise InputError("Q411", path=file, reason="no .spacy file")


def read_corpus(path: Path, split: str, corpus: CorpusReader, nlp: Language) -> Iterator[Example]:
    """Raises InputError where a file of the corpus is missing or damaged, or a text is longer than spaCy allows."""
    try:
        yield from corpus(nlp)
    except FileNotFoundError as error:
        raise InputError("Q411", path=error.filename or path, reason="no such file") from error
    except OSError:
        raise
    except Exception as error:  # msgpack, zlib and NumPy each raise their own
        if str(error).startswith("[E088]"):
            raise InputError("Q417", path=path, split=split) from error
        raise damaged(path, split) from error


def damaged(path: Path, split: str) -> InputError:
    return InputError("Q411", path=path, reason=f"the {split} corpus is damaged, or no .spacy file")


def check_train(nlp: Language, examples: Iterable[Example], texts: set[int]) -> Iterator[Example]:
    """Passes the train corpus on, and warns where gold entities begin or end inside a token of the pipeline.

    texts: Gets the hash of each text.
    """
    entities = cut = 0
    for example in examples:
        texts.add(hash(example.reference.text))
        entities += len(example.reference.ents)
        cut += len(example.reference.ents) - len(example.get_aligned_ents_and_ner()[0])
        yield example
    if cut:
        is_fine = nlp.config["nlp"]["tokenizer"].get("@tokenizers") == FINE
        advice = "" if is_fine else f" The tokenizer {FINE} splits at every punctuation mark."
        what = f"{cut:,} of {entities:,} gold entities of the train corpus begin or end inside a token"
        msg.warn(f"{what}: they are left out, and such ones cannot be found.{advice}")


def digest(docs: Iterable[Doc]) -> str:
    """SHA-256 over texts and entities."""
    found = hashlib.sha256()
    for doc in docs:
        entities = [(span.start_char, span.end_char, span.label_) for span in doc.ents]
        found.update(repr((doc.text, entities)).encode())
    return found.hexdigest()


def check_dev(path: Path, ner: QLoRANER, docs: Sequence[Doc], trained: Set[int]) -> None:
    """Warns where scores cannot tell which pipeline is the best. Raises InputError where there are no documents.

    trained: Hashes of the train corpus' texts.
    """
    if not docs:
        raise InputError("Q409", path=path, split="dev")
    if 2 * (known := sum(hash(doc.text) in trained for doc in docs)) > len(docs):
        msg.warn(
            f"{known:,} of {len(docs):,} docs of the dev corpus are in the train corpus, too: its scores mean little."
        )
    labels = {ent.label_ for doc in docs for ent in doc.ents}
    if not labels:
        msg.warn("The dev corpus holds no entity: all scores will be 0, and model-best what is evaluated first.")
    if unknown := ", ".join(sorted(labels - set(ner.labels))):
        msg.warn(f"The dev corpus has labels that the train corpus lacks, and that will not be found: {unknown}.")
