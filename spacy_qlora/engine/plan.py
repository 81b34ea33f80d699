"""What memory a run needs as configured, and the fastest way to do a training step within a budget."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

from spacy_qlora.engine.memory import MIB, Job, Shape
from spacy_qlora.errors import InputError

if TYPE_CHECKING:
    from spacy_qlora.engine.classifier import TokenClassifier
    from spacy_qlora.engine.settings import LoopSettings
    from spacy_qlora.engine.window import Window

# Estimates to rank the ways by time: a checkpointed layer adds a second forward pass; starting a micro-batch takes as
# long as so many pieces; dequantising takes a tenth of a layer. 8-bit moments cost little time but change the result a
# little, so they have to save a fifth.
SECOND_FORWARD, START, EIGHT_BIT, DEQUANTISING = 1 / 3, 200, 0.2, 0.1


def usual_job(classifier: TokenClassifier, windows: Sequence[Window], settings: LoopSettings) -> Job:
    """What the memory of a run depends on, as configured."""
    base, lengths = classifier.base, classifier.lengths(windows)
    return Job.usual(
        Shape.of(base.config),
        classifier.settings,
        settings,
        tags=classifier.head.out_features,
        length=max(lengths),
        words_a_piece=sum(len(window.words) for window in windows) / sum(lengths),
        size=base.dtype.itemsize,
        device=base.device.type,
    )


def fit(job: Job, accumulate: int, budget: int) -> tuple[Job, int]:
    """The fastest way to do a step of `accumulate` micro-batches of `job` in at most `budget` bytes.

    RETURNS: The job to do instead, and its micro-batches a step. Raises InputError where nothing fits.
    """
    ways = list(_ways(job))
    fitting = [way for way in ways if way.total() <= budget]
    if not fitting:
        least = min(way.total() for way in ways)
        raise InputError("Q414", budget=f"{budget / MIB:,.0f} MiB", least=f"{least / MIB:,.0f} MiB")
    best = min(fitting, key=_price)
    return best, math.ceil(job.pieces * accumulate / best.pieces)


def _ways(job: Job) -> Iterator[Job]:
    """Whole or smaller micro-batches, more or fewer layers checkpointed and kept dequantised, 8-bit moments or not."""
    pieces = job.pieces
    while True:
        smaller = replace(job, pieces=pieces, words=math.ceil(job.words * pieces / job.pieces))
        for checkpointed, resident in product(range(job.adapted + 1), range(job.shape.layers + 1)):
            for eight_bit in (False, True):
                yield replace(smaller, checkpointed=checkpointed, resident=resident, eight_bit=eight_bit)
        if pieces // 2 < job.length:
            return
        pieces //= 2


def _price(job: Job) -> float:
    """The price of a piece: how long it takes, as a multiple of the least, and that of 8-bit moments."""
    layers = 1 + SECOND_FORWARD * job.checkpointed / job.adapted - DEQUANTISING * job.resident / job.shape.layers
    return layers * (1 + START / job.pieces) + EIGHT_BIT * job.eight_bit
