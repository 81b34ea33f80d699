"""`python -m spacy qlora pull`: a pipeline from the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spacy_qlora.cli.app import command


@command("pull")
def pull_cli(
    repo: Annotated[str, typer.Argument(help="The repository on the hub, such as user/en_clinical_ner.")],
    out: Annotated[Path, typer.Argument(help="Folder for the pipeline or the adapter.", metavar="OUT_DIR")],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the hub.")] = None,
) -> None:
    """Pull a pipeline, or an adapter alone, from the Hugging Face hub.

    Nothing is taken that could hold code. HF_HUB_OFFLINE=1 keeps to the hub's local cache.
    """
    from wasabi import msg

    from spacy_qlora.hub.pull import pull

    contents = pull(repo, out, revision)
    labels = sorted({label for model in contents.models.values() for label in model.labels})
    msg.good(f"{out}: {', '.join(labels)}")
