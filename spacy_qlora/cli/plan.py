"""`python -m spacy qlora plan`: what a training run costs in memory, before it starts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from spacy_qlora.cli.app import Code, command, read_overrides


@command("plan", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def plan_cli(
    context: typer.Context,
    config: Annotated[Path, typer.Argument(help="Config file, as for 'train'.")],
    memory: Annotated[Optional[str], typer.Option(help="The budget, such as 8GiB.")] = None,  # noqa: UP045
    code: Code = None,
) -> None:
    """Compute what training with a config costs in memory, by item; with a budget, what would fit into it.

    Reads the base's config.json, not its weights: a folder that holds nothing else will do.
    Settings of the config are overridden as in 'train': --components.qlora_ner.r 8 --qlora.batch_pieces 512.
    """
    from spacy_qlora.training.config import load_config
    from spacy_qlora.training.plan import plan

    print(plan(config, load_config(config, read_overrides(context)), memory))
