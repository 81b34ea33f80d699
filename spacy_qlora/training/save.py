"""A pipeline on disk, whole or not at all, without the words of the texts that it was trained on."""

from __future__ import annotations

from pathlib import Path

from spacy.language import Language
from spacy.strings import StringStore

from spacy_qlora.engine.files import new_folder


def save_pipeline(nlp: Language, path: Path) -> None:
    """Like nlp.to_disk, but the vocabulary keeps only the strings that the components need, their labels.

    spaCy would write every string it ever met to vocab/strings.json, patients' names among them.
    """
    labels = {label for _, pipe in nlp.pipeline for label in getattr(pipe, "labels", ())}
    try:
        with new_folder(path, is_ours=lambda old: (old / "meta.json").exists()) as folder:
            nlp.to_disk(folder)
            StringStore(sorted(labels)).to_disk(folder / "vocab" / "strings.json")
    except OSError as error:
        error.filename = str(path)  # not the temporary one, or none at all for a full disk
        raise
