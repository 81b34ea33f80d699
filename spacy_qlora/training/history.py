"""The evaluations of a run, a line of JSON each, for its learning curve."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from spacy_qlora.engine.files import write_whole
from spacy_qlora.engine.progress import Progress
from spacy_qlora.errors import InputError

FILE = "history.jsonl"


@dataclass(frozen=True)
class Evaluation:
    """epoch, step: Finished ones.  loss: Mean of a word since the evaluation before, in nats; over `words`.
    score: By which the best is chosen.  scores: On the dev split, as named in [training.score_weights].
    pieces, seconds: Trained and spent since the run began.  memory: Peak of the process so far, in bytes.
    """

    epoch: int
    step: int
    loss: float
    words: int
    score: float
    scores: Mapping[str, Any]
    pieces: int
    seconds: float
    memory: int


class History:
    """The file of a run, written whole each time.

    path (Path): The file.  start (Progress): Where the run begins. What stands in the file beyond that, by a run that
    was killed before its next checkpoint or by another one, is dropped with the first evaluation.
    """

    def __init__(self, path: Path, start: Progress) -> None:
        self.path = path
        done = start.step - start.due  # an evaluation that is due will be made again
        self.evaluations = [each for each in read_history(path) if each.step <= done] if start.step else []

    def add(self, progress: Progress, scores: Mapping[str, Any], memory: int) -> None:
        self.evaluations.append(
            Evaluation(
                epoch=progress.epoch,
                step=progress.step,
                loss=progress.loss,
                words=progress.words,
                score=progress.score,
                scores=scores,
                pieces=progress.pieces,
                seconds=round(progress.seconds, 1),
                memory=memory,
            )
        )
        write_whole(self.path, "".join(json.dumps(asdict(each)) + "\n" for each in self.evaluations))


def read_history(path: Path) -> list[Evaluation]:
    """RETURNS: The evaluations in order, none where there is no file. Raises InputError where it is damaged."""
    if not path.exists():
        return []
    evaluations = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            evaluations.append(Evaluation(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise InputError("Q510", path=path, line=number) from error
    return evaluations
