"""A pipeline, or its adapter alone, from a folder to the hub."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import srsly
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelCard, ModelInfo, get_token
from huggingface_hub.utils import filter_repo_objects
from spacy import util

from spacy_qlora.errors import InputError
from spacy_qlora.hub.card import make_card
from spacy_qlora.hub.contents import CONFIG, PATTERNS, Contents, list_files
from spacy_qlora.hub.errors import refusals, repository_errors
from spacy_qlora.hub.meta import BROKEN, Meta, read_scores
from spacy_qlora.saved import CARD, HEAD

STRINGS = "vocab/strings.json"
Operation = CommitOperationAdd | CommitOperationDelete


def push(path: Path, repo: str, adapter_only: bool, private: bool, metrics: Path | None) -> tuple[str, int]:
    """Puts a pipeline in place of all files of its kinds in the repository that an earlier push filled; in one commit.

    adapter_only: Push the files of its qlora_ner alone.  private: Make the repository private.
    metrics: What `evaluate` wrote, for the model card.
    RETURNS: Where it lies now, and how many files were given. Raises InputError or RunError where it cannot be pushed,
    or the repository is of something else.
    """
    pipeline, meta = Contents.read(path), Meta.read(path)
    scores = read_scores(metrics) if metrics else None
    if not adapter_only:
        pipeline.require_known()
        require_no_texts(path, meta.labels)
    contents = pipeline.alone() if adapter_only else pipeline
    tokenizer = util.load_config(path / CONFIG)["nlp"]["tokenizer"] if adapter_only else None
    if get_token() is None:
        raise InputError("Q804", repo=repo)
    api = HfApi()
    with repository_errors(repo):
        url = api.create_repo(repo, private=private or None, exist_ok=True)
        there = api.model_info(url.repo_id)
    if private and not there.private:
        raise InputError("Q809", repo=repo)
    card = make_card(url.repo_id, list(contents.models.values()), meta, tokenizer, scores)
    given = operations(contents.folder, card, replaced(there))
    with repository_errors(repo), refusals(InputError("Q811", repo=repo)):
        api.create_commit(url.repo_id, given, commit_message="Push by spacy-qlora")
    return str(url), sum(isinstance(operation, CommitOperationAdd) for operation in given)


def replaced(there: ModelInfo) -> set[str]:
    """The names of the files there of a pipeline's kinds. Raises InputError where they are of another model."""
    names = set(filter_repo_objects([file.rfilename for file in there.siblings or []], allow_patterns=PATTERNS))
    if names and not any(PurePosixPath(name).name == HEAD for name in names):
        raise InputError("Q812", repo=there.id)
    return names


def operations(folder: Path, card: ModelCard, earlier: set[str]) -> list[Operation]:
    """What adds the card and the files of `folder`, and deletes what only the earlier push had."""
    names = list_files(folder)
    return [
        CommitOperationAdd(CARD, str(card).encode()),
        *(CommitOperationAdd(name, folder / name) for name in names),
        *(CommitOperationDelete(name) for name in sorted(earlier - set(names))),
    ]


def require_no_texts(path: Path, labels: frozenset[str]) -> None:
    """Raises InputError where the vocabulary lists more than labels: spaCy puts every word it has met there."""
    try:
        strings = set(srsly.read_json(path / STRINGS))
    except (OSError, *BROKEN) as error:
        raise InputError("Q305", path=path / STRINGS) from error
    if strings - labels:
        raise InputError("Q802", path=path / STRINGS)
