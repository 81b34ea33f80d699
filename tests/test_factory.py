"""What a config says of the component."""

from __future__ import annotations

from pathlib import Path

import pytest
import spacy
from confection import ConfigValidationError
from spacy.language import Language

from spacy_qlora.component import QLoRANER
from spacy_qlora.engine.settings import LINEARS
from spacy_qlora.errors import InputError
from spacy_qlora.factory import DEFAULTS


def add(**config: object) -> QLoRANER:
    pipe = spacy.blank("en").add_pipe("qlora_ner", config=config)
    assert isinstance(pipe, QLoRANER)
    return pipe


def test_defaults() -> None:
    settings = add().settings
    assert settings.base == "smollm2-135m"
    assert settings.classifier.lora.target_modules == LINEARS
    assert (settings.classifier.layers, settings.classifier.bidirectional_from) == (None, "auto")
    assert (settings.classifier.pooling, settings.classifier.label_smoothing) == ("first_last", 0.1)
    assert (settings.compute_dtype, settings.device, settings.carry_base) == ("auto", "auto", False)


def test_every_setting_reaches_its_place(tmp_path: Path) -> None:
    given = {
        "base": str(tmp_path), "r": 3, "alpha": 5.0, "dropout": 0.25, "target_modules": ["q_proj"], "layers": 2,
        "adapted_layers": 1, "bidirectional_from": None, "pooling": "last", "label_smoothing": 0.25,
        "compute_dtype": "float32", "device": "cpu", "max_pieces": 64, "overlap": 8, "batch_pieces": 128,
        "fold": False, "earlier_ents": "keep", "threshold": 0.5, "spans_key": "sc",
        "carry_base": True,
    }  # fmt: skip
    assert given.keys() | {"scorer"} == DEFAULTS.keys()
    settings = add(**given).settings
    classifier, lora = settings.classifier, settings.classifier.lora
    assert {
        "base": settings.base, "r": lora.r, "alpha": lora.alpha, "dropout": lora.dropout,
        "target_modules": list(lora.target_modules), "layers": classifier.layers,
        "adapted_layers": classifier.adapted_layers, "bidirectional_from": classifier.bidirectional_from,
        "pooling": classifier.pooling, "label_smoothing": classifier.label_smoothing,
        "compute_dtype": settings.compute_dtype,
        "device": settings.device, "max_pieces": settings.max_pieces, "overlap": settings.overlap,
        "batch_pieces": settings.batch_pieces, "fold": settings.fold, "earlier_ents": settings.earlier_ents,
        "threshold": settings.threshold, "spans_key": settings.spans_key,
        "carry_base": settings.carry_base,
    } == given  # fmt: skip


@pytest.mark.parametrize("wrong", [{"rank": 8}, {"r": "many"}, {"r": None}, {"target_modules": 3}, {"carry_base": 3}])
def test_unknown_keys_and_wrong_types(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigValidationError) as raised:
        add(**wrong)
    assert next(iter(wrong)) in str(raised.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"r": 0},
        {"alpha": -1},
        {"dropout": 1},
        {"dropout": -0.1},
        {"target_modules": ["query"]},
        {"target_modules": []},
        {"layers": 0},
        {"bidirectional_from": -1},
        {"bidirectional_from": "half"},
        {"pooling": "first"},
        {"label_smoothing": 1},
        {"compute_dtype": "float16"},
        {"max_pieces": 7},
        {"overlap": 257},
        {"overlap": -1},
        {"earlier_ents": "drop"},
        {"threshold": 1.5},
        {"batch_pieces": 0},
    ],
)
def test_values_that_are_not_allowed(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))) as raised:
        add(**wrong)
    assert raised.value.code == "Q210"


def test_analyze_pipes(nlp: Language) -> None:
    analysis = nlp.analyze_pipes()
    assert analysis["summary"]["qlora_ner"]["assigns"] == ["doc.ents", "token.ent_iob", "token.ent_type"]
    assert analysis["summary"]["qlora_ner"]["scores"] == ["ents_f", "ents_p", "ents_r", "ents_per_type"]
    assert not any(analysis["problems"]["qlora_ner"])
    assert nlp.get_pipe_meta("qlora_ner").default_score_weights["ents_f"] == 1.0
