"""The state of a run, in one safetensors file that appears whole or not at all, and the one before it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from bitsandbytes.optim import AdamW8bit
from safetensors import SafetensorError, safe_open
from torch import Tensor

from spacy_qlora.engine.classifier import TokenClassifier
from spacy_qlora.engine.files import save_tensors
from spacy_qlora.engine.optimizer import AdapterOptimizer
from spacy_qlora.errors import InputError

FILE, BEFORE = "checkpoint.safetensors", "checkpoint.before.safetensors"


def save_checkpoint(
    folder: Path,
    classifier: TokenClassifier,
    optimizer: AdapterOptimizer,
    fixed: Mapping[str, object],
    progress: Mapping[str, object],
) -> None:
    """fixed: What the run is made of, to be the same when it goes on.  progress: Where it stands."""
    tensors: dict[str, Tensor] = {"random": torch.get_rng_state()}
    if classifier.device.type == "cuda":
        tensors["random.cuda"] = torch.cuda.get_rng_state(classifier.device)
    for name, parameter in classifier.named_trained():
        tensors[name] = parameter.detach()
        for key, value in optimizer.adamw.state[parameter].items():
            tensors[f"{name}:{key}"] = torch.as_tensor(value)
    metadata = {"fixed": json.dumps(fixed), "progress": json.dumps(progress)}
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f"{FILE}.part"
    # Copies: bitsandbytes shares a table among the moments.
    copies = {name: tensor.cpu().contiguous().clone() for name, tensor in tensors.items()}
    try:
        save_tensors(copies, temporary, metadata)
    except OSError:  # of a full disk, which what was written would keep full
        temporary.unlink(missing_ok=True)
        raise
    if (folder / FILE).exists():
        (folder / FILE).replace(folder / BEFORE)
    temporary.replace(folder / FILE)


def load_checkpoint(
    folder: Path, classifier: TokenClassifier, optimizer: AdapterOptimizer, fixed: Mapping[str, object]
) -> tuple[dict[str, Any], bool]:
    """Sets weights, moments, schedule and random state, by the last checkpoint that is whole.

    RETURNS: The progress that was saved, and whether it is the latest.
    Raises InputError where there is no checkpoint, all are damaged, or `fixed` differs.
    """
    paths = [folder / name for name in (FILE, BEFORE) if (folder / name).exists()]
    if not paths:
        raise InputError("Q403", path=folder / FILE)
    for path in paths:
        try:
            tensors, saved, progress = _read(path)
            break
        except (OSError, ValueError, KeyError, TypeError, SafetensorError):
            continue
    else:
        raise InputError("Q404", path=paths[0])
    now = json.loads(json.dumps(fixed))
    if changed := differing(now, saved):
        raise InputError("Q405", path=path, changed=", ".join(changed))
    with torch.no_grad():
        for name, parameter in classifier.named_trained():
            parameter.copy_(tensors[name])
            moments = {key.rpartition(":")[2]: tensor for key, tensor in tensors.items() if key.startswith(f"{name}:")}
            # Copies: Windows would not replace a file that is still mapped.
            state: dict[str, Any] = {key: value.to(parameter.device, copy=True) for key, value in moments.items()}
            if isinstance(optimizer.adamw, AdamW8bit):
                state["step"] = int(state["step"])
            optimizer.adamw.state[parameter] = state
    torch.set_rng_state(tensors["random"])
    if "random.cuda" in tensors and classifier.device.type == "cuda":
        torch.cuda.set_rng_state(tensors["random.cuda"], classifier.device)
    optimizer.go_to(progress["step"])
    return progress, path.name == FILE


def differing(now: Mapping[str, Any], saved: Mapping[str, Any]) -> list[str]:
    """Names in `now` that have another value in `saved`; within groups that both have, as "group.name"."""
    names: list[str] = []
    for name, value in now.items():
        before = saved.get(name)
        if isinstance(value, dict) and isinstance(before, dict):
            names += [f"{name}.{inner}" for inner in differing(dict.fromkeys(before) | value, before)]
        elif value != before:
            names.append(name)
    return names


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Any]]:
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no mapping
    return tensors, json.loads(metadata["fixed"]), json.loads(metadata["progress"])
