"""A pipeline, or its adapter alone, from a folder to the hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import srsly
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token
from huggingface_hub.utils import filter_repo_objects
from spacy import util

from spacy_qlora.errors import InputError
from spacy_qlora.hub.card import make_card
from spacy_qlora.hub.contents import CONFIG, META, PATTERNS, Contents
from spacy_qlora.hub.errors import repository_errors
from spacy_qlora.saved import CARD

STRINGS = "vocab/strings.json"
SCORES = ("ents_p", "ents_r", "ents_f", "ents_per_type")


def push(path: Path, repo: str, adapter_only: bool, private: bool, metrics: Path | None) -> tuple[str, int]:
    """Puts a pipeline, its files only, in place of what an earlier push left in the repository; in one commit.

    adapter_only: Push the files of its qlora_ner alone.  private: Make the repository private.
    metrics: What `evaluate` wrote, for the model card.
    RETURNS: Where it lies now, and how many files it has. Raises InputError or RunError where it cannot be pushed.
    """
    pipeline = Contents.read(path)
    meta = read_meta(path)
    contents = pipeline.alone() if adapter_only else pipeline
    if not adapter_only:
        contents.require_known()
        require_no_texts(path, meta)
    tokenizer = util.load_config(path / CONFIG)["nlp"]["tokenizer"] if adapter_only else None
    scores = read_scores(metrics) if metrics else None
    card = make_card(repo, list(contents.models.values()), meta, tokenizer, scores)
    if get_token() is None:
        raise InputError("Q804", repo=repo)
    api = HfApi()
    with repository_errors(repo):
        api.create_repo(repo, private=private or None, exist_ok=True)
        info = api.model_info(repo)
    if private and not info.private:
        raise InputError("Q809", repo=repo)
    files = contents.files()
    there = [sibling.rfilename for sibling in info.siblings or []]
    stale = set(filter_repo_objects(there, allow_patterns=PATTERNS)) - set(files)
    operations: list[CommitOperationAdd | CommitOperationDelete] = [
        CommitOperationAdd(CARD, str(card).encode()),
        *(CommitOperationAdd(name, contents.folder / name) for name in files),
        *(CommitOperationDelete(name) for name in sorted(stale)),
    ]
    with repository_errors(repo):
        done = api.create_commit(repo, operations, commit_message="Push by spacy-qlora")
    return done.commit_url, len(files) + 1


def read_meta(path: Path) -> dict[str, Any]:
    """Raises InputError where the pipeline has no meta.json, or a broken one."""
    try:
        meta = srsly.read_json(path / META)
        return {**meta, "lang": meta["lang"]}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError("Q800", path=path) from error


def require_no_texts(path: Path, meta: dict[str, Any]) -> None:
    """Raises InputError where the vocabulary lists more than labels: spaCy puts every word it has met there."""
    labels = {label for names in meta.get("labels", {}).values() for label in names}
    try:
        strings = set(srsly.read_json(path / STRINGS))
    except (OSError, ValueError, TypeError) as error:
        raise InputError("Q305", path=path / STRINGS) from error
    if strings - labels:
        raise InputError("Q802", path=path / STRINGS)


def read_scores(path: Path) -> dict[str, Any]:
    """Raises InputError where the file is not what `evaluate` writes."""
    try:
        scores = json.loads(path.read_text(encoding="utf8"))
        return {name: scores[name] for name in SCORES}
    except OSError:
        raise
    except (ValueError, TypeError, KeyError) as error:
        raise InputError("Q803", path=path) from error
