"""A pipeline on disk, whole or not at all, without the words of the texts that it was trained on."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from spacy.language import Language
from spacy.strings import StringStore

from spacy_qlora.component import QLoRANER
from spacy_qlora.engine.files import new_folder

STRINGS = Path("vocab", "strings.json")


def save_pipeline(nlp: Language, path: Path, strings: Iterable[str] = (), keep: bool = False) -> None:
    """Like nlp.to_disk, but the vocabulary keeps the labels of each qlora_ner alone, or `strings` with them.

    spaCy would write every string it ever met to vocab/strings.json, patients' names among them.

    strings: Of before any text was read. They are kept where there are other trained components, which may need them.
    keep: What else stands there, such as a licence, stays; otherwise nothing does.
    """
    trained: list[Any] = [pipe for _, pipe in nlp.components if getattr(pipe, "is_trainable", False)]
    own = [pipe for pipe in trained if isinstance(pipe, QLoRANER)]
    words = {label for pipe in own for label in pipe.labels} | (set() if len(own) == len(trained) else set(strings))
    try:
        with new_folder(path, is_ours=is_pipeline) as folder:
            nlp.to_disk(folder)
            StringStore(sorted(words)).to_disk(folder / STRINGS)
            if keep:
                for item in path.iterdir():
                    if (folder / item.name).exists():
                        continue
                    if item.is_dir():
                        shutil.copytree(item, folder / item.name, symlinks=True)
                    else:
                        shutil.copy2(item, folder / item.name, follow_symlinks=False)
    except OSError as error:
        error.filename = str(path)  # not the temporary one, or none at all for a full disk
        raise


def is_pipeline(path: Path) -> bool:
    return (path / "meta.json").exists()
