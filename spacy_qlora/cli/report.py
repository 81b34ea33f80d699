"""`python -m spacy qlora report`: an HTML page on how well a pipeline does, and where it fails."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spacy_qlora.cli.app import Code, command


@command("report")
def report_cli(
    model: Annotated[str, typer.Argument(help="A pipeline folder, or an installed pipeline package.", metavar="MODEL")],
    data: Annotated[Path, typer.Argument(help="The gold docs, a .spacy file.", metavar="DATA")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The HTML file to write.")],
    train: Annotated[
        Path | None, typer.Option("--train", help="The training docs (.spacy), to score names unseen in them apart.")
    ] = None,
    history: Annotated[
        Path | None,
        typer.Option("--history", help="The history.jsonl of the training; by default, that beside the pipeline."),
    ] = None,
    search: Annotated[
        Path | None, typer.Option("--search", help="The folder of a 'spacy qlora search', to show its trials.")
    ] = None,
    text: Annotated[
        bool, typer.Option("--text/--no-text", help="Draw errors in their text, or only tell where they stand.")
    ] = True,
    limit: Annotated[int, typer.Option("--limit", min=1, help="The most errors to show one by one.")] = 500,
    code: Code = None,
) -> None:
    """Write a report on a pipeline: one HTML file that needs no network.

    Scores with their intervals, by type, length and novelty of a name; types taken for others; errors by kind, drawn
    gold beside predicted; how far probabilities can be believed; the curve of the training. With text, the file is as
    confidential as the data.
    """
    from wasabi import msg

    from spacy_qlora.engine.files import require_writable, write_whole
    from spacy_qlora.report.build import Sources, build

    require_writable(output, data, train, history)
    write_whole(output, build(Sources(model, data, train, history, search), text, limit))
    msg.good(f"Saved to {output}")
