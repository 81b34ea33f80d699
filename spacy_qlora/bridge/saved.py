"""A transformer's model in bytes: one safetensors file with JSON in its header."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

from safetensors.torch import load, save

from spacy_qlora.bridge.adapted import AdaptedEncoder
from spacy_qlora.engine.info import BaseInfo
from spacy_qlora.engine.tokenizer import make_tokenizer
from spacy_qlora.errors import InputError, QLoRAError
from spacy_qlora.saved import read_classifier, require_rank

FIELDS = "spacy-qlora"  # the one entry of the header's metadata: several would come in random order


def to_bytes(adapted: AdaptedEncoder, width: int | None) -> bytes:
    """RETURNS: All but the base.  width: Of the states, if known."""
    adapter, settings = {}, adapted.settings
    fields: dict[str, Any] = {"width": width, "seed": adapted.seed, "classifier": asdict(settings.classifier)}
    if (trained := adapted.trained) and adapted.trained_on and adapted.tokenizer:
        adapter = dict(trained[0])
        fields |= {"trained_on": asdict(adapted.trained_on), "tokenizer": adapted.tokenizer.to_str()}
    return save(adapter, metadata={FIELDS: json.dumps(fields)})


def from_bytes(adapted: AdaptedEncoder, data: bytes) -> tuple[AdaptedEncoder, int | None]:
    """RETURNS: What `to_bytes` was given, with the settings of `adapted` that do not belong to the weights.

    Raises InputError where the data is something else.
    """
    try:
        fields, adapter = read_fields(data), load(data)
        settings = replace(adapted.settings, classifier=read_classifier(fields["classifier"]))
        parts: dict[str, Any] = {}
        if adapter:
            require_rank(adapter, settings.classifier.lora.r)
            parts = {
                "trained": (adapter, {}),
                "trained_on": BaseInfo(**fields["trained_on"]),
                "tokenizer": make_tokenizer(fields["tokenizer"], adapted.name),
            }
        return AdaptedEncoder(adapted.name, settings, int(fields["seed"]), **parts), fields["width"]
    except QLoRAError:
        raise
    except Exception as error:  # tokenizers raises nothing narrower
        raise InputError("Q305", path=adapted.name) from error


def read_fields(data: bytes) -> dict[str, Any]:
    """The JSON in the header of a safetensors file, which begins with its length in eight bytes."""
    end = 8 + int.from_bytes(data[:8], "little")
    return json.loads(json.loads(data[8:end])["__metadata__"][FIELDS])
