"""A component on disk and in bytes: safetensors and JSON only."""

from __future__ import annotations

import math
import os
import shutil
from dataclasses import asdict, replace
from pathlib import Path, PurePath
from typing import Any

import srsly
from safetensors.torch import load, load_file, save

from spacy_qlora.adapted import Tensors
from spacy_qlora.engine.files import save_tensors
from spacy_qlora.engine.info import ADAPTER_CONFIG, ADAPTER_WEIGHTS, CONFIG, INFO, TOKENIZER, WEIGHTS, BaseInfo
from spacy_qlora.engine.settings import ClassifierSettings, LoRASettings
from spacy_qlora.engine.tokenizer import make_tokenizer
from spacy_qlora.errors import InputError, QLoRAError
from spacy_qlora.model import NERModel

CFG, HEAD, ADAPTER, BASE = "cfg", "head.safetensors", "adapter", "base"
PARTS = {CFG, TOKENIZER, HEAD, INFO, f"{ADAPTER}/{ADAPTER_WEIGHTS}", f"{ADAPTER}/{ADAPTER_CONFIG}"}
CARD = "README.md"  # lies beside a component that was pushed to the hub without its pipeline
BASE_FILES = (INFO, CONFIG, WEIGHTS, TOKENIZER)


def to_disk(model: NERModel, folder: Path) -> None:
    """Writes what the model has: cfg always, the rest once it is trained, base/ if the settings ask for it.

    Raises InputError, before anything is written, where something else lies in the folder.
    """
    from spacy_qlora.engine.lora import save_adapter

    folder.mkdir(parents=True, exist_ok=True)
    _require_parts(folder)  # with what another component left there, nothing would load it again
    srsly.write_json(folder / CFG, config(model))
    if (trained := model.trained) and model.trained_on and model.tokenizer:
        adapter, head = trained
        save_adapter(folder / ADAPTER, model.settings.classifier, adapter, model.trained_on)
        save_tensors(head, folder / HEAD)
        (folder / TOKENIZER).write_text(model.tokenizer.to_str(), encoding="utf8")
        srsly.write_json(folder / INFO, asdict(model.trained_on))
        _carry(model, folder / BASE)


def _carry(model: NERModel, folder: Path) -> None:
    """Leaves the model's base in the folder, if the settings ask for it or it is used from there, and no other."""
    from spacy_qlora.engine.source import explicit_base

    if not model.settings.carry_base:
        used = [Path(explicit_base() or model.settings.base), *([model.carried] if model.carried else [])]
        if folder.resolve() not in [path.resolve() for path in used]:
            shutil.rmtree(folder, ignore_errors=True)  # of a component that was saved here before
    elif (source := model.base_folder().resolve()) != folder.resolve():
        folder.mkdir(exist_ok=True)
        for name in BASE_FILES:  # and nothing else that may lie there
            _link(source / name, folder / name)


def _link(source: Path, target: Path) -> None:
    """A second name for the file, else a copy: a base is large, and never changed in place."""
    target.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), target)  # of a link, a second name would be but another link
    except OSError:
        shutil.copyfile(source, target)


def from_disk(model: NERModel, folder: Path) -> NERModel:
    """A model with what `to_disk` wrote. Raises InputError where a part is missing, cut or wrong."""
    folder = folder.absolute()  # the base in it is opened later, perhaps from another working directory
    _require_parts(folder)
    try:
        fields, parts = srsly.read_json(folder / CFG), {}
        if fields["trained"]:
            parts = {
                "trained": (load_file(folder / ADAPTER / ADAPTER_WEIGHTS), load_file(folder / HEAD)),
                "tokenizer": make_tokenizer((folder / TOKENIZER).read_text(encoding="utf8"), folder),
                "trained_on": srsly.read_json(folder / INFO),
                "carried": folder / BASE if (folder / BASE / INFO).exists() else None,
            }
        return _restore(model, fields, **parts)
    except QLoRAError:
        raise
    except Exception as error:  # tokenizers raises nothing narrower
        raise InputError("Q305", path=folder) from error


def _require_parts(folder: Path) -> None:
    """Raises InputError where something lies in the folder that is no part of a component, or leads out of it."""
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        if path.is_dir() or any(part.startswith(".") for part in name.parts) or str(name) == CARD:
            continue
        if not is_part(name):
            raise InputError("Q308", path=path)
        target = path.resolve()
        # In the hub's cache, files are links into a folder of this name.
        if folder.resolve() not in target.parents and target.parent.name != "blobs":
            raise InputError("Q308", path=path)


def is_part(name: PurePath) -> bool:
    """Whether a component has a file of this name in its folder."""
    return name.as_posix() in PARTS or (len(name.parts) == 2 and name.parts[0] == BASE and name.name in BASE_FILES)


def to_bytes(model: NERModel) -> bytes:
    """RETURNS: All but the base."""
    message: dict[str, Any] = {CFG: config(model)}
    if (trained := model.trained) and model.trained_on and model.tokenizer:
        adapter, head = trained
        message[ADAPTER], message[HEAD] = save(dict(adapter)), save(dict(head))
        message[TOKENIZER], message[INFO] = model.tokenizer.to_str(), asdict(model.trained_on)
    return srsly.msgpack_dumps(message)


def from_bytes(model: NERModel, data: bytes) -> NERModel:
    """data: What `to_bytes` gave. Raises InputError where it is not."""
    try:
        message, parts = srsly.msgpack_loads(data), {}
        if message[CFG]["trained"]:
            parts = {
                "trained": (load(message[ADAPTER]), load(message[HEAD])),
                "tokenizer": make_tokenizer(message[TOKENIZER], model.name),
                "trained_on": message[INFO],
                "carried": model.carried,
            }
        return _restore(model, message[CFG], **parts)
    except QLoRAError:
        raise
    except Exception as error:  # tokenizers raises nothing narrower
        raise InputError("Q305", path=model.name) from error


def config(model: NERModel) -> dict[str, Any]:
    """What the trained weights depend on; the other settings stay with the pipeline's config, to be changed there."""
    return {
        "labels": list(model.labels),
        "seed": model.seed,
        "trained": model.trained_on is not None,
        "temperature": model.temperature,
        "threshold": model.threshold,
        "classifier": asdict(model.settings.classifier),
    }


def _restore(model: NERModel, fields: dict[str, Any], **parts: Any) -> NERModel:
    labels, temperature = fields["labels"], float(fields.get("temperature", 1.0))
    threshold = float(fields.get("threshold", 0.0))
    if not (isinstance(labels, list) and all(isinstance(label, str) and label for label in labels)):
        raise ValueError("labels")
    if len(set(labels)) < len(labels) or not (math.isfinite(temperature) and temperature > 0 and 0 <= threshold <= 1):
        raise ValueError("labels, temperature or threshold")
    settings = replace(model.settings, classifier=read_classifier(fields["classifier"]))
    if "trained_on" in parts:
        parts["trained_on"] = BaseInfo(**parts["trained_on"])
    if "trained" in parts:
        adapter, head = parts["trained"]
        require_rank(adapter, settings.classifier.lora.r)
        if head["weight"].shape[0] != 2 * len(labels) + 1:
            raise ValueError("sizes")
    seed = int(fields["seed"])
    return NERModel(model.name, settings, tuple(labels), seed, temperature, threshold, **parts)


def read_classifier(fields: dict[str, Any]) -> ClassifierSettings:
    """fields: What `asdict` made of the settings, back from JSON."""
    lora = {**fields["lora"], "target_modules": tuple(fields["lora"]["target_modules"])}
    return ClassifierSettings(**{**fields, "lora": LoRASettings(**lora)})


def require_rank(adapter: Tensors, r: int) -> None:
    """Raises ValueError where the weights are not those that cfg tells of; before any memory is taken by its word."""
    downs = [tensor for name, tensor in adapter.items() if ".lora_A." in name]
    if not downs or any(tensor.shape[:1] != (r,) for tensor in downs):
        raise ValueError("sizes")
