"""The name in a config, with and without spacy-transformers."""

from __future__ import annotations

import sys

import pytest

from spacy_qlora.bridge.architecture import make_qlora_transformer
from spacy_qlora.errors import InputError, RunError


def test_without_spacy_transformers_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spacy_transformers", None)
    monkeypatch.delitem(sys.modules, "spacy_qlora.bridge.model", raising=False)
    monkeypatch.setitem(sys.modules, "spacy_transformers.data_classes", None)
    with pytest.raises(RunError, match=r"^\[Q700\] .*spacy-qlora\[spacy-transformers\]") as raised:
        make_qlora_transformer()
    assert "\n" not in str(raised.value)


def test_every_setting_reaches_its_place() -> None:
    pytest.importorskip("spacy_transformers")
    given = {
        "base": "some/base", "r": 3, "alpha": 5.0, "dropout": 0.25, "target_modules": ["q_proj"], "layers": 2,
        "adapted_layers": 1, "bidirectional_from": None, "compute_dtype": "float32", "device": "cpu",
        "max_pieces": 64, "overlap": 8, "batch_pieces": 128, "checkpointing": True,
    }  # fmt: skip
    settings = make_qlora_transformer(**given).shim.adapted.settings
    classifier, lora = settings.classifier, settings.classifier.lora
    found = {**vars(settings), **vars(classifier), **vars(lora), "target_modules": list(lora.target_modules)}
    assert {name: found[name] for name in given} == given


@pytest.mark.parametrize("wrong", [{"r": 0}, {"max_pieces": 7}, {"overlap": -1}, {"compute_dtype": "float16"}])
def test_values_that_are_not_allowed(wrong: dict[str, object]) -> None:
    pytest.importorskip("spacy_transformers")
    with pytest.raises(InputError, match=next(iter(wrong))) as raised:
        make_qlora_transformer(**wrong)
    assert raised.value.code == "Q210"
