"""Windows into batches by a budget of pieces, padding counted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from spacy_qlora.engine.window import Window

POOL = 64  # batches' worth of windows that are sorted by length together: near enough in length, and still mixed


@dataclass(frozen=True)
class Batch:
    """Windows side by side, padded to the right.

    pieces: [batch, pieces] ids.  mask: [batch, pieces], True at real pieces; None where nothing is padded.
    positions: [words] where each word is read, counted through the flattened [batch * pieces].  tags: [words] or None.
    states: [batch * pieces, hidden] what the frozen layers make of them, or None.
    """

    pieces: Tensor
    mask: Tensor | None
    positions: Tensor
    tags: Tensor | None
    states: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        values = (getattr(self, field.name) for field in fields(self))
        return Batch(*(None if value is None else value.to(device) for value in values))  # type: ignore[arg-type]


def collate(windows: Sequence[Window], first: int | None = None) -> Batch:
    """windows: At least one.  first: A piece to put before each window, the base's begin-of-text."""
    lead = [] if first is None else [first]
    lengths = np.array([len(window) for window in windows]) + len(lead)
    width = int(lengths.max())
    pieces = np.zeros((len(windows), width), dtype=np.int64)
    for row, window in zip(pieces, windows, strict=True):
        row[: len(lead)] = lead
        row[len(lead) : len(lead) + len(window)] = window.pieces
    positions = [window.positions + len(lead) + i * width for i, window in enumerate(windows)]
    tags = [window.tags for window in windows if window.tags is not None]
    states = [window.states for window in windows if window.states is not None]
    return Batch(
        pieces=torch.from_numpy(pieces),
        mask=None if (lengths == width).all() else torch.arange(width) < torch.from_numpy(lengths)[:, None],
        positions=torch.from_numpy(np.concatenate(positions)),
        tags=torch.from_numpy(np.concatenate(tags)) if tags else None,
        states=pad_sequence(states, batch_first=True).flatten(0, 1) if states else None,
    )


def by_budget(lengths: Sequence[int], budget: int, order: Sequence[int] | None = None) -> Iterator[list[int]]:
    """Cuts windows, in the given order, into batches of at most `budget` pieces with padding, and at least one window.

    lengths: Pieces of each window.  order: Their numbers; by falling length if not given, the largest first.
    """
    batch: list[int] = []
    widest = 0
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]) if order is None else order:
        widest = max(widest, lengths[i])
        if batch and widest * (len(batch) + 1) > budget:
            yield batch
            batch, widest = [], lengths[i]
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
