"""`python -m spacy qlora evaluate`: entity scores of a pipeline on annotated docs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spacy_qlora.cli.app import Code, command


@command("evaluate")
def evaluate_cli(
    model: Annotated[str, typer.Argument(help="A pipeline folder, or an installed pipeline package.", metavar="MODEL")],
    data: Annotated[Path, typer.Argument(help="The gold docs, a .spacy file.", metavar="DATA")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The JSON file for the scores.")],
    train: Annotated[
        Path | None, typer.Option("--train", help="The training docs (.spacy), to score names unseen in them apart.")
    ] = None,
    code: Code = None,
) -> None:
    """Score a pipeline's entities: precision, recall and F1 per type, by spaCy's scorer and by seqeval."""
    from wasabi import msg

    from spacy_qlora.engine.files import require_writable, write_json
    from spacy_qlora.evaluation.evaluate import evaluate
    from spacy_qlora.evaluation.report import print_scores

    require_writable(output, data, train)
    scores = evaluate(model, data, train)
    print_scores(scores)
    write_json(output, scores)
    msg.good(f"Saved to {output}")
