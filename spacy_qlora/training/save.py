"""A pipeline on disk, whole or not at all, without the words of the texts that it was trained on."""

from __future__ import annotations

from pathlib import Path

from spacy.language import Language
from spacy.strings import StringStore

from spacy_qlora.engine.files import new_folder


def save_pipeline(nlp: Language, path: Path) -> None:
    """Like nlp.to_disk, but where qlora_ner is the only trained component, the vocabulary keeps its labels alone.

    spaCy would write every string it ever met to vocab/strings.json, patients' names among them. Other trained
    components may need some of these.
    """
    trained = [name for name, pipe in nlp.pipeline if getattr(pipe, "is_trainable", False)]
    try:
        with new_folder(path, is_ours=is_pipeline) as folder:
            nlp.to_disk(folder)
            if len(trained) == 1:
                StringStore(nlp.pipe_labels[trained[0]]).to_disk(folder / "vocab" / "strings.json")
    except OSError as error:
        error.filename = str(path)  # not the temporary one, or none at all for a full disk
        raise


def is_pipeline(path: Path) -> bool:
    return (path / "meta.json").exists()
