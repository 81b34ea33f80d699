"""What the frozen layers make of a corpus: computed once, kept on disk, read by every epoch and every later run."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import torch
from tqdm import tqdm

from spacy_qlora.engine.batching import by_budget
from spacy_qlora.engine.classifier import TokenClassifier
from spacy_qlora.engine.lora import BLOCK
from spacy_qlora.engine.window import Window

VERSION = 2  # of the code that computes them: to be raised where it rounds otherwise


def with_states(classifier: TokenClassifier, windows: Sequence[Window], budget: int, folder: Path) -> list[Window]:
    """The windows with their states, memory-mapped from a file in `folder` that is written where it is missing.

    The file is named after all that the states depend on. Texts can be guessed from it: only its owner may read it.
    budget: Pieces a batch.
    Raises OSError where the disk is full or the folder cannot be written.
    """
    lengths, size = classifier.lengths(windows), classifier.base.config.hidden_size
    path = folder / f"{_key(classifier, windows)}.states"
    count = sum(lengths) * size
    if not path.exists() or path.stat().st_size != count * classifier.base.dtype.itemsize:
        folder.mkdir(parents=True, exist_ok=True)
        _write(classifier, windows, budget, path)
    states = torch.from_file(str(path), shared=False, size=count, dtype=classifier.base.dtype).view(-1, size)
    return [replace(window, states=part) for window, part in zip(windows, states.split(lengths), strict=True)]


def mapped(windows: Sequence[Window], device: torch.device) -> int:
    """Bytes of cached states that a peak on `device` may count, though the system takes back their pages at need."""
    states = (window.states for window in windows if window.states is not None)
    return sum(each.nbytes for each in states) if device.type == "cpu" else 0


def _write(classifier: TokenClassifier, windows: Sequence[Window], budget: int, path: Path) -> None:
    """All windows' states, one after another; the file appears whole or not at all."""
    lengths, size = classifier.lengths(windows), classifier.base.config.hidden_size
    starts = [size * classifier.base.dtype.itemsize * start for start in accumulate(lengths, initial=0)]
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.touch(mode=0o600)
    try:
        with temporary.open("wb") as file, tqdm(total=sum(lengths), desc="Frozen layers", unit=" pieces") as bar:
            classifier.train()
            for chosen in by_budget(lengths, budget):
                batch = classifier.collate([windows[i] for i in chosen])
                states = classifier.frozen_states(batch).cpu().split([lengths[i] for i in chosen])
                for i, rows in zip(chosen, states, strict=True):
                    file.seek(starts[i])
                    file.write(rows.view(torch.uint8).numpy().data)
                    bar.update(lengths[i])
        try:
            temporary.replace(path)
        except PermissionError:  # on Windows, where another run has just written the same and mapped it
            if not path.exists():
                raise
    finally:
        temporary.unlink(missing_ok=True)


def _key(classifier: TokenClassifier, windows: Sequence[Window]) -> str:
    """SHA-256 over the base, its frozen layers and their attention, how they are computed, and the pieces."""
    base, frozen, first = classifier.base, classifier.frozen, classifier.unmasked_from
    causal = frozen if first is None else min(first, frozen)
    made_by = f"{base.info.fingerprint} {frozen} {causal} {base.dtype} {base.device.type} {BLOCK} {VERSION}\n"
    digest = hashlib.sha256(made_by.encode())
    for window in windows:
        digest.update(len(window).to_bytes(8, "little") + window.pieces.tobytes())
    return digest.hexdigest()
