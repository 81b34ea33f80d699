"""`python -m spacy qlora calibrate`: probabilities that mean what they say, and the threshold for the best F1."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spacy_qlora.cli.app import Code, command


@command("calibrate")
def calibrate_cli(
    model: Annotated[Path, typer.Argument(help="A pipeline folder; its temperature and threshold are set anew.")],
    data: Annotated[Path, typer.Argument(help="Gold docs that it was not trained on (.spacy), best the dev split.")],
    code: Code = None,
) -> None:
    """Set the temperature of a pipeline's probabilities, so that of the entities found with 0.8, 8 in 10 are right.

    And the threshold with the best F1: less probable entities are left out, unless the component's own setting
    'threshold' names another. 'spacy qlora train' does both at its end.
    """
    from spacy.training import Example

    from spacy_qlora.component import QLoRANER
    from spacy_qlora.errors import InputError
    from spacy_qlora.evaluation.evaluate import load_task
    from spacy_qlora.training.calibrate import calibrate_pipeline

    if not model.is_dir():
        raise InputError("Q001", path=model, kind="pipeline folder")
    nlp, docs = load_task(str(model), data)
    if not any(isinstance(pipe, QLoRANER) for _, pipe in nlp.pipeline):
        raise InputError("Q800", path=model)
    calibrate_pipeline(nlp, [Example(nlp.make_doc(gold.text), gold) for gold in docs], model)
