"""`python -m spacy qlora search`: many runs, and the config of the best."""

from __future__ import annotations

import math
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Optional

import typer

from spacy_qlora.cli.app import Code, command, read_overrides, stopped

TRIALS = 20


@command("search", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def search_cli(
    context: typer.Context,
    config: Annotated[Path, typer.Argument(help="Config file, as for 'train'. Its own settings are the first trial.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="For the study, best.cfg, trials.csv and plots.")],
    space: Annotated[
        str, typer.Option(help="default, notes (the grid of the widespread recipe), or a file as above.")
    ] = "default",
    trials: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help=f"How many in all, those of earlier calls counted; {TRIALS} without --minutes."),
    ] = None,
    minutes: Annotated[Optional[float], typer.Option(min=0, help="Begin no trial after so many.")] = None,  # noqa: UP045
    memory: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Such as 8GiB: what cannot fit is not tried. As [qlora] memory_budget of the config."),
    ] = None,
    code: Code = None,
) -> None:
    """Search for the settings with the best score on the dev split.

    Run it again and it goes on; run it twice at a time and both share the trials. best.cfg trains as it is.
    Settings of the config are overridden as in 'train': --training.max_epochs 5.

    A space file looks like the config, with choices or ranges for values:

    \b
        [components.qlora_ner]
        r = [4, 8, 16, 32]
        bidirectional_from = ["auto", 0, null]
        [training.optimizer]
        adapter_lr = {"low": 1e-5, "high": 1e-3, "log": true}
    """
    from spacy_qlora.engine.progress import StopRun
    from spacy_qlora.errors import InputError
    from spacy_qlora.training.config import load_config

    if find_spec("optuna") is None:
        raise InputError("Q600")
    from spacy_qlora.search.search import search

    loaded = load_config(config, read_overrides(context))
    if memory:
        loaded.setdefault("qlora", {})["memory_budget"] = memory
    most = trials or (TRIALS if minutes is None else math.inf)
    try:
        search(config, loaded, output, space, most, math.inf if minutes is None else minutes)
    except StopRun as stop:
        stopped(stop, "Stopped; a trial that had begun will be run anew.", sys.argv[1:])
