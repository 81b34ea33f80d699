"""A pipeline, or an adapter alone, from the hub or its cache to a folder."""

from __future__ import annotations

import shutil
from pathlib import Path

from huggingface_hub import HfApi

from spacy_qlora.engine.files import new_folder, require_place
from spacy_qlora.errors import InputError, QLoRAError
from spacy_qlora.hub.contents import PATTERNS, Contents, list_files
from spacy_qlora.hub.errors import refusals, repository_errors


def pull(repo: str, out: Path, revision: str | None = None) -> Contents:
    """Writes what was pushed to `out`, checked and whole or not at all; other files of the repository are left out.

    With HF_HUB_OFFLINE, or without a network, it comes from the hub's local cache.
    Raises InputError or RunError where it cannot be had or is no pipeline or adapter of qlora_ner.
    """
    require_place(out, is_ours)
    with repository_errors(repo), refusals(InputError("Q808", repo=repo, reason="a name leads out of it")):
        snapshot = Path(HfApi().snapshot_download(repo, revision=revision, allow_patterns=PATTERNS))
    with new_folder(out, is_ours) as folder:
        try:
            for name in list_files(snapshot):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(snapshot / name, folder / name)
            contents = Contents.read(folder)
        except QLoRAError as error:
            raise InputError("Q808", repo=repo, reason=error.code) from error
    return contents


def is_ours(path: Path) -> bool:
    """Whether all that lies there belongs to a pipeline or an adapter."""
    try:
        known = set(list_files(path))
    except InputError:
        return False
    return all(file.relative_to(path).as_posix() in known for file in path.rglob("*") if file.is_file())
