"""A pipeline on disk, whole or not at all, without the words of the texts that it was trained on."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from spacy.language import Language
from spacy.strings import StringStore

from spacy_qlora.component import QLoRANER
from spacy_qlora.engine.files import new_folder


def save_pipeline(nlp: Language, path: Path, keep: bool = False) -> None:
    """Like nlp.to_disk, but where every trained component is a qlora_ner, the vocabulary keeps their labels alone.

    spaCy would write every string it ever met to vocab/strings.json, patients' names among them. Other trained
    components may need some of these.

    keep: What else stands there, such as a licence, stays; otherwise nothing does.
    """
    trained: list[Any] = [pipe for _, pipe in nlp.pipeline if getattr(pipe, "is_trainable", False)]
    try:
        with new_folder(path, is_ours=is_pipeline) as folder:
            nlp.to_disk(folder)
            if all(isinstance(pipe, QLoRANER) for pipe in trained):
                labels = {label for pipe in trained for label in pipe.labels}
                StringStore(sorted(labels)).to_disk(folder / "vocab" / "strings.json")
            if keep:
                for file in path.iterdir():
                    if file.is_file() and not (folder / file.name).exists():
                        shutil.copy2(file, folder)
    except OSError as error:
        error.filename = str(path)  # not the temporary one, or none at all for a full disk
        raise


def is_pipeline(path: Path) -> bool:
    return (path / "meta.json").exists()
