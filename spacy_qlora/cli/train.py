"""`python -m spacy qlora train`: the engine's loop on a spaCy config."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from spacy_qlora.cli.app import Code, command, read_overrides, stopped


@command("train", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def train_cli(
    context: typer.Context,
    config: Annotated[Path, typer.Argument(help="Config file, as for 'spacy train'.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of model-best and model-last.")],
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the run in the output folder stopped.")] = False,
    go_on: Annotated[
        bool, typer.Option("--continue", help="The same, if a run of this config and corpus is there; else start anew.")
    ] = False,
    code: Code = None,
) -> None:
    """Train a qlora_ner pipeline.

    Settings of the config are overridden as in 'spacy train': --training.max_epochs 5 --components.qlora_ner.r 8.
    """
    from spacy_qlora.engine.progress import StopRun
    from spacy_qlora.training.config import load_config
    from spacy_qlora.training.run import train

    try:
        train(config, load_config(config, read_overrides(context)), output, resume or go_on, require=resume)
    except StopRun as stop:
        stopped(stop, "Stopped, and the state is saved.", [*sys.argv[1:], *([] if resume or go_on else ["--resume"])])
