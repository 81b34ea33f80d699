"""`python -m spacy qlora push`: a pipeline to the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spacy_qlora.cli.app import command


@command("push")
def push_cli(
    pipeline: Annotated[Path, typer.Argument(help="A pipeline folder, such as DIR/model-best.")],
    repo: Annotated[str, typer.Argument(help="The repository on the hub, such as user/en_clinical_ner.")],
    adapter_only: Annotated[
        bool, typer.Option("--adapter-only", help="Push adapter, head, labels and tokenizer alone.")
    ] = False,
    private: Annotated[bool, typer.Option("--private", help="Only you, or your organisation, may see it.")] = False,
    metrics: Annotated[
        Path | None,
        typer.Option(help="The scores for the model card, as 'evaluate' wrote them; else those in training."),
    ] = None,
) -> None:
    """Push a pipeline to the Hugging Face hub, with a model card.

    The repository is made if there is none. The base goes along only if the pipeline carries it.
    Log in first, by 'hf auth login' or HF_TOKEN, with a token that may write.
    """
    from wasabi import msg

    from spacy_qlora.hub.push import push

    url, count = push(pipeline, repo, adapter_only, private, metrics)
    msg.good(f"{url}: {count} files")
