"""Windows into batches by a budget of pieces, and what stands where in a batch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from spacy_qlora.engine.window import Window

SHORTEST = 8  # pieces on average, of a full batch: kernels for attention take memory for each window, however short
PADDING = 1.25  # times the budget of a batch: most pieces that its attention computes, padding counted
POOL = 64  # batches' worth of windows that are sorted by length together: near enough in length, and still mixed


@dataclass(frozen=True)
class Layout:
    """How attention sees the rows of a batch, one window after another: as a rectangle, padded to the right.

    windows, width: Its sides.  All else is None where nothing is padded:
    mask: [windows, width], True at real pieces.  padding: The places, counted through the rectangle, of all others.
    places: [pieces] the place of each row.  sources: [windows * width] the row at each place, any at padding.
    """

    windows: int
    width: int
    mask: Tensor | None = None
    padding: Tensor | None = None
    places: Tensor | None = None
    sources: Tensor | None = None

    @classmethod
    def of(cls, lengths: Sequence[int]) -> Layout:
        """lengths: Pieces of each window."""
        windows, width = len(lengths), max(lengths)
        mask = torch.arange(width) < torch.tensor(lengths)[:, None]
        if mask.all():
            return cls(windows, width)
        flat = mask.flatten()
        return cls(windows, width, mask, (~flat).nonzero()[:, 0], flat.nonzero()[:, 0], flat.cumsum(0) - 1)

    def spread(self, rows: Tensor, zero: bool = False) -> Tensor:
        """rows: [rows, any], of which some may stand after the last piece.  zero: Whether padding has to be 0.

        RETURNS: [windows * width, any], with any finite values at padding otherwise.
        """
        if self.sources is None or self.padding is None:
            return rows[: self.windows * self.width]
        rectangle = rows.index_select(0, self.sources)
        return rectangle.index_fill_(0, self.padding, 0) if zero else rectangle

    def collect(self, rectangle: Tensor, rows: int) -> Tensor:
        """The way back from `spread`. RETURNS: [rows, any], with zeros after the last piece."""
        found = rectangle if self.places is None else rectangle.index_select(0, self.places)
        return pad(found, (0, 0, 0, rows - len(found))) if rows > len(found) else found

    def to(self, device: torch.device) -> Layout:
        return replace(self, **_moved(self, device))


@dataclass(frozen=True)
class Batch:
    """Windows one after another.

    pieces: [pieces] ids.  layout: Which belong to one window.
    read: [read] which pieces are read, each once.  words: [words * reads] which of those each word is read at.
    tags: [words] or None.  states: [pieces, hidden] what the frozen layers make of them, or None.
    """

    pieces: Tensor
    layout: Layout
    read: Tensor
    words: Tensor
    tags: Tensor | None
    states: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        return replace(self, **_moved(self, device))


def _moved(batch: Batch | Layout, device: torch.device) -> dict[str, Any]:
    values = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return {name: value.to(device) for name, value in values.items() if isinstance(value, Tensor | Layout)}


def rounded(pieces: int) -> int:
    """Rows to compute for so many pieces: few different numbers, at most 15 or an eighth more.

    Kernels for matrix products are compiled for each new number of rows, at the cost of several layers.
    """
    step = max(16, 2 ** (pieces.bit_length() - 4))
    return math.ceil(pieces / step) * step


def collate(windows: Sequence[Window], first: int | None = None) -> Batch:
    """windows: At least one.  first: A piece to put before each window, the base's begin-of-text."""
    lead = np.array([] if first is None else [first], dtype=np.int64)
    lengths = [len(lead) + len(window) for window in windows]
    starts = accumulate(lengths, initial=len(lead))
    positions = [window.positions.ravel() + start for window, start in zip(windows, starts, strict=False)]
    read, words = np.unique(np.concatenate(positions), return_inverse=True)
    tags = [window.tags for window in windows if window.tags is not None]
    states = [window.states for window in windows if window.states is not None]
    return Batch(
        pieces=torch.from_numpy(np.concatenate([part for window in windows for part in (lead, window.pieces)])),
        layout=Layout.of(lengths),
        read=torch.from_numpy(read),
        words=torch.from_numpy(words),
        tags=torch.from_numpy(np.concatenate(tags)) if tags else None,
        states=torch.cat(states) if states else None,
    )


def by_budget(lengths: Sequence[int], budget: int, order: Sequence[int] | None = None) -> Iterator[list[int]]:
    """Cuts windows, in the given order, into batches of at most `budget` pieces, and at least one window.

    With padding, a batch of several has at most `PADDING` times as many; and of windows, an eighth as many.
    lengths: Pieces of each window.  order: Their numbers; by falling length if not given, the largest first.
    """
    batch: list[int] = []
    widest = pieces = 0
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]) if order is None else order:
        widest = max(widest, lengths[i])
        pieces += lengths[i]
        count = len(batch) + 1
        if batch and (pieces > budget or widest * count > PADDING * budget or count * SHORTEST > budget):
            yield batch
            batch, widest, pieces = [], lengths[i], lengths[i]
        batch.append(i)
    if batch:
        yield batch


def shuffled(lengths: Sequence[int], budget: int, generator: torch.Generator) -> list[list[int]]:
    """One epoch's batches in random order, each of windows of about the same length."""
    order = torch.randperm(len(lengths), generator=generator).tolist()
    pool = max(1, round(POOL * budget * len(lengths) / max(sum(lengths), 1)))
    batches: list[list[int]] = []
    for start in range(0, len(order), pool):
        near = sorted(order[start : start + pool], key=lambda i: lengths[i])
        batches.extend(by_budget(lengths, budget, near))
    return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]
